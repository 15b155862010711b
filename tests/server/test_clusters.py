"""Life of paid clusters and how the chain is followed, in one process: every state, and the number of requests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.apepay.rpc import HttpNode, RpcRequest
from ape_silverback.cluster.types import ClusterConfiguration, ClusterInfo, ResourceStatus, StreamInfo
from ape_silverback.exceptions import ChainError
from ape_silverback.server.events import Created
from ape_silverback.server.platform.clusters import TRANSITIONS, Clusters, Payment
from ape_silverback.server.platform.payments import Payments, Wanted, settle
from ape_silverback.server.platform.store import END_OF_TIME, ClusterRecord, PlatformStore
from ape_silverback.server.platform.watcher import Watcher, product_for
from ape_silverback.server.supervisor import ImpossibleTransition
from tests.cluster.server import serving
from tests.server.payer import Payer
from tests.stream.nodes import forward
from tests.stream.payments import STANDARD

pytestmark = pytest.mark.xdist_group("local-clusters")
STATUS = ResourceStatus
MANAGER = "0x7A82f8Ba0D3D8e1AA7D6F8d0d9eF1C7DA1c1b0a2"
CODE = bytes.fromhex("0301000503020101000000000000000048feb247da5e9d62936771298e018b8d")
PAYMENT = Payment(StreamInfo(chain_id=1337, manager=MANAGER, stream_id=0), CODE, 2_000_000_000)
OWNER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PlatformStore]:
    """What the platform knows: a workspace."""
    store = PlatformStore(tmp_path)
    store.add_workspace("Space", "space")
    yield store
    store.close()


@pytest.fixture
def clusters(store: PlatformStore, tmp_path: Path) -> Iterator[Clusters]:
    """Its clusters."""
    clusters = Clusters(store, tmp_path / "clusters", "http://127.0.0.1:1", "session")
    yield clusters
    clusters.end()


def new(store: PlatformStore, slug: str = "one") -> ClusterRecord:
    return store.add_cluster(store.workspaces()[0].id, slug, slug)


def again(store: PlatformStore, record: ClusterRecord) -> ClusterRecord:
    found = store.cluster(record.info.id)
    assert found is not None
    return found


def test_every_state_leads_to_removed_and_nothing_leads_back() -> None:
    assert set(TRANSITIONS) == {state for follow in TRANSITIONS.values() for state in follow} | {STATUS.CREATED}
    assert all(after > before for before, follow in TRANSITIONS.items() for after in follow)
    assert [state for state, follow in TRANSITIONS.items() if not follow] == [STATUS.REMOVED]


def test_what_cant_follow_is_an_error(store: PlatformStore, clusters: Clusters) -> None:
    record = new(store)
    with pytest.raises(ImpossibleTransition, match="CREATED"):
        clusters.deprovision(record, "never paid")
    clusters.provision(record, PAYMENT)
    running = again(store, record)
    assert running.status is STATUS.RUNNING
    with pytest.raises(ImpossibleTransition):
        clusters.provision(running, PAYMENT)
    clusters.deprovision(running, "the end")
    removed = again(store, record)
    assert removed.status is STATUS.REMOVED
    for attempt in (lambda: clusters.provision(removed, PAYMENT), lambda: clusters.deprovision(removed, "again")):
        with pytest.raises(ImpossibleTransition):
            attempt()
    assert again(store, record) == removed


def test_what_a_killed_server_was_at_is_finished_by_the_next(
    store: PlatformStore, clusters: Clusters, tmp_path: Path
) -> None:
    coming, going = new(store, "coming"), new(store, "going")
    for record in (coming, going):
        clusters.provision(record, PAYMENT)
    clusters.end()
    store.set_status(coming.info.id, STATUS.PROVISIONING)
    store.set_status(going.info.id, STATUS.DEPROVISIONING)
    after = Clusters(store, tmp_path / "clusters", "http://127.0.0.1:1", "session")
    after.begin()
    assert again(store, coming).status is STATUS.RUNNING
    assert after.app_of(coming.info.id) is not None
    assert again(store, going).status is STATUS.REMOVED
    assert after.app_of(going.info.id) is None
    assert [folder.name for folder in (tmp_path / "clusters").iterdir()] == [str(coming.info.id)]
    after.end()


def test_a_stream_that_never_runs_out_has_an_expiration_that_can_be_shown(
    store: PlatformStore, clusters: Clusters
) -> None:
    record = new(store)
    clusters.provision(record, Payment(PAYMENT.stream, CODE, 2**256 - 1))
    assert again(store, record).info.expiration == datetime.fromtimestamp(END_OF_TIME, timezone.utc)


# Following the chain


@pytest.fixture
def payments(anvil: str, tmp_path: Path) -> Payments:
    """What pays, on a real chain."""
    return settle(Wanted(chain=anvil), tmp_path / "memory")


def test_a_look_takes_as_many_requests_for_many_clusters_as_for_none(
    store: PlatformStore, clusters: Clusters, payments: Payments, anvil: str
) -> None:
    payer = Payer.at(anvil, payments.manager, payments.tokens["TEST"])
    records = [new(store, f"cluster-{number}") for number in range(12)]
    for record in records[:3]:
        payer.create(STANDARD.get_product_code(payer.owner, record.info.id))
    with serving(lambda request: forward(anvil, request)) as between, HttpNode(between.url) as node:
        watcher = Watcher(node, payments, store, clusters)
        watcher.look()
        assert sum(again(store, one).status is STATUS.RUNNING for one in records) == 3
        between.requests.clear()
        looks = 5
        for _ in range(looks):
            payer.ask("evm_mine")
            watcher.look()
        batches = [request.json() for request in between.requests]
        assert len(batches) == 2 * looks
        assert sum(map(len, batches)) == 5 * looks  # chain, latest block, last block seen; logs, block that they end at


def test_a_node_of_another_chain_is_not_believed(
    store: PlatformStore, clusters: Clusters, payments: Payments, anvil: str
) -> None:
    record = new(store)
    stream = StreamInfo(chain_id=1338, manager=payments.manager, stream_id=0)
    clusters.provision(record, Payment(stream, CODE, 1))
    before = again(store, record)
    with HttpNode(anvil) as node:
        watcher = Watcher(node, payments.model_copy(update={"chain_id": 1338}), store, clusters)
        with pytest.raises(ChainError, match="on chain 1337, expected 1338"):
            watcher.look()
    assert again(store, record) == before


NONSENSE: tuple[Any, ...] = (None, 7, "", "zz", [], {}, {"number": "0x1"}, [{"topics": []}], "0x")


@dataclass
class Babbling:
    """A node that answers some requests rightly, and then all others with the same nonsense."""

    node: HttpNode
    sense: int
    nonsense: Any
    seen: int = 0

    def batch(self, requests: Sequence[RpcRequest]) -> list[Any]:
        self.seen += len(requests)
        right = max(0, min(len(requests), self.sense - self.seen + len(requests)))
        return [*self.node.batch(requests)[:right], *[self.nonsense] * (len(requests) - right)]


@pytest.mark.parametrize("sense", range(6))
@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_nonsense_of_a_node_never_ends_the_watch(
    store: PlatformStore, clusters: Clusters, payments: Payments, anvil: str, nonsense: Any, sense: int
) -> None:
    payer = Payer.at(anvil, payments.manager, payments.tokens["TEST"])
    record = new(store)
    payer.create(STANDARD.get_product_code(payer.owner, record.info.id))
    with HttpNode(anvil) as node:
        with suppress(ChainError):
            Watcher(Babbling(node, sense, nonsense), payments, store, clusters).look()
        Watcher(node, payments, store, clusters).look()
    assert again(store, record).status is STATUS.RUNNING


# Product codes


configurations = st.builds(
    ClusterConfiguration,
    cpu=st.integers(1, 64),
    memory=st.integers(1, 128),
    networks=st.integers(1, 20),
    bots=st.integers(1, 250),
    bandwidth=st.integers(1, 250),
    duration=st.integers(1, 120),
)


def record_of(cluster: uuid.UUID) -> ClusterRecord:
    now = datetime.now(timezone.utc)
    info = ClusterInfo(
        id=cluster, version=None, name="one", slug="one", created=now, status=STATUS.CREATED, last_updated=now
    )
    return ClusterRecord(uuid.uuid4(), info, None, None, None)


@given(configurations, st.uuids(), st.integers(0, 31), st.integers(1, 255))
def test_a_product_code_pays_for_its_configuration_and_with_any_byte_changed_for_nothing(
    configuration: ClusterConfiguration, cluster: uuid.UUID, place: int, change: int
) -> None:
    code = configuration.get_product_code(OWNER, cluster)
    assert ClusterConfiguration.from_product_code(code) == configuration
    record = record_of(cluster)
    assert product_for(Created(0, OWNER, (b"\0" * 32, code), 1), record) == code
    changed = bytearray(code)
    changed[place] ^= change
    assert product_for(Created(0, OWNER, (bytes(changed),), 1), record) is None
