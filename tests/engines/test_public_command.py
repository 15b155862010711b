"""The public SDK's own command line works against a cluster, whatever runs its bots."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ape_silverback.cluster.client import ClusterClient
from tests.conftest import ROOT, environment_of, python_command
from tests.engines.conftest import Server
from tests.engines.served import KEY
from tests.engines.test_conformance import RUNNING, STOPPED, beats, until
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("engines")

Silverback = Callable[..., str]


@pytest.fixture
def silverback(server: Server, home: Path) -> Iterator[Silverback]:
    """Return what runs `silverback cluster …` with a text for its stdin, and returns what it printed."""
    folder = home / ".silverback"
    folder.mkdir()
    (folder / "profile.toml").write_text(
        f'default-profile = "here"\n[auth]\n[profile.here]\nhost = "{server.url}"\napi-key = "{KEY}"\n'
    )
    with subprocess.Popen(
        [python_command(), "-m", "tests.engines.public_command"],
        cwd=ROOT,
        env=environment_of(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout

        def silverback(*arguments: str, stdin: str = "") -> str:
            print(json.dumps((["cluster", *arguments], stdin)), file=process.stdin, flush=True)
            assert process.stdout
            code, shown = json.loads(process.stdout.readline())
            assert code == 0, shown
            return str(shown)

        yield silverback
        process.stdin.close()


def test_the_public_command_line_creates_runs_and_removes_a_bot(
    silverback: Silverback, client: ClusterClient, server: Server
) -> None:
    assert "0." in silverback("info")
    silverback("vars", "new", "group-one", "-e", "BEHAVIOUR=steady", "-e", "UNUSED=1")
    assert "UNUSED" not in silverback("vars", "update", "group-one", "-d", "UNUSED")
    assert "- group-one" in silverback("vars", "list")
    silverback("registry", "new", "private", "127.0.0.1:1", stdin="me@example.org\nme\ns3cret\n")
    assert "- private" in silverback("registry", "list")

    where = ("--network", "ethereum:local:foundry", "-g", "group-one", "--credential", "private")
    made = silverback("bots", "new", "-i", server.image, *where, "one", stdin="y\n")
    assert "Bot 'one'" in made
    bot = until(client.bots["one"], RUNNING)
    wait_for(lambda: len(beats(bot)) > 3)
    assert "one: healthy" in silverback("bots", "health")
    assert "beat 3" in silverback("bots", "logs", "one")
    assert "one" in silverback("bots", "list")
    assert server.image in silverback("bots", "info", "one")
    assert "one" in silverback("health")

    assert "Bot 'one' stopping" in silverback("bots", "stop", "one", stdin="n\n")  # it takes a no for a yes
    until(bot, STOPPED)
    assert "one: not healthy" in silverback("bots", "health")
    assert "'one' errors:\n" in silverback("bots", "errors")
    silverback("bots", "update", "one", "--new-name", "two", stdin="y\n")
    assert "Bot 'two' starting" in silverback("bots", "start", "two", stdin="y\n")
    until(client.bots["two"], RUNNING)
    assert "Bot 'two' removed" in silverback("bots", "remove", "two", stdin="n\n")  # likewise
    silverback("registry", "remove", "private")
    silverback("vars", "remove", "group-one")
    assert (dict(client.bots), dict(client.variable_groups), dict(client.credentials)) == ({}, {}, {})
