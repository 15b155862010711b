"""What the tests stand on: an environment without the user's, a forked `ape` with forked bots, and skips that fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ape_silverback.server.runtimes.process import SDK
from tests.conftest import APE, NO_SKIPS, ROOT, ape_command, environment_of, python_command

HOSTILE = {
    "ALL_PROXY": "http://127.0.0.1:9",
    "APE_FOUNDRY_HOST": "http://127.0.0.1:9",
    "APE_SILVERBACK_PROFILE": "nowhere",
    "CLICOLOR_FORCE": "1",
    "DOCKER_HOST": "tcp://127.0.0.1:9",
    "FORCE_COLOR": "1",
    "GIT_DIR": "/nowhere",
    "GIT_WORK_TREE": "/nowhere",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "LC_ALL": "tr_TR",
    "NO_COLOR": "1",
    "SILVERBACK_CLUSTER_API_KEY": "wrong",
    "SILVERBACK_CLUSTER_URI": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}


def pytest_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest, as a user of this environment does."""
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "-p", "no:ape_test", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_users_environment_changes_no_test() -> None:
    result = pytest_run(
        "tests/cli/test_registry.py::test_list_and_info_as_text_and_as_data",
        "tests/cli/test_registry.py::test_remove_asks_and_no_is_no",
        "tests/cli/test_build.py::test_the_commit_names_images_and_building_leaves_it_clean",
        "tests/test_environment.py::test_what_isnt_allowed_is_in_no_process",
        **HOSTILE,
    )
    assert result.returncode == 0, result.stdout
    assert "4 passed" in result.stdout


def test_what_isnt_allowed_is_in_no_process() -> None:
    names = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    assert not {line.partition("=")[0] for line in names.splitlines()} & set(HOSTILE)


@pytest.mark.parametrize(("value", "code"), [("", 0), ("1", 1)])
def test_a_skip_fails_where_nothing_may_be_skipped(tmp_path: Path, value: str, code: int) -> None:
    file = tmp_path / "test_part.py"
    file.write_text("import pytest\ndef test_part(): pytest.skip('no such part here')\ndef test_other(): pass\n")
    result = pytest_run("-p", "tests.conftest", "--rootdir", str(tmp_path), str(file), **{NO_SKIPS: value})
    assert result.returncode == code, result.stdout
    assert ("test_part: Skipped: no such part here" in result.stdout) == bool(code)
    assert "1 passed, 1 skipped" in result.stdout.splitlines()[-1]


# The forked `ape`, and what it starts


@pytest.mark.parametrize(
    "arguments",
    [
        ["silverback", "cluster", "deploy", "--help"],
        ["silverback", "cluster", "bots", "lst"],
        ["silverback", "cluster", "status", "--profile", "ö"],
    ],
)
def test_a_forked_ape_does_as_the_real_one(home: Path, project: Path, arguments: list[str]) -> None:
    forked, real = (
        subprocess.run([command, *arguments], cwd=project, env=environment_of(home), capture_output=True, check=False)
        for command in (ape_command(), APE)
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


@pytest.mark.parametrize("arguments", [["--help"], ["--network", "nowhere", "blocks"]])
def test_a_forked_bot_does_as_the_real_one(home: Path, project: Path, arguments: list[str]) -> None:
    forked, real = (
        subprocess.run(
            [python, *SDK[1:], *arguments], cwd=project, env=environment_of(home), capture_output=True, check=False
        )
        for python in (python_command(), sys.executable)
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_nothing_else_of_an_interpreter_is_forked() -> None:
    command = [python_command(), "-c", "import sys; print('pydantic' in sys.modules, sys.executable)"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == f"False {sys.executable}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_what_was_forked(home: Path, project: Path, number: int) -> None:
    (project / "scripts").mkdir()
    script = "import os, sys, time\ndef main():\n    print('pid', os.getpid(), flush=True)\n    time.sleep(60)\n"
    (project / "scripts" / "wait.py").write_text(script)
    with subprocess.Popen(
        [ape_command(), "run", "wait"], cwd=project, env=environment_of(home), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = next(int(line.split()[1]) for line in process.stdout if line.startswith("pid"))
        process.send_signal(number)
    assert process.returncode == -number
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(30)
