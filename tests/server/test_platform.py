"""The local platform: workspaces, and clusters that a real chain's real StreamManager pays for."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import PlatformClient, Workspace
from ape_silverback.cluster.types import ClusterInfo, ResourceStatus
from ape_silverback.exceptions import Conflict, LocalClusterError, NotFound, ValidationFailed
from ape_silverback.server.daemon import LocalCluster, Started
from ape_silverback.server.platform.payments import Wanted
from ape_silverback.version import __version__
from demo.chain import find_anvil, free_port, running_anvil
from tests.server.conftest import local_cluster
from tests.server.payer import HOUR, Payer
from tests.server.test_server import gone, new_bot, pid_of
from tests.stream.payments import STANDARD
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("local-platform")
STATUS = ResourceStatus


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, chain: str) -> Iterator[LocalCluster]:
    """The local cluster, with the platform."""
    folder = tmp_path_factory.mktemp("home") / ".silverback" / "local"
    cluster = local_cluster(folder, "--chain", chain, "--dev-payments")
    yield cluster
    cluster.down()


def client_of(started: Started) -> PlatformClient:
    assert started.platform is not None
    cookies = {"session": started.platform.session}
    return PlatformClient(base_url=started.running.host, cookies=cookies, retries=Retries(attempts=1))


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[PlatformClient]:
    """Our client for the platform."""
    with client_of(cluster.up()) as client:
        yield client


@pytest.fixture
def payer(client: PlatformClient, chain: str) -> Payer:
    """Who pays."""
    return Payer.at(chain, client.get_stream_manager(1337), client.get_accepted_tokens(1337)["TEST"])


@pytest.fixture
def workspace(client: PlatformClient) -> Workspace:
    """An empty workspace."""
    return client.create_workspace()


def status_of(workspace: Workspace, cluster: ClusterInfo) -> ResourceStatus:
    [found] = [one for one in workspace.clusters.values() if one.id == cluster.id]
    return found.status


def paid(payer: Payer, workspace: Workspace, amount: int = HOUR) -> tuple[ClusterInfo, int]:
    """Make a cluster, pay for it and wait until it runs."""
    made = workspace.create_cluster()
    stream = payer.pay(made, amount)
    wait_for(lambda: status_of(workspace, made) is STATUS.RUNNING)
    return workspace.clusters[made.slug], stream


def test_a_cluster_runs_once_it_is_paid_for(payer: Payer, workspace: Workspace, bots_folder: Path) -> None:
    made = workspace.create_cluster(cluster_name="My First")
    assert (made.slug, made.status, made.expiration, made.configuration) == ("my-first", STATUS.CREATED, None, None)
    assert workspace.get_stream_info(made) is None
    with workspace.get_cluster_client("my-first") as unpaid, pytest.raises(Conflict, match="isn't paid for yet"):
        new_bot(unpaid, bots_folder, "one")

    stream = payer.pay(made)
    wait_for(lambda: status_of(workspace, made) is STATUS.RUNNING)
    found = workspace.clusters["my-first"]
    assert found.configuration == STANDARD
    assert found.expiration is not None
    assert found.expiration.timestamp() == payer.stream(stream).expires_at
    info = workspace.get_stream_info(found)
    assert info is not None
    assert (info.chain_id, info.manager, info.stream_id) == (1337, payer.manager, stream)
    with workspace.get_cluster_client("my-first") as client:
        assert client.configuration == STANDARD
        bot = new_bot(client, bots_folder, "one")
        wait_for(lambda: bot.status is STATUS.RUNNING)
        bot.remove()


def test_funding_moves_the_expiration(payer: Payer, workspace: Workspace) -> None:
    found, stream = paid(payer, workspace)
    assert found.expiration is not None
    before = found.expiration.timestamp()
    payer.fund(stream, 3 * HOUR)
    after = payer.stream(stream).expires_at
    assert after > before + 2.9 * 3600
    wait_for(lambda: workspace.clusters[found.slug].expiration.timestamp() == after)  # type: ignore[union-attr]


@pytest.mark.parametrize("end", ["cancelled", "run out"])
def test_a_cluster_whose_stream_ends_is_gone_with_its_bots(
    payer: Payer, workspace: Workspace, cluster: LocalCluster, bots_folder: Path, end: str
) -> None:
    found, stream = paid(payer, workspace)
    with workspace.get_cluster_client(found.slug) as client:
        bot = new_bot(client, bots_folder, "one")
        kept = cluster.folder / "platform" / "clusters" / str(found.id)
        pid = wait_for(lambda: pid_of(kept, bot))  # its start, which takes seconds, is no part of this
        payer.cancel(stream) if end == "cancelled" else payer.advance(3700)
        wait_for(lambda: status_of(workspace, found) is STATUS.REMOVED)
        assert gone(pid)
        assert not kept.exists()
        with pytest.raises(NotFound, match="is gone: its payment stream ran out"):
            _ = client.bots
    with pytest.raises(Conflict, match="is gone"):
        workspace.update_cluster(str(found.id), name="again")
    assert workspace.create_cluster(found.slug).status is STATUS.CREATED
    assert workspace.clusters[found.slug].status is STATUS.CREATED


def test_only_the_owners_own_product_code_of_this_very_cluster_pays(payer: Payer, workspace: Workspace) -> None:
    wanted, other = workspace.create_cluster(), workspace.create_cluster()
    right = payer.product(wanted)
    for byte in (0, 7, 8, 15, 16, 31):
        wrong = bytearray(right)
        wrong[byte] ^= 1
        payer.create(bytes(wrong))
    payer.create(payer.product(wanted), sender=payer.accounts[2])  # a code that was signed for another owner
    payer.create(STANDARD.get_product_code(payer.owner, uuid.uuid4()))  # of a cluster that isn't there
    paying = payer.pay(other)
    wait_for(lambda: status_of(workspace, other) is STATUS.RUNNING)
    # The one that was paid for last is there, so that all that came before has been looked at.
    assert status_of(workspace, wanted) is STATUS.CREATED
    assert workspace.get_stream_info(wanted) is None
    payer.cancel(paying)


def test_a_second_stream_for_a_cluster_changes_nothing(payer: Payer, workspace: Workspace) -> None:
    found, stream = paid(payer, workspace)
    second = payer.pay(found, amount=2 * HOUR)
    another, _ = paid(payer, workspace)
    assert workspace.clusters[found.slug] == found
    payer.cancel(second)
    last, _ = paid(payer, workspace)
    assert {status_of(workspace, one) for one in (found, another, last)} == {STATUS.RUNNING}
    info = workspace.get_stream_info(found)
    assert info is not None
    assert info.stream_id == stream


def test_each_cluster_is_one_of_its_own(
    payer: Payer, workspace: Workspace, cluster: LocalCluster, bots_folder: Path
) -> None:
    (one, _), (other, _) = paid(payer, workspace), paid(payer, workspace)
    with workspace.get_cluster_client(one.slug) as first, workspace.get_cluster_client(other.slug) as second:
        first.new_variable_group("rpc", {"LOUD_KEY": "1"})
        first.new_credentials("registry", "ghcr.io", "me@example.org", "me", "secret")
        new_bot(first, bots_folder, "one", environment=["rpc"], cluster_access=True)
        assert (second.variable_groups, second.credentials, second.bots) == ({}, {}, {})
        with pytest.raises(ValidationFailed):
            new_bot(second, bots_folder, "one", environment=["rpc"])
    # The key that a bot with access to its cluster gets opens that cluster, and no other.
    key = (cluster.folder / "platform" / "clusters" / str(one.id) / "api-key").read_text()
    host = cluster.up().running.host
    addresses = [f"{host}/c/{workspace.slug}/{slug}/bots" for slug in (one.slug, other.slug)] + [f"{host}/bots"]
    statuses = [httpx.get(address, headers={"X-API-Key": key}).status_code for address in addresses]
    assert statuses == [200, 401, 401]
    with workspace.get_cluster_client(one.slug) as first:
        first.bots["one"].remove()


def test_a_running_cluster_can_be_migrated_to_the_version_that_there_is(payer: Payer, workspace: Workspace) -> None:
    found, _ = paid(payer, workspace)
    assert found.version == __version__
    workspace.migrate_cluster(str(found.id))
    workspace.migrate_cluster(str(found.id), __version__)
    assert workspace.clusters[found.slug].version == __version__


def test_a_workspace_with_removed_clusters_only_can_be_removed(
    client: PlatformClient, payer: Payer, workspace: Workspace
) -> None:
    found, stream = paid(payer, workspace)
    payer.cancel(stream)
    wait_for(lambda: status_of(workspace, found) is STATUS.REMOVED)
    workspace.remove()
    assert workspace.slug not in client.workspaces


def test_payments_and_bots_outlive_a_killed_server(tmp_path: Path, chain: str, bots_folder: Path) -> None:
    cluster = LocalCluster(tmp_path / "local")
    try:
        with client_of(cluster.up(wanted=Wanted(chain=chain))) as client:
            payer = Payer.at(chain, client.get_stream_manager(1337), client.get_accepted_tokens(1337)["TEST"])
            workspace = client.create_workspace("space")
            (one, _), (ending, stream) = paid(payer, workspace), paid(payer, workspace)
            late = workspace.create_cluster("late")
            with workspace.get_cluster_client(one.slug) as inside:
                bot = new_bot(inside, bots_folder, "one")
                wait_for(lambda: bot.status is STATUS.RUNNING)
                pid = pid_of(cluster.folder / "platform" / "clusters" / str(one.id), bot)
        kill(cluster)
        # Nobody is there when these happen.
        payer.pay(late)
        payer.cancel(stream)
        assert not gone(pid)
        with client_of(cluster.up(wanted=Wanted(chain=chain))) as client:
            workspace = client.workspaces["space"]
            assert client.get_stream_manager(1337) == payer.manager  # nothing was deployed again
            wait_for(lambda: status_of(workspace, late) is STATUS.RUNNING)
            wait_for(lambda: status_of(workspace, ending) is STATUS.REMOVED)
            with workspace.get_cluster_client(one.slug) as inside:
                assert inside.bots["one"].status is STATUS.RUNNING
                assert pid_of(cluster.folder / "platform" / "clusters" / str(one.id), bot) == pid
        # Taken down and up again, it has the bot again, in a new process.
        assert cluster.down()
        assert gone(pid)
        databases = sorted(cluster.folder.rglob("*.db*"))
        assert len(databases) == 4, "each is one file, without anything beside it: a copy of it is whole"
        with client_of(cluster.up(wanted=Wanted(chain=chain))) as client:
            with client.workspaces["space"].get_cluster_client(one.slug) as inside:
                assert inside.bots["one"].status in (STATUS.PROVISIONING, STATUS.STARTUP, STATUS.RUNNING)
            pid = wait_for(lambda: pid_of(cluster.folder / "platform" / "clusters" / str(one.id), bot))
        # Without a server, and without the platform, nobody looks after it.
        kill(cluster)
        assert not gone(pid)
        cluster.up()
        assert gone(pid)
    finally:
        cluster.down()


def kill(cluster: LocalCluster) -> None:
    running = cluster.running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    wait_for(lambda: cluster.running() is None)


def test_a_chain_that_is_away_changes_nothing_and_one_that_is_new_takes_its_clusters_away(tmp_path: Path) -> None:
    binary = find_anvil()
    assert binary is not None
    port, state = free_port(), str(tmp_path / "chain.json")
    more: dict[str, Any] = {"block_time": 0.2, "port": port}
    kept = {**more, "options": ("--state", state)}
    cluster = LocalCluster(tmp_path / "local")
    said = lambda: cluster.server_log.read_text()  # noqa: E731
    try:
        with running_anvil(binary, **kept) as chain:
            wanted = Wanted(chain=chain)
            client = client_of(cluster.up(wanted=wanted))
            payer = Payer.at(chain, client.get_stream_manager(1337), client.get_accepted_tokens(1337)["TEST"])
            workspace = client.create_workspace("space")
            found, stream = paid(payer, workspace)
        wait_for(lambda: "can't be followed" in said())
        time.sleep(2.5)
        assert said().count("can't be followed") == 1
        assert workspace.clusters[found.slug] == found
        with running_anvil(binary, **kept):
            wait_for(lambda: "is followed again" in said())
            assert workspace.clusters[found.slug] == found
            another, _ = paid(payer, workspace)
            payer.fund(stream)
            wait_for(lambda: workspace.clusters[found.slug].expiration != found.expiration)
        with running_anvil(binary, **more):  # another chain, which knows nothing of all this
            for one in (found, another):
                wait_for(lambda one=one: status_of(workspace, one) is STATUS.REMOVED)  # type: ignore[misc]
            with pytest.raises(LocalClusterError, match="the chain was started anew"):
                cluster.up(wanted=wanted)
            cluster.down()
            client = client_of(cluster.up(wanted=wanted))
            payer = Payer.at(chain, client.get_stream_manager(1337), client.get_accepted_tokens(1337)["TEST"])
            assert paid(payer, client.workspaces["space"])[0].status is STATUS.RUNNING
        assert "Traceback" not in said()
    finally:
        cluster.down()


def test_blocks_that_are_taken_back_take_their_payments_back(payer: Payer, workspace: Workspace) -> None:
    before, _ = paid(payer, workspace)
    snapshot = payer.ask("evm_snapshot")
    (after, stream), waiting = paid(payer, workspace), workspace.create_cluster()
    assert payer.ask("evm_revert", snapshot) is True
    # Another cluster is paid for at once, by a stream that gets the number of the one that is no more.
    assert payer.pay(waiting) == stream
    wait_for(lambda: status_of(workspace, waiting) is STATUS.RUNNING)
    assert status_of(workspace, after) is STATUS.REMOVED
    assert workspace.clusters[before.slug] == before
