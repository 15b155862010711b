"""A deployment that is killed at any moment is finished by running it again: the state is exactly the desired one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ape_silverback.cluster.client import ClusterClient
from ape_silverback.deployment.deployer import Deployer
from ape_silverback.deployment.state import LocalState
from tests.conftest import ROOT, python_command
from tests.deployment.forker import STATES, state, values
from tests.server.machine import Cluster

pytestmark = pytest.mark.xdist_group("killed")


class Forker:
    """Deploys in processes of their own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [python_command(), "-m", "tests.deployment.forker", url, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def deploy(self, number: int, kill_after: float | None = None) -> int:
        """Deploy a state, and give the exit code."""
        child = self.say(str(number))
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return self.say("")


@pytest.fixture
def forker(served: Cluster, tmp_path: Path) -> Iterator[Forker]:
    forker = Forker(served.url, tmp_path / "deployments")
    yield forker
    forker.process.kill()
    forker.process.communicate()


def check(served: Cluster, client: ClusterClient, deployer: Deployer, number: int) -> None:
    """Check that the cluster has a state exactly, and that the bots' processes run with it."""
    wanted = state(number)
    bots = client.bots
    assert set(bots) == {bot.name for bot in wanted.bots}
    assert len({bot.id for bot in bots.values()}) == len(served.store.bots()) == len(wanted.bots)
    assert {name: set(group.variables) for name, group in client.variable_groups.items()} == {
        group.name: set(group.variables) for group in wanted.groups
    }
    for bot in wanted.bots:
        configuration = bot.configuration.model_dump()
        assert bots[bot.name].configuration == bot.configuration
        assert bots[bot.name].is_healthy
        runs_with = dict(served.runs_with(bot.name))
        assert json.loads(runs_with.pop("configuration")) == {
            **configuration,
            "environment": [*bot.configuration.environment],
        }
        named = [
            name for group in wanted.groups if group.name in bot.configuration.environment for name in group.variables
        ]
        assert runs_with == {name: values(number)[name] for name in named}
    assert sum(process.alive for process in served.machine.processes.values()) == len(wanted.bots)
    local = LocalState(dict.fromkeys("XYZ", "key:value"))
    assert not deployer.plan(wanted, local).writes, "nothing is owed any more"


@pytest.mark.parametrize(("kills", "seed"), [(6, 3), pytest.param(100, 20, marks=pytest.mark.trial)])
def test_killed_at_any_moment_it_is_finished_by_running_it_again(
    served: Cluster, client: ClusterClient, deployer: Deployer, forker: Forker, kills: int, seed: int
) -> None:
    chance = random.Random(seed)
    assert forker.deploy(0) == 0
    begun = time.monotonic()
    assert forker.deploy(1) == 0
    longest = (time.monotonic() - begun) * 1.1
    check(served, client, deployer, 1)
    killed = 0
    while killed < kills:
        number = chance.randrange(STATES)
        code = forker.deploy(number, chance.uniform(0, longest))
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
        number = number if chance.random() < 0.7 else chance.randrange(STATES)
        assert forker.deploy(number) == 0
        check(served, client, deployer, number)
