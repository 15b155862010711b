"""The main job through the real `ape` command: up, deploy, look, stop, remove, down, on a real chain."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from ape_silverback.cli.shared.documents import LocalClusterDocument
from tests.conftest import Ape, ape_command, environment_of
from tests.place import BOT, CRASHING, Place
from tests.server.sink import serving
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("deploy")


@pytest.fixture
def empty(place: Place) -> None:
    """No bot is on the cluster."""
    place.configure()
    place.cluster("bots", "remove", "--all", "--yes")


@pytest.fixture
def deployed(place: Place) -> None:
    """Both bots are on the cluster as the project says, and run. Starting one takes seconds: those that run stay."""
    place.configure()
    place.cluster("deploy", "--yes")


@contextmanager
def recording(upstream: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy that writes down each request; gives its address and the list."""
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {"X-API-Key": self.headers.get("X-API-Key", ""), "Content-Type": "application/json"}
            reply = httpx.request(self.command, upstream + self.path, content=body, headers=headers, timeout=30)
            seen.append(f"{self.command} {self.path}")
            self.send_response(reply.status_code)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the names that the base class calls

        def log_message(self, *_: Any) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Proxy)) as server:
        yield f"http://127.0.0.1:{server.server_port}", seen


def local_profile(place: Place) -> dict[str, str]:
    text = (place.home / ".silverback" / "profile.toml").read_text()
    [host] = re.findall(r'host = "(http://127[^"]+)"', text)
    [key] = re.findall(r'api-key = "([^"]+)"', text)
    return {"host": host, "key": key}


# Deploy


@pytest.mark.usefixtures("empty")
def test_a_dry_run_shows_bots_origins_and_plan_and_changes_nothing(place: Place) -> None:
    place.configure("silverback:\n  account: TEST::0\n  bots:\n    left:\n")
    result = place.cluster("deploy", "--dry-run")
    assert re.search(r"network +local +", result.stdout)
    assert re.search(r"account +TEST::0 +account \(ape-config.yaml:8\)", result.stdout)
    assert "+ create bot left" in result.stdout
    assert "nothing was changed" in result.stderr
    assert place.cluster("bots", "list").stdout == ""


@pytest.mark.usefixtures("empty")
def test_deploy_twice_and_the_second_time_writes_nothing(place: Place) -> None:
    profile = local_profile(place)
    with recording(profile["host"]) as (address, requests):
        environment = {"SILVERBACK_CLUSTER_URI": address, "SILVERBACK_CLUSTER_API_KEY": profile["key"]}
        first = place.cluster("deploy", "--yes", **environment)
        writes = [request.partition("?")[0] for request in requests if not request.startswith("GET")]
        assert writes == ["POST /deployments", "POST /bots", "POST /bots", "POST /deployments"]
        assert "+ create bot left" in first.stdout
        assert "left: running and healthy" in first.stderr
        assert "2 of 2 bots running and healthy" in first.stdout
        assert not re.search(r"\x1b|\r", first.stdout + first.stderr), "plain lines when not a terminal"

        requests.clear()
        second = place.cluster("deploy", "--yes", **environment)
        assert "Nothing to change" in second.stdout
        assert "Nothing changed: 2 of 2 bots running and healthy" in second.stdout
        assert requests
        assert [request for request in requests if not request.startswith("GET")] == []


@pytest.mark.usefixtures("deployed")
def test_a_changed_account_is_shown_old_and_new_and_the_bot_restarts(place: Place) -> None:
    old = place.pid_of("left")
    place.configure("silverback:\n  bots:\n    left: {account: 'TEST::1'}\n")
    result = place.cluster("deploy", "--yes")
    assert "~ update bot left and restart" in result.stdout
    assert "account: - -> TEST::1" in result.stdout
    assert place.pid_of("left") != old
    assert "TEST::1" in place.cluster("bots", "info", "left").stdout


@pytest.mark.usefixtures("deployed")
def test_edited_code_restarts_the_bot_that_runs_it_and_no_other(place: Place) -> None:
    left, right = place.pid_of("left"), place.pid_of("right")
    module = place.project / "bots" / "left.py"
    module.write_text(f"{module.read_text()}\n# edited\n")
    result = place.cluster("deploy", "--yes")
    assert "restart bot left: code changed" in result.stdout
    assert place.pid_of("left") != left
    assert place.pid_of("right") == right
    assert "Nothing to change" in place.cluster("plan").stdout


@pytest.mark.usefixtures("deployed")
def test_a_stopped_bot_is_started_again(place: Place) -> None:
    place.cluster("bots", "stop", "left", "--yes")
    result = place.cluster("deploy", "left", "--yes")
    assert "> start bot left, which is stopped" in result.stdout
    assert "1 of 1 bots running and healthy" in result.stdout


@pytest.mark.usefixtures("deployed")
def test_groups_of_the_section_get_their_values_and_show_none(place: Place, tmp_path: Path) -> None:
    place.configure(
        "silverback:\n  environment: [rpc]\n  variables:\n    rpc: [RPC_KEY, RPC_URL]\n  bots:\n    left:\n"
    )
    before = place.pid_of("left")
    missing = place.cluster("deploy", "--yes", code=1)
    assert "variable 'RPC_KEY' of group 'rpc' (variables.rpc (ape-config.yaml:10)) has no value" in missing.stderr
    assert place.cluster("vars", "list").stdout == ""
    assert place.pid_of("left") == before

    (tmp_path / "values.env").write_text("RPC_URL=https://rpc.example/from-file\nfrom-file without a name\n")
    wrong = place.cluster("deploy", "--yes", "--env-file", str(tmp_path / "values.env"), code=1)
    assert "values.env: line 2 isn't NAME=VALUE" in wrong.stderr
    assert "from-" not in wrong.stdout + wrong.stderr
    (tmp_path / "values.env").write_text("RPC_URL=https://rpc.example/from-file\n")
    result = place.cluster("deploy", "--yes", "--env-file", str(tmp_path / "values.env"), RPC_KEY="from-environment")
    assert "+ create variable group rpc: RPC_KEY, RPC_URL" in result.stdout
    assert "from-" not in result.stdout + result.stderr

    place.configure("silverback:\n  environment: [rpc]\n  variables:\n    rpc: [RPC_KEY]\n  bots:\n    left:\n")
    changed = place.cluster("deploy", "--yes")
    assert "~ update variable group rpc: -RPC_URL" in changed.stdout
    assert "~ restart bot left: variables of rpc change" in changed.stdout


@pytest.mark.usefixtures("deployed")
def test_a_bot_that_fails_shows_its_last_lines_and_the_command_fails(place: Place) -> None:
    (place.project / "bots" / "broken.py").write_text(CRASHING)
    try:
        result = place.cluster("deploy", "left", "broken", "--yes", code=1)
        place.cluster("bots", "remove", "broken", "--yes")
    finally:
        (place.project / "bots" / "broken.py").unlink()
    output = result.stdout + result.stderr
    assert "broken: it stopped: exited with code 2: RuntimeError: the pool has no such token" in result.stderr
    assert "the pool has no such token" in output
    assert "left: running and healthy" in result.stderr, "one failure doesn't stop the others"
    assert "broken failed; 1 of 2 bots running and healthy" in result.stderr


@pytest.mark.usefixtures("deployed")
def test_a_change_that_makes_a_bot_crash_is_taken_back(place: Place) -> None:
    before = place.pid_of("left")
    result = place.cluster("deploy", "--set", "bots.left.network=::nowhere", "--rollback", "--yes", code=1)
    assert "provider: foundry -> nowhere" in result.stdout
    assert "left: it stopped: exited with code " in result.stderr
    assert "left: it has what it had before, and is running and healthy" in result.stderr
    assert "left failed; rolled back: left; 1 of 2 bots running and healthy" in result.stderr
    assert re.search(r"network: +ethereum:local:foundry", place.cluster("bots", "info", "left").stdout)
    assert place.pid_of("left") != before
    assert "left: healthy" in place.cluster("bots", "health", "left").stdout
    assert re.search(r"failed: left", place.cluster("history").stdout)
    assert "Nothing changed: 2 of 2" in place.cluster("deploy", "--yes").stdout


@pytest.mark.usefixtures("deployed")
def test_the_local_cluster_needs_no_image(place: Place) -> None:
    result = place.cluster("deploy", "left", "--build", "--yes", PATH=str(place.home))
    assert "No image is built: this cluster runs the project's folder." in result.stderr
    assert "1 of 1 bots running and healthy" in result.stdout


@pytest.mark.usefixtures("deployed")
def test_without_yes_and_nobody_to_ask_nothing_is_done(place: Place) -> None:
    before = place.pid_of("left")
    result = place.cluster("deploy", "--account", "TEST::4", code=2)
    assert "pass --yes" in result.stderr
    assert place.pid_of("left") == before
    assert "TEST::4" not in place.cluster("bots", "info", "left").stdout


@pytest.mark.usefixtures("deployed")
def test_a_bot_that_isnt_in_the_project_is_left_alone(place: Place) -> None:
    place.configure("silverback:\n  bots:\n    left:\n")
    result = place.cluster("deploy", "--yes")
    assert "Nothing changed: 1 of 1" in result.stdout
    assert re.search(r"^right +running", place.cluster("bots", "list").stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["deploy", "leftt"], "no bot 'leftt'"),
        (["deploy", "--target", "prod"], "no target 'prod'"),
        (["deploy", "--network", "ethereum:sepola"], "sepolia"),
        (["deploy", "--profile", "nowhere"], "nowhere"),
        (["bots", "info", "nobody"], "no bot 'nobody'"),
        (["bots", "logs", "nobody"], "no bot 'nobody'"),
        (["bots", "remove", "nobody", "--yes"], "no bot 'nobody'"),
    ],
)
def test_what_isnt_there_is_named_in_one_clear_error(place: Place, arguments: list[str], says: str) -> None:
    result = place.cluster(*arguments, code=1)
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr


# Bots


@pytest.mark.usefixtures("deployed")
def test_a_killed_bot_is_shown_as_stopped_with_its_reason_within_five_seconds(place: Place) -> None:
    place.configure("silverback:\n  bots:\n    left: {restart: never}\n    right:\n")
    place.cluster("deploy", "--yes")  # else it runs again a second later
    os.kill(place.pid_of("left"), signal.SIGKILL)
    killed = time.monotonic()
    pattern = r"left +stopped .*killed by signal 9 \(SIGKILL\)"
    while not re.search(pattern, (listed := place.cluster("bots", "list").stdout)):
        assert time.monotonic() - killed < 5, listed
    status = place.cluster("status").stdout
    assert re.search(pattern, status)
    assert re.search(r"^right +running", status, re.MULTILINE)
    assert "not healthy: " in status
    assert "left: not healthy" in place.cluster("bots", "health", code=1).stdout


@pytest.mark.usefixtures("deployed")
def test_the_life_of_a_bot_by_commands(place: Place) -> None:
    assert "left: healthy" in place.cluster("bots", "health", "left").stdout
    deadline = time.monotonic() + 20
    while "Saw block" not in (log := place.cluster("bots", "logs", "left").stdout):
        assert time.monotonic() < deadline, log
    assert "Saw block" not in place.cluster("bots", "logs", "left", "--log-level", "ERROR").stdout
    info = place.cluster("bots", "info", "left").stdout
    assert f"project:{place.project}#left" in info
    assert re.search(r"network: +ethereum:local:foundry", info)

    assert "left: stopped" in place.cluster("bots", "stop", "l*", "--yes").stdout
    assert re.search(r"left +stopped .*stopped by the user", place.cluster("bots", "list").stdout)
    assert "left: running and healthy" in place.cluster("bots", "start", "left").stderr
    assert "left: removed" in place.cluster("bots", "remove", "left", "--yes").stdout
    assert "left" not in place.cluster("bots", "list").stdout


@pytest.mark.usefixtures("deployed")
def test_a_followed_log_shows_new_lines_and_ends_with_an_interrupt(place: Place) -> None:
    command = [ape_command(), "silverback", "cluster", "bots", "logs", "left", "-f"]
    environment = environment_of(place.home)
    with subprocess.Popen(
        command, cwd=place.project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        blocks: list[int] = []
        for line in reader.stdout:
            blocks += [int(number) for number in re.findall(r"Saw block (\d+)", line)]
            if len(blocks) == 4:
                break
        reader.send_signal(signal.SIGINT)
        assert reader.wait(10) in (0, 130)
        assert "Traceback" not in reader.stderr.read()
    assert blocks == list(range(blocks[0], blocks[0] + 4)), "no line lost, none twice"


@contextmanager
def watching(place: Place, *arguments: str) -> Iterator[Callable[[str], str]]:
    """`deploy --watch`, ended with an interrupt; yields what waits until it has shown a text, and returns all of it."""
    command = [ape_command(), "silverback", "cluster", "deploy", "--yes", "--watch", *arguments]
    shown: list[str] = []
    environment = environment_of(place.home)
    with subprocess.Popen(
        command, cwd=place.project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = process.stdout
        reader = Thread(target=lambda: shown.extend(iter(output.readline, "")))
        reader.start()

        def shows(text: str) -> str:
            wait_for(lambda: text in "".join(shown) or process.poll() is not None, 180)
            so_far = "".join(shown)
            assert text in so_far, so_far
            return so_far

        try:
            yield shows
        finally:
            process.send_signal(signal.SIGINT)
            reader.join(60)
            assert process.wait(10) == 0, "".join(shown)


@pytest.mark.usefixtures("deployed")
def test_a_saved_file_restarts_the_bots_that_import_it(place: Place) -> None:
    left, module = place.pid_of("left"), place.project / "bots" / "right.py"
    before = module.read_text()
    with watching(place) as shows:
        shows("Watching the files of left, right. Ctrl-C to quit.")
        pid = place.pid_of("right")
        module.write_text(f"{before}\ndef broken(:\n")
        shows("invalid syntax; not restarted: right")
        assert place.pid_of("right") == pid
        module.write_text(before.replace("Saw", "Looked at"))
        shows("bots/right.py changed; restarting right")
        shows("right: running and healthy")
        shown = shows("Looked at block")
        assert re.search(r"^left  .*Saw block", shown, re.MULTILINE)
        assert re.search(r"^right .*Looked at block", shown, re.MULTILINE)
        assert place.pid_of("right") != pid
    shown = shows("Still running: left, right. To stop: ape silverback cluster bots stop left right")
    assert "Traceback" not in shown
    assert place.pid_of("left") == left, "it doesn't import the file"

    with watching(place, "right", "--on-exit", "stop") as shows:
        shows("Watching the files of right.")
    shows("Stopped: right.")
    assert re.search(r"^left +running.*\n(.*\n)*^right +stopped", place.cluster("bots", "list").stdout, re.MULTILINE)
    module.write_text(before)


def answer(place: Place, text: str, *arguments: str) -> str:
    """Run a command at a terminal of its own and answer its question; gives all that it showed."""
    import pty

    control, terminal = pty.openpty()
    environment = environment_of(place.home)
    command = [ape_command(), "silverback", "cluster", *arguments]
    with subprocess.Popen(
        command, cwd=place.project, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = ""
        while True:
            try:
                chunk = os.read(control, 4096).decode()
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
            if "[y/N]" in shown and text:
                os.write(control, text.encode() + b"\n")
                text = ""
        process.wait(30)
    os.close(control)
    return shown


@pytest.mark.usefixtures("deployed")
def test_no_means_no_and_yes_means_yes(place: Place) -> None:
    assert "Stop left on local" in answer(place, "n", "bots", "stop", "left")
    assert re.search(r"left +running", place.cluster("bots", "list").stdout)
    answer(place, "y", "bots", "stop", "left")
    assert re.search(r"left +stopped", place.cluster("bots", "list").stdout)
    assert "Remove left and its logs from local" in answer(place, "n", "bots", "remove", "left")
    assert "left" in place.cluster("bots", "list").stdout
    answer(place, "y", "bots", "remove", "left")
    assert "left" not in place.cluster("bots", "list").stdout
    answer(place, "n", "deploy", "left")
    assert "left" not in place.cluster("bots", "list").stdout
    assert "1 of 1 bots running and healthy" in answer(place, "y", "deploy", "left")


@pytest.mark.parametrize("command", ["start", "stop", "remove"])
def test_every_bot_has_to_be_asked_for(place: Place, command: str) -> None:
    assert "--all" in place.cluster("bots", command, code=2).stderr


# The cluster


def test_up_says_that_it_runs_already_and_status_shows_it(place: Place) -> None:
    again = place.cluster("up")
    assert "is already running at http://127.0.0.1:" in again.stdout
    status = place.cluster("status").stdout
    assert re.search(r"Cluster +local \(http://127.0.0.1:\d+\), version 0.8", status)
    profile = place.home / ".silverback" / "profile.toml"
    assert profile.stat().st_mode & 0o777 == 0o600
    data = place.cluster("up", "--format", "json").stdout
    found = LocalClusterDocument.model_validate_json(data)
    assert (found.already, found.profile) == (True, "local")
    assert found.host in again.stdout
    assert local_profile(place)["key"] not in again.stdout + again.stderr + status + data


def test_without_any_cluster_it_says_how_to_get_one(ape: Ape, project: Path) -> None:
    (project / "bots").mkdir()
    (project / "bots" / "a.py").write_text(BOT)
    for command in (["deploy", "--yes"], ["status"], ["bots", "list"]):
        result = ape("silverback", "cluster", *command)
        assert result.returncode == 1
        assert "ape silverback cluster up" in result.stderr
        assert "profile" in result.stderr


def test_a_cluster_that_went_away_is_named_at_once(place: Place) -> None:
    environment = {"SILVERBACK_CLUSTER_URI": "http://127.0.0.1:9", "SILVERBACK_CLUSTER_API_KEY": "x"}
    result = place.cluster("bots", "list", code=1, **environment)
    assert "nothing listens at http://127.0.0.1:9" in result.stderr


@pytest.mark.usefixtures("deployed")
def test_commands_that_only_talk_to_the_cluster_stay_light(place: Place) -> None:
    script = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        "from ape._cli import cli; sys.argv[0] = 'ape'; cli()"
    )
    for command in ("status", "bots list", "bots info left", "bots logs left", "bots health", "bots start left"):
        result = subprocess.run(
            [sys.executable, "-c", script, "silverback", "cluster", *command.split()],
            cwd=place.project,
            env=environment_of(place.home),
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = set(result.stderr.split())
        assert "ape_silverback.cluster.client" in loaded
        heavy = {"web3", "pandas", "numpy", "ape.contracts", "ape.managers", "fastapi", "starlette", "uvicorn"}
        needless = {"ape_silverback.cluster.platform", "pygments"}
        assert not loaded & (heavy | needless), command


@pytest.mark.usefixtures("deployed")
def test_the_public_command_line_works_against_it(place: Place) -> None:
    script = (  # in one process: its imports take seconds
        "from click.testing import CliRunner; from silverback._cli import cli\n"
        "for words in ('list', 'info left', 'logs left'):\n"
        "    result = CliRunner().invoke(cli, ['cluster', 'bots', *words.split(), '--profile', 'local'])\n"
        "    assert result.exit_code == 0, result.output + repr(result.exception)\n"
        "    print(result.output)\n"
        "    print('----')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place.project,
        env=environment_of(place.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    listed, info, logs, _ = result.stdout.split("----")
    assert "left" in listed
    assert f"image: project:{place.project}#left" in info
    assert "Startup complete" in logs
