"""Every command that shows what a cluster or a platform tells, at a terminal, where each text would command it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import terminal_session
from tests.cli.hostile import behave, look_at
from tests.cluster.server import Server, serving

pytestmark = pytest.mark.trial

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
"""Command → its exit code."""


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
