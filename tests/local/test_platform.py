"""The local platform: workspaces, and clusters that a real chain's real StreamManager pays for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ape_silverback.cluster.client import PlatformClient, Workspace
from ape_silverback.cluster.transport import Retries
from ape_silverback.cluster.types import ClusterInfo, ResourceStatus
from ape_silverback.exceptions import Conflict, NotFound
from ape_silverback.local.control import LocalCluster, Started
from ape_silverback.local.payments import Wanted
from demo.chain import find_anvil, running_anvil
from tests.local.payer import HOUR, STANDARD, Payer
from tests.local.test_server import gone, new_bot, pid_of, wait_for

pytestmark = pytest.mark.xdist_group("local-platform")
STATUS = ResourceStatus


@pytest.fixture(scope="module")
def chain() -> Iterator[str]:
    """A chain of its own, since its clock is advanced."""
    binary = find_anvil()
    if binary is None:
        pytest.skip("anvil is not installed (`make install` does)")
    with running_anvil(binary, block_time=0.2) as url:
        yield url


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, chain: str) -> Iterator[LocalCluster]:
    """The local cluster, with the platform."""
    cluster = LocalCluster(tmp_path_factory.mktemp("home") / ".silverback" / "local")
    cluster.up(wanted=Wanted(chain=chain))
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
    return Payer(chain, client.get_stream_manager(1337), client.get_accepted_tokens(1337)["TEST"])


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
        wait_for(lambda: bot.status is STATUS.RUNNING)
        kept = cluster.folder / "platform" / "clusters" / str(found.id)
        pid = pid_of(kept, bot)
        payer.cancel(stream) if end == "cancelled" else payer.advance(3700)
        wait_for(lambda: status_of(workspace, found) is STATUS.REMOVED)
        assert gone(pid)
        assert not kept.exists()
        with pytest.raises(NotFound, match="is gone: what was paid for ran out"):
            _ = client.bots
    with pytest.raises(Conflict, match="is gone"):
        workspace.update_cluster(str(found.id), name="again")
    assert workspace.create_cluster(found.slug).status is STATUS.CREATED
    assert workspace.clusters[found.slug].status is STATUS.CREATED
