"""What a paid cluster holds its bots to: numbers of bots and networks, cores and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.cluster.types import BotConfiguration, ClusterConfiguration
from ape_silverback.exceptions import ClientError
from ape_silverback.server.processes import on_cores
from ape_silverback.server.quota import GIB, limits_of, refusal
from ape_silverback.server.runtimes import Limits, Run
from ape_silverback.server.runtimes.process import ProcessRuntime
from tests.conftest import run_ape
from tests.server.machine import Machine, serving_cluster
from tests.waiting import wait_for

NETWORK = {"image": "a/b:1", "ecosystem": "ethereum", "network": "local", "provider": "foundry"}
BOT = BotConfiguration(**NETWORK)


@given(
    paid=st.builds(ClusterConfiguration, cpu=st.integers(1, 64), memory=st.integers(1, 128), bots=st.integers(1, 250))
)
def test_all_bots_together_never_have_more_than_is_paid_for(paid: ClusterConfiguration) -> None:
    part = limits_of(Limits(), paid)
    assert part.cpus
    assert part.memory
    assert part.cpus * paid.bots == pytest.approx(paid.cpu)
    assert part.memory * paid.bots <= paid.memory * GIB
    assert limits_of(Limits(cpus=0.001, memory=1), paid) == Limits(cpus=0.001, memory=1)
    assert limits_of(Limits(memory=1), None) == Limits(memory=1)


def test_memory_that_is_used_up_refuses_one_more() -> None:
    paid = ClusterConfiguration(bots=3, memory=2)
    assert refusal(paid, [BOT], BOT, 2 * GIB - 1) is None
    assert refusal(paid, [BOT], BOT, None) is None
    assert refusal(paid, [BOT], BOT, 2 * GIB + GIB // 10) == (
        "2 GiB of memory is paid for, and bots use 2.1 GiB; stop or remove one, or pay for more"
    )


def test_a_bot_that_finds_no_memory_left_is_refused_and_one_that_runs_may_change(tmp_path: Path) -> None:
    class Full(Machine):
        """A machine whose bots use 1 GiB each."""

        def memory(self, bots: list[UUID]) -> int:
            return GIB * len(bots)

    paid = ClusterConfiguration(bots=5, networks=2, memory=1)
    with serving_cluster(tmp_path, configuration=paid, machine=Full) as cluster, cluster.client() as client:
        one = client.new_bot(name="one", **NETWORK)
        with pytest.raises(ClientError, match=r"1 GiB of memory is paid for, and bots use 1\.0 GiB") as refused:
            client.new_bot(name="two", **NETWORK)
        assert refused.value.status == 402
        one.update(network="sepolia")


def test_the_plan_shows_what_is_used_and_what_is_paid_for(tmp_path: Path, home: Path, project: Path) -> None:
    (project / "bots").mkdir()
    (project / "bots" / "one.py").touch()
    (project / "ape-config.yaml").write_text(
        "silverback:\n  network: ethereum:local:foundry\n  bots:\n"
        "    one: {image: 'a/b:1'}\n    two: {image: 'a/b:1', module: one}\n"
    )
    paid = ClusterConfiguration(bots=3, networks=2)
    with serving_cluster(tmp_path / "served", configuration=paid) as cluster, cluster.client() as client:
        client.new_bot(name="other", **{**NETWORK, "network": "sepolia"})
        shown = run_ape(home, project, ("silverback", "cluster", "plan"), **cluster.environment)
    assert "Used of what is paid for: 3 of 3 bots, 2 of 2 networks." in shown.stdout, shown.stdout + shown.stderr


@pytest.fixture
def eater(tmp_path: Path) -> Iterator[tuple[ProcessRuntime, UUID]]:
    """A bot that takes 64 MiB in a process that it starts, and shows the cores that it may use."""
    (tmp_path / "eat.py").write_text(
        "import os, subprocess, sys, time\n"
        "print('cores', len(os.sched_getaffinity(0)), flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import time; it = b\"x\" * 2**26; time.sleep(60)'])\n"
    )
    (tmp_path / "bot.py").touch()
    runtime = ProcessRuntime(tmp_path / "kept", command=(sys.executable, str(tmp_path / "eat.py")))
    bot = uuid4()
    runtime.start(Run(bot, "eater", f"project:{tmp_path}#bot", {}, cores=1), {})
    yield runtime, bot
    runtime.kill(bot, {})
    wait_for(lambda: not runtime.poll({bot: {}})[bot].alive)
    runtime.close()


def test_memory_counts_with_what_a_bot_started_and_cores_are_those_paid_for(eater: tuple[ProcessRuntime, UUID]) -> None:
    runtime, bot = eater
    wait_for(lambda: runtime.memory([bot]) > 2**26)
    assert runtime.memory([bot]) < 2**28
    assert runtime.memory([uuid4()]) == 0
    base = runtime.log_file(bot)
    assert wait_for(lambda: any("cores 1" in file.read_text() for file in base.parent.glob(f"{base.name}*")))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds processes to cores so")
def test_only_what_is_started_is_held_to_cores() -> None:
    before = os.sched_getaffinity(0)
    show = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    with on_cores(1, of="a cluster"):
        assert subprocess.check_output(show).strip() == b"1"
    assert os.sched_getaffinity(0) == before
    with on_cores(999, of="a cluster"):
        assert os.sched_getaffinity(0) == before
