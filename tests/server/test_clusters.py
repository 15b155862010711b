"""Life of paid clusters and how the chain is followed, in one process: every state, and the number of requests."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
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
from ape_silverback.server.lifecycle import ImpossibleTransition
from ape_silverback.server.platform.clusters import TRANSITIONS, Clusters, Payment
from ape_silverback.server.platform.payments import Payments, Wanted, settle
from ape_silverback.server.platform.store import END_OF_TIME, ClusterRecord, PlatformStore
from ape_silverback.server.platform.watcher import Watcher, product_for
from tests.cluster.server import Reply, Request, serving
from tests.server.payer import Payer
from tests.stream.nodes import forward
from tests.stream.payments import CONFIGURATIONS, STANDARD
from tests.waiting import wait_for

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


def record_of(cluster: uuid.UUID) -> ClusterRecord:
    now = datetime.now(timezone.utc)
    info = ClusterInfo(
        id=cluster, version=None, name="one", slug="one", created=now, status=STATUS.CREATED, last_updated=now
    )
    return ClusterRecord(uuid.uuid4(), info, None, None, None)


@given(CONFIGURATIONS, st.uuids(), st.integers(0, 31), st.integers(1, 255))
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


def deep(_: Request) -> Reply:
    return Reply(200, b'{"jsonrpc": "2.0", "id": 0, "result": ' + b"[" * 100_000, {"Content-Type": "application/json"})


def fairly_deep(request: Request) -> Reply:
    ids = [one["id"] for one in request.json()]
    nested = "[" * 900 + "]" * 900
    body = ",".join(f'{{"jsonrpc": "2.0", "id": {one}, "result": {nested}}}' for one in ids)
    return Reply(200, f"[{body}]".encode(), {"Content-Type": "application/json"})


def results(result: str) -> Callable[[Request], Reply]:
    """A node that answers everything with the same JSON."""

    def behave(request: Request) -> Reply:
        asked = request.json()
        many = asked if isinstance(asked, list) else [asked]
        bodies = [f'{{"jsonrpc": "2.0", "id": {one["id"]}, "result": {result}}}' for one in many]
        text = f"[{','.join(bodies)}]" if isinstance(asked, list) else bodies[0]
        return Reply(200, text.encode(), {"Content-Type": "application/json"})

    return behave


def bomb(_: Request) -> Reply:
    body = gzip.compress(b" " * (200 << 20), 1)
    return Reply(200, body, {"Content-Type": "application/json", "Content-Encoding": "gzip"})


def header(number: str = "0x7fffffff", hash_: str = "0x" + "ab" * 32) -> str:
    return json.dumps({"number": number, "hash": hash_, "timestamp": "0x1"})


FAULTS: dict[str, Callable[[Request], Reply]] = {
    "deep JSON": deep,
    "nearly too deep JSON": fairly_deep,
    "an id that is a list": lambda _: Reply(200, b'[{"jsonrpc": "2.0", "id": [1], "result": "0x1"}]'),
    "a code that is a list": lambda _: Reply(
        200, b'[{"jsonrpc": "2.0", "id": 0, "error": {"code": [], "message": []}}]'
    ),
    "half a character": results('{"number": "0x1", "hash": "\\ud800", "timestamp": "0x1"}'),
    "a number that can't be stored": results(header("0x" + "f" * 100)),
    "a number below zero": results(header("-0x1")),
    "a hash of a megabyte": results(header(hash_="0x" + "a" * 2**20)),
    "NaN": results("NaN"),
    "an array": lambda _: Reply(200, b"[]"),
    "a page": lambda _: Reply(502, b"<html>"),
    "a gzip bomb": bomb,
    "an endless answer": lambda _: Reply(200, chunks=iter(lambda: b" " * 2**20, b"")),
    "a reset": lambda _: Reply(200, b"x" * 100, reset_after=1),
    "dripping": lambda _: Reply(200, b"x" * 10_000, drip=0.05),
}


def test_the_watch_outlives_every_fault_of_a_node_and_a_node_that_drips_doesnt_hold_its_end(
    store: PlatformStore, clusters: Clusters, payments: Payments, anvil: str
) -> None:
    behave: list[Callable[[Request], Reply]] = [lambda request: forward(anvil, request)]
    payer = Payer.at(anvil, payments.manager, payments.tokens["TEST"])
    with (
        serving(lambda request: behave[0](request)) as between,
        HttpNode(between.url, whole=1.0, pauses=()) as node,
    ):
        watcher = Watcher(node, payments, store, clusters, poll=0.02)
        watcher.begin()
        for fault in FAULTS.values():
            seen = len(between.requests)
            behave[0] = fault
            wait_for(lambda seen=seen: len(between.requests) >= seen + 3, seconds=60)  # type: ignore[misc]
        behave[0] = lambda request: forward(anvil, request)
        record = new(store)
        payer.create(STANDARD.get_product_code(payer.owner, record.info.id))
        wait_for(lambda: again(store, record).status is STATUS.RUNNING, seconds=60)
        behave[0] = FAULTS["dripping"]
        seen = len(between.requests)
        wait_for(lambda: len(between.requests) > seen, seconds=60)
        begun = time.monotonic()
        watcher.end()
        assert time.monotonic() - begun < 30


def test_a_fault_of_this_machine_is_logged_and_tried_again(
    store: PlatformStore, clusters: Clusters, payments: Payments, anvil: str, tmp_path: Path
) -> None:
    payer = Payer.at(anvil, payments.manager, payments.tokens["TEST"])
    record = new(store)
    payer.create(STANDARD.get_product_code(payer.owner, record.info.id))
    (tmp_path / "clusters").write_text("a file where the clusters' folders would be")
    with HttpNode(anvil) as node:
        watcher = Watcher(node, payments, store, clusters, poll=0.02)
        watcher.begin()
        wait_for(lambda: again(store, record).status is STATUS.PROVISIONING)
        (tmp_path / "clusters").unlink()
        wait_for(lambda: again(store, record).status is STATUS.RUNNING, seconds=60)
        watcher.end()
