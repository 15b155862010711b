"""Every command that shows what a cluster or a platform tells, at a terminal, where each text would command it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import terminal_session
from tests.cli.hostile import Welcoming, behave, look_at
from tests.cli.platform import log_in
from tests.cluster.server import Server, serving

pytestmark = [pytest.mark.trial, pytest.mark.sample]

KEY = {"SILVERBACK_CLUSTER_API_KEY": "k"}
COMMANDS: dict[tuple[str, ...], int] = {
    ("info",): 0,
    ("health",): 1,
    ("status",): 0,
    ("status", "-o", "wide"): 0,
    ("bots", "list"): 0,
    ("bots", "info"): 0,
    ("bots", "health"): 1,
    ("bots", "errors"): 0,
    ("bots", "logs", "--all"): 0,
    ("bots", "logs", "--all", "--format", "json"): 0,
    ("bots", "logs", "--all", "--format", "yaml"): 0,
    ("bots", "list", "--format", "json"): 0,
    ("bots", "list", "--format", "yaml"): 0,
    ("bots", "start", "nothing"): 1,
    ("bots", "start", "--all", "--no-wait"): 1,
    ("bots", "stop", "--all", "-y", "--no-wait"): 1,
    ("bots", "stop", "--all"): 1,
    ("bots", "remove", "--all", "-y"): 1,
    ("bots", "update", "a", "--image", "a/b:2", "-y"): 1,
    ("bots", "update", "a", "-g", "none", "-y"): 1,
    ("vars", "list"): 0,
    ("vars", "info", "nothing"): 1,
    ("vars", "new", "x", "-e", "A=1"): 1,
    ("vars", "remove", "--all", "-y"): 1,
    ("registry", "list"): 0,
    ("registry", "info", "nothing"): 1,
    ("registry", "remove", "--all", "-y"): 1,
    ("plan",): 1,
    ("history",): 0,
}
"""Command of a cluster → its exit code."""

SIGNER = ("--account", "TEST::0")
OF_THE_PLATFORM: dict[tuple[str, ...], int] = {
    ("workspaces", "list"): 0,
    ("workspaces", "list", "--format", "json"): 0,
    ("workspaces", "info", "space"): 0,
    ("workspaces", "info", "nothing"): 1,
    ("workspaces", "new", "-s", "other"): 1,
    ("workspaces", "update", "space", "-n", "Other"): 1,
    ("workspaces", "delete", "space"): 1,
    ("list",): 0,
    ("list", "space"): 0,
    ("list", "nothing"): 1,
    ("list", "--format", "yaml"): 0,
    ("new", "space", "-s", "other"): 1,
    ("update", "space/cluster", "-n", "Other"): 1,
    ("update", "space/nothing", "-n", "Other"): 1,
    ("migrate", "space/cluster", "-y"): 1,
    ("migrate", "space/cluster", "--version", "9", "-y"): 1,
    ("verify", "-c", "space/cluster"): 1,
    ("verify", "-c", "space/cluster", "--format", "json"): 1,
    ("verify", "--all"): 1,
    ("pay", "info", "space/cluster"): 1,
    ("pay", "create", "space/cluster", *SIGNER, "--amount", "1", "-y"): 1,
    ("pay", "create", "space/cluster", *SIGNER, "--amount", "1", "--token", "USDC", "--no-verify", "-y"): 1,
    ("pay", "add-time", "space/cluster", *SIGNER, "--amount", "1", "-y"): 1,
    ("pay", "add-time", "space/cluster", *SIGNER, "--amount", "1", "-y", "--no-verify"): 1,
    ("pay", "cancel", "space/cluster", *SIGNER, "-y"): 1,
    ("pay", "cancel", "space/cluster", *SIGNER, "-y", "--no-verify"): 1,
    ("info", "-c", "space/cluster"): 1,
    ("info", "-c", "space/nothing"): 1,
    ("status", "-c", "space/cluster"): 0,
    ("vars", "new", "x", "-e", "A=1", "-c", "space/cluster"): 1,
    ("keys", "list", "-c", "space/cluster"): 1,
    ("nodes", "-c", "space/cluster"): 1,
}
"""Command of a platform, or of a cluster there → its exit code."""

SECTION = """
silverback:
  network: ethereum:mainnet:alchemy
  variables:
    rpc: [TOKEN]
  bots:
    first: {image: a/b:1, environment: [rpc]}
    second: {image: a/b:2}
"""


@pytest.fixture(scope="module")
def hostile() -> Iterator[Server]:
    with serving(behave) as server:
        yield server


@pytest.mark.parametrize(
    ("command", "code"), COMMANDS.items(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_no_command_lets_a_cluster_command_the_terminal(
    hostile: Server, home: Path, project: Path, command: tuple[str, ...], code: int
) -> None:
    typed = (("[y/N]", "n\n"),) if command == ("bots", "stop", "--all") else ()
    environment = {**KEY, "SILVERBACK_CLUSTER_URI": hostile.url}
    look_at(terminal_session(command, home, project, code, typed, **environment))


@pytest.mark.parametrize(
    ("command", "code"), OF_THE_PLATFORM.items(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_no_command_lets_a_platform_command_the_terminal(
    hostile: Server, home: Path, project: Path, command: tuple[str, ...], code: int
) -> None:
    log_in(home, hostile.url, hostile.url)
    typed = (("[y/N]", "n\n"),) if command == ("workspaces", "delete", "space") else ()
    shown = terminal_session(command, home, project, code, typed)
    look_at(shown)
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    "command", [("deploy", "-y"), ("deploy", "-y", "--format", "json"), ("deploy", "-y", "--rollback")]
)
def test_what_bots_do_while_they_are_deployed_does_nothing_to_the_terminal(
    home: Path, project: Path, command: tuple[str, ...]
) -> None:
    (project / "ape-config.yaml").write_text(SECTION)
    with serving(Welcoming()) as server:
        environment = {**KEY, "SILVERBACK_CLUSTER_URI": server.url, "TOKEN": "t", "SILVERBACK_SETTLE": "0"}
        shown = terminal_session(command, home, project, 1, **environment)
    look_at(shown)
    assert "Traceback" not in shown
    assert "first" in shown
    assert "owned" in shown
