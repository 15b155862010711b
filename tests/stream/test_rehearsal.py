"""A payment from workspace to refund, through the real `ape` command: local platform, chain, bot, ApePay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ape_silverback.apepay.rpc import HttpNode
from ape_silverback.cli.shared.documents import StreamDocument
from ape_silverback.server.daemon import LocalCluster
from ape_silverback.stream.verify import Report
from demo.chain import find_anvil, running_anvil
from tests.cli.conftest import Run, documents, runner
from tests.stream.payments import DAY, Payments

CONFIG = """\
name: rehearsal
ethereum:
  default_network: local
  local:
    default_provider: foundry
foundry:
  host: {chain}
silverback:
  profile: local-platform
  cluster: team/prod
  account: TEST::0
  bots:
    beat:
"""

BOT = """
from ape import chain
from ape.logging import logger
from silverback import SilverbackBot

bot = SilverbackBot()


@bot.on_(chain.blocks)
def beat(block):
    logger.info(f"Block {block.number}")
"""


@pytest.fixture
def slow_chain() -> Iterator[str]:
    """URL of a chain with a block a second, for a bot to follow."""
    binary = find_anvil()
    if binary is None:
        pytest.skip("anvil is not installed (`make install` does)")
    with running_anvil(binary) as url:
        yield url


@pytest.fixture
def ape(home: Path, project: Path, slow_chain: str) -> Iterator[Run]:
    """`ape silverback cluster …` in a project with a bot; at the end the local cluster is taken down."""
    (project / "bots").mkdir()
    (project / "bots" / "beat.py").write_text(BOT)
    (project / "ape-config.yaml").write_text(CONFIG.format(chain=slow_chain))
    run = runner(home, project)
    yield run
    run("down")
    assert LocalCluster(home / ".silverback" / "local").running() is None


def until(ask: Callable[[], Any], wanted: Any, seconds: float = 60) -> None:
    """Ask until the answer is what it should be."""
    deadline = time.monotonic() + seconds
    while (found := ask()) != wanted:
        assert time.monotonic() < deadline, f"{found}, not {wanted}"
        time.sleep(0.5)


def test_a_cluster_is_paid_for_verified_used_extended_and_cancelled(ape: Run, slow_chain: str) -> None:
    def status() -> str:
        [cluster] = json.loads(ape("list", "team", "--format", "json").stdout)
        return str(cluster["status"])

    ape("up", "--chain", slow_chain, "--dev-payments")
    ape("workspaces", "new", "-n", "Team", "-s", "team")
    ape("new", "-n", "Prod", "-s", "prod", "team")
    assert status() == "created"
    assert "isn't paid for" in ape("deploy", "--yes", code=1).stderr
    assert "isn't paid for by a stream" in ape("pay", "info", "team/prod", code=1).stderr
    assert "stdin isn't a terminal; pass --yes" in ape("pay", "create", "team/prod", "--time", "30 days", code=2).stderr

    paid = ape("pay", "create", "team/prod", "--time", "30 days", "-c", "bots", "7", "--yes", "--format", "json")
    stream = documents(StreamDocument, paid.stdout)
    assert stream.configuration is not None
    assert (stream.configuration.bots, stream.configuration.memory) == (7, 2)
    assert 30 * DAY - 60 < stream.seconds_left <= 30 * DAY
    assert stream.transaction is not None
    until(status, "running")
    assert (
        "a new stream is for a cluster that was just made"
        in ape("pay", "create", "team/prod", "--time", "1 day", "--yes", code=1).stderr
    )

    [report] = documents(list[Report], ape("verify", "--pin", "--format", "json").stdout)
    assert {check.name for check in report.checks if check.outcome != "pass"} == {"pinned", "controller"}
    [report] = documents(list[Report], ape("verify", "--format", "json").stdout)
    assert [check.outcome for check in report.checks] == ["pass"] * 9

    deployed = ape("deploy", "--yes")
    assert "9 checks passed" in deployed.stderr
    assert "1 of 1 bots running and healthy" in deployed.stdout
    assert "Nothing changed" in ape("deploy", "--yes").stdout

    info = documents(StreamDocument, ape("pay", "info", "team/prod", "--format", "json").stdout)
    assert info.verification is not None
    assert info.verification["trusted"]
    assert (info.stream_id, info.owner, info.token) == (stream.stream_id, stream.owner, "TEST")
    assert "time left" in ape("pay", "info", "team/prod").stdout

    longer = ape("pay", "add-time", "team/prod", "--amount", "24 TEST", "--yes", "--format", "json")
    assert 30 * DAY < documents(StreamDocument, longer.stdout).seconds_left <= 31 * DAY
    assert "belongs to" in ape("pay", "cancel", "team/prod", "--account", "TEST::3", "--yes", code=1).stderr

    with HttpNode(slow_chain) as node:
        Payments(node).advance(DAY)
    ended = documents(StreamDocument, ape("pay", "cancel", "team/prod", "--yes", "--format", "json").stdout)
    assert ended.refund is not None
    assert 718 < float(ended.refund.split()[0]) <= 720
    assert ended.seconds_left == 0
    until(status, "removed")
    refused = ape("deploy", "--yes", code=1).stderr
    assert "is gone: its payment stream ran out" in refused


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "team/prod", "--yes"), 2, "exactly one of --amount or --time"),
        (("create", "team/prod", "--amount", "1", "--time", "1 day", "--yes"), 2, "exactly one of --amount or --time"),
        (("create", "team/prod", "--time", "yesterday", "--yes"), 2, "isn't a time span"),
        (("create", "team/prod", "--time", "2020-01-01", "--yes"), 2, "isn't in the future"),
        (("create", "team/prod", "--amount", "1e9", "--yes"), 1, "TEST; the payment takes 1000000000 TEST"),
        (("create", "team/prod", "--amount", "1", "--token", "USDC", "--yes"), 1, "takes no token 'USDC'"),
        (("create", "team/prod", "--amount", "1", "-c", "bost", "2", "--yes"), 2, "did you mean 'bots'?"),
        (
            ("create", "team/prod", "--amount", "1", "-c", "memory", "2 GB", "--yes"),
            2,
            "with or without the unit 'GiB'",
        ),
        (("create", "team/prod", "--amount", "1", "-c", "bots", "900", "--yes"), 2, "less than or equal to 250"),
        (("create", "team/prod", "--amount", "1", "--approve", "none", "--yes"), 1, "leave out `--approve none`"),
        (("create", "team/prod", "--amount", "1", "--account", "nobody", "--yes"), 2, "alias 'nobody' not found"),
        (("create", "team/prod", "--amount", "1", "--network", "ethereum:local:test"), 1, "inside this process"),
        (("add-time", "team/prod", "--amount", "1", "--yes"), 1, "isn't paid for by a stream"),
    ],
)
def test_a_mistake_is_named_before_anything_is_signed(
    unpaid: Run, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = unpaid("pay", *arguments, code=code)
    assert said in result.stderr
    assert result.stdout == ""
    assert "Sending" not in result.stderr


@pytest.fixture(scope="module")
def unpaid(tmp_path_factory: pytest.TempPathFactory, chain: str) -> Iterator[Run]:
    """`ape silverback cluster …` for a local platform with a cluster that isn't paid for."""
    home, project = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("project")
    (project / "ape-config.yaml").write_text(CONFIG.format(chain=chain))
    run = runner(home, project)
    run("up", "--chain", chain, "--dev-payments")
    try:
        run("workspaces", "new", "-n", "Team", "-s", "team")
        run("new", "-n", "Prod", "-s", "prod", "team")
        yield run
    finally:
        run("down")
