"""Deploying from code: a script of `ape run`, `ape console`, and an Ape test with the fixtures, on a real chain."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import ape_silverback
from tests.conftest import ROOT, run_ape
from tests.place import Place

pytestmark = pytest.mark.xdist_group("code")


def processes_of(home: Path) -> list[str]:
    """Name the processes that were started with this folder below their HOME or among their arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(home) in process.environ().get("HOME", "") or str(home) in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):  # it ended, or belongs to somebody else
            continue
    return found


def test_this_repositorys_script_deploys_its_bots_and_the_second_time_nothing(place: Place, tmp_path: Path) -> None:
    for name in ("bots", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ape-config.yaml", tmp_path)
    command = ("run", "deploy", "--network", f"ethereum:local:{place.anvil}")
    first = run_ape(place.home, tmp_path, command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "blocks: ethereum:local:foundry, account TEST::0" in first.stdout
    assert "create-group chain, create blocks, create streams" in first.stdout
    assert "  streams: running and healthy" in first.stdout
    assert "2 of 2 bots running and healthy on local (http://127.0.0.1:" in first.stdout
    second = run_ape(place.home, tmp_path, command)
    assert second.returncode == 0, second.stdout + second.stderr
    assert re.search(r"To do on local .*: nothing\n", second.stdout)
    place.cluster("bots", "remove", "--all", "--yes")
    place.cluster("vars", "remove", "chain", "--yes")


def test_a_script_gets_events_one_by_one_and_an_error_that_says_what_failed(place: Place) -> None:
    (place.project / "bots" / "broken.py").write_text('raise RuntimeError("no such pool")\n')
    (place.project / "scripts").mkdir()
    (place.project / "scripts" / "both.py").write_text(
        "from ape_silverback import DeployFailed, Overrides, deploy, deploy_events\n"
        "def main():\n"
        "    kinds = [event.kind for event in deploy_events('left', overrides=Overrides(account='TEST::1'))]\n"
        "    print('kinds', sorted(set(kinds)), kinds[-1])\n"
        "    try:\n"
        "        deploy('broken')\n"
        "    except DeployFailed as error:\n"
        "        print('failed', error.failures)\n"
    )
    try:
        result = place.ape("run", "both", "--network", f"ethereum:local:{place.anvil}")
    finally:
        (place.project / "bots" / "broken.py").unlink()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "kinds ['applied', 'ready', 'state'] ready" in result.stdout
    assert re.search(
        r"failed \{'broken': 'it stopped: exited with code \d+: RuntimeError: no such pool'\}", result.stdout
    )
    place.cluster("bots", "remove", "--all", "--yes")


def console(place: Place, code: str, *arguments: str) -> str:
    """Type something into the real console, and give what it shows."""
    network = ("--network", f"ethereum:local:{place.anvil}")
    result = run_ape(place.home, place.project, ("console", *network, *arguments), stdin=code)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


ASK = "print('bots:', *(bot.name for bot in silverback.project_bots('l*')), silverback.plan('left').writes[0].kind)"


def test_the_console_has_silverback_with_the_extension(place: Place) -> None:
    place.configure("console:\n  plugins: [ape_silverback.console]\n")
    assert "bots: left create" in console(place, f"{ASK}\nexit\n")
    place.configure()
    assert "NameError" in console(place, f"{ASK}\nexit\n")


def test_the_console_has_silverback_with_a_line_in_its_extras(place: Place) -> None:
    extras = place.project / "ape_console_extras.py"
    extras.write_text("import ape_silverback as silverback\n")
    assert "bots: left create" in console(place, "", "--code", ASK)
    extras.unlink()


APE_TEST = """
import time

import ape_silverback


def test_bots_see_the_blocks_that_the_test_mines(chain, deployed_bots, silverback_cluster):
    assert set(deployed_bots) == {"left", "right"}
    first = chain.blocks.head.number
    chain.mine(3)
    deadline = time.monotonic() + 30
    while not any(f"Saw block {first + 2}" in entry.message for entry in deployed_bots["left"].get_logs()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    deployed_bots["right"].stop()


{documented}

def test_what_another_test_stopped_runs_again(deployed_bots, silverback_cluster):
    assert deployed_bots["right"].is_healthy
    assert not ape_silverback.plan(client=silverback_cluster).writes
"""


def test_an_ape_test_has_running_bots_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    (place.project / "tests").mkdir()
    [documented] = re.findall(
        r"```python\n(def test_.*?)```", (ROOT / "docs/userguides/python.md").read_text(), re.DOTALL
    )
    (place.project / "tests" / "test_bots.py").write_text(APE_TEST.replace("{documented}", documented))
    before = {path for path in place.home.rglob("*") if ".silverback" in path.parts}
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    result = place.ape("test", "--network", "ethereum:local:foundry", "-p", "no:cacheprovider", TMPDIR=str(temporary))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout
    assert {path for path in place.home.rglob("*") if ".silverback" in path.parts} == before
    assert not [path for path in temporary.iterdir() if path.name.startswith("silverback-cluster-")]
    assert processes_of(temporary) == []
    assert place.cluster("bots", "list").stdout == "", "the user's own local cluster is left alone"


def test_a_run_of_pytest_that_doesnt_use_the_fixtures_loads_nothing_for_them(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\ndef test_nothing():\n"
        "    loaded = {'ape_silverback.pytest_plugin', 'httpx', 'pydantic', 'ape', 'fastapi', 'psutil'}\n"
        "    assert loaded & set(sys.modules) == {'ape_silverback.pytest_plugin'}\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:ape_test", "-p", "no:cacheprovider", "-q", str(tmp_path)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": ""}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_every_public_name_is_there_and_a_type_checker_sees_the_same() -> None:
    text = Path(ape_silverback.__file__).read_text()
    lines = re.findall(r"^    from ape_silverback\.\S+ import (.*)", text.partition("# Module")[0], re.MULTILINE)
    for_types = [name for line in lines for name in line.split(", ")]
    assert sorted(ape_silverback.__all__) == sorted(ape_silverback._PLACES) == sorted(for_types)
    for name in ape_silverback.__all__:
        assert getattr(ape_silverback, name) is not None
