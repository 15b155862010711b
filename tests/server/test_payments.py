"""Payments rehearsed through the real `ape` command: up with a chain, pay, deploy, let time pass, down."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ape_silverback.apepay.development import deploy
from ape_silverback.apepay.rpc import HttpNode
from ape_silverback.cli.shared.documents import ClusterDocument, LocalClusterDocument
from ape_silverback.server.daemon import LocalCluster
from ape_silverback.server.platform.store import PlatformStore
from demo.chain import find_anvil, running_anvil
from tests.cli.conftest import Run, documents, runner
from tests.deployment.test_deploy import BOT
from tests.server.payer import Payer
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("payments")
PLATFORM = ("--profile", "local-platform")


@pytest.fixture
def run(home: Path, project: Path) -> Iterator[Run]:
    """`ape silverback cluster …`, and the local cluster down in the end."""
    run = runner(home, project)
    yield run
    run("down")


def test_a_payment_is_rehearsed_from_the_workspace_to_the_end(run: Run, home: Path, project: Path, chain: str) -> None:
    (project / "bots").mkdir()
    (project / "bots" / "heartbeat.py").write_text(BOT)
    (project / "ape-config.yaml").write_text(
        f"name: first\nethereum:\n  local:\n    default_provider: foundry\nfoundry:\n  host: {chain}\n"
    )
    up = run("up", "--chain", chain, "--dev-payments", "--format", "json")
    platform = documents(LocalClusterDocument, up.stdout).platform
    assert platform is not None
    assert (platform.profile, platform.chain_id, list(platform.tokens)) == ("local-platform", 1337, ["TEST"])
    login = home / ".silverback" / "local-platform.json"
    assert stat.S_IMODE(login.stat().st_mode) == 0o600
    session = json.loads(login.read_text())["tokens"]["access_token"]
    assert session not in up.stdout + up.stderr

    assert run("workspaces", "new", "--name", "My Bots", *PLATFORM).stdout == "my-bots: created\n"
    assert run("new", "my-bots", "--name", "Prod", *PLATFORM).stdout == "my-bots/prod: created\n"
    prod = (*PLATFORM, "--cluster", "my-bots/prod")
    assert "cluster my-bots/prod isn't paid for yet" in run("deploy", "--yes", *prod, code=1).stderr

    store = PlatformStore(LocalCluster(home / ".silverback" / "local").folder / "platform")
    [record] = store.clusters()
    payer = Payer.at(chain, platform.stream_manager, platform.tokens["TEST"])
    stream = payer.pay(record.info)

    def state() -> str:
        [found] = documents(list[ClusterDocument], run("list", "my-bots", "--format", "json", *PLATFORM).stdout)
        return str(found.status)

    wait_for(lambda: state() == "running", 30)
    shown = documents(ClusterDocument, run("info", "--format", "json", *prod).stdout)
    assert shown.stream == f"eip155:1337:{platform.stream_manager}/{stream}"
    assert shown.expiration is not None
    assert shown.expiration.timestamp() == payer.stream(stream).expires_at
    assert "1 of 1 bots running and healthy on my-bots/prod" in run("deploy", "--yes", *prod).stdout
    assert "heartbeat" in run("status", *prod).stdout
    assert "heartbeat" not in run("bots", "list").stdout  # the direct cluster is another one

    payer.advance(3700)
    wait_for(lambda: state() == "removed", 30)
    assert "its payment stream ran out" in run("deploy", "--yes", *prod, code=1).stderr
    assert "is gone: its payment stream ran out" in run("bots", "list", *prod, code=1).stderr
    store.close()

    run("down")
    assert not login.exists()
    assert "local-platform" not in (home / ".silverback" / "profile.toml").read_text()


def test_a_stream_manager_that_is_there_is_taken_as_it_is(run: Run, chain: str) -> None:
    with HttpNode(chain) as node:
        made = deploy(node)
    payer = Payer.at(chain, made.manager, made.token)
    before = payer.ask("eth_getTransactionCount", payer.owner, "latest")
    there = ("up", "--chain", chain, "--stream-manager", made.manager)
    up = documents(LocalClusterDocument, run(*there, "--token", made.token, "--format", "json").stdout)
    assert up.platform is not None
    assert (up.platform.stream_manager, up.platform.tokens) == (made.manager, {"TEST": made.token})
    assert payer.ask("eth_getTransactionCount", payer.owner, "latest") == before  # nothing was deployed

    # What runs is what was asked for first; another wish is told so.
    assert "already running" in run(*there, "--token", made.token).stdout
    assert "already running" in run("up").stdout
    for other in (there, ("up", "--chain", chain, "--dev-payments")):
        assert "running with another chain, StreamManager or tokens: run `ape" in run(*other, code=1).stderr
    run("down")

    # A token that it stops to accept.
    payer.send(made.manager, "set_token_accepted", made.token, False, sender=payer.controller)
    refused = run(*there, "--token", made.token, code=1).stderr
    assert f"{made.manager} doesn't accept the token {made.token}" in refused
    assert "isn't running" in run("down").stdout


def test_a_cluster_without_payments_stays_one(run: Run, home: Path, chain: str) -> None:
    up = documents(LocalClusterDocument, run("up", "--format", "json").stdout)
    assert up.platform is None
    assert not (home / ".silverback" / "local" / "platform").exists()
    assert "local-platform" not in (home / ".silverback" / "profile.toml").read_text()
    refused = run("up", "--chain", chain, "--dev-payments", code=1).stderr
    assert "running without payments: run `ape silverback cluster down` first" in refused
    profile = home / ".silverback" / "profile.toml"
    profile.write_text("[")
    broken = run("down", code=1)
    assert "Stopped the local cluster" in broken.stdout
    assert f"{profile}:1: " in broken.stderr
    profile.unlink()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stream-manager", "0x" + "1" * 40], "--stream-manager needs --chain"),
        (["--token", "0x" + "1" * 40], "--token needs --chain"),
        (["--dev-payments"], "--dev-payments needs --chain"),
        (["--chain", "http://127.0.0.1:1"], "--chain needs one of --stream-manager"),
        (["--chain", "http://127.0.0.1:1", "--dev-payments", "--stream-manager", "0x" + "1" * 40], "needs one of"),
        (["--chain", "http://127.0.0.1:1", "--dev-payments", "--token", "0x" + "1" * 40], "--dev-payments deploys a"),
    ],
)
def test_options_that_dont_fit_are_told(run: Run, options: list[str], said: str) -> None:
    assert said in " ".join(run("up", *options, code=2).stderr.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--chain", "http://a:secret@127.0.0.1:1/secret", "--dev-payments"],
            "node at 127.0.0.1:1 can't be reached",
        ),
        (["--chain", "ws://127.0.0.1:1/secret", "--dev-payments"], "--chain: expected the URL of a node"),
        (["--chain", "http://127.0.0.1:secret", "--dev-payments"], "--chain: expected the URL of a node"),
        (["--chain", "CHAIN", "--stream-manager", "0x12"], "--stream-manager: not an address"),
        (["--chain", "CHAIN", "--stream-manager", "0x" + "1" * 40, "--token", "x"], "--token: not an address"),
        (["--chain", "CHAIN", "--stream-manager", "0x" + "1" * 40], "no contract at 0x1111"),
    ],
)
def test_values_that_cant_be_used_are_told_and_nothing_is_started(
    run: Run, chain: str, options: list[str], said: str
) -> None:
    refused = run("up", *(chain if option == "CHAIN" else option for option in options), code=1).stderr
    assert said in refused
    assert "secret" not in refused
    assert "isn't running" in run("down").stdout


def test_nothing_is_deployed_where_it_costs_money(run: Run) -> None:
    binary = find_anvil()
    assert binary is not None
    with running_anvil(binary, chain_id=1) as url:
        refused = run("up", "--chain", url, "--dev-payments", code=1).stderr
    assert "chain 1 isn't a development chain (1337 and 31337 are): nothing was deployed" in refused


def test_a_profile_of_somebody_else_with_that_name_stays(run: Run, home: Path, chain: str) -> None:
    folder = home / ".silverback"
    folder.mkdir()
    text = (
        '[auth.mine]\nhost = "https://login.example"\nclient-id = "x"\n'
        '[profile.local-platform]\nhost = "https://platform.example"\nauth = "mine"\n'
    )
    (folder / "profile.toml").write_text(text)
    refused = run("up", "--chain", chain, "--dev-payments", code=1).stderr
    assert "profile 'local-platform'" in refused
    assert (folder / "profile.toml").read_text() == text
    run("up")  # which needs no such profile
    run("down")
    assert (folder / "profile.toml").read_text().rstrip() == text.rstrip()
