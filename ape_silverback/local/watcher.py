"""Follows the chain that pays for clusters: what the StreamManager logs decides which clusters there are.

Time is the chain's, the timestamp of a block. A node that doesn't answer changes nothing and is asked again. A look
takes the same few questions however many clusters there are; only after a chain was replaced (started anew, or blocks
of it taken back) each stream is looked at.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ape_silverback.cluster.types import PRODUCT_PART_SIZE, ClusterConfiguration, StreamInfo
from ape_silverback.contracts.rpc import Node, Question
from ape_silverback.contracts.stream_manager import Stream, contract, event_topic
from ape_silverback.exceptions import ChainError
from ape_silverback.local.clusters import CREATED, PAID, Clusters, Payment
from ape_silverback.local.payments import Block, Payments
from ape_silverback.local.platform_store import ClusterRecord, PlatformStore, Progress

POLL = 1.0
"""Seconds between two looks."""

MOST_BLOCKS = 2000
"""Most blocks in one question for logs, which hosted nodes limit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Created:
    """A stream was created.

    Attributes:
        expires: Unix time at which it runs out.
    """

    stream_id: int
    owner: str
    products: tuple[bytes, ...]
    expires: int


@dataclass(frozen=True)
class Expires:
    """A stream runs out at another time than before: it was funded, or cancelled and so runs out at once."""

    stream_id: int
    expires: int


Event = Created | Expires


class Watcher:
    """Makes clusters follow the chain.

    Args:
        node: of the chain.
        payments: which StreamManager is followed.
        poll: seconds between two looks.
    """

    def __init__(
        self, node: Node, payments: Payments, store: PlatformStore, clusters: Clusters, poll: float = POLL
    ) -> None:
        self.node = node
        self.payments = payments
        self.store = store
        self.clusters = clusters
        self.poll = poll
        self._answered = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def begin(self) -> None:
        """Take up the clusters, and watch."""
        self.clusters.begin()
        self._thread.start()

    def end(self) -> None:
        """Stop watching, and then the clusters."""
        self._ended.set()
        self._thread.join()
        self.clusters.end()

    def look(self) -> None:
        """Look at the chain once and do what follows from it. The watch does this all the time.

        Raises:
            ChainError: the node doesn't answer or is on another chain; what was done until then stays.
        """
        self._end_those_of_others()
        latest, progress = self._state()
        while progress.last.number < latest.number:
            progress = self._follow(progress, min(latest.number, progress.last.number + MOST_BLOCKS))
        for record in self._paid():
            if record.expires is not None and record.expires <= latest.time:
                self.clusters.deprovision(record, "what was paid for ran out, or was cancelled")

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                self.look()
            except ChainError as error:
                if self._answered:
                    log.warning("the chain can't be followed: %s; trying again", error)
                self._answered = False
            else:
                if not self._answered:
                    log.warning("the chain is followed again")
                self._answered = True
            self._ended.wait(self.poll)

    def _state(self) -> tuple[_Header, Progress]:
        """Give the latest block, and how far the chain was followed that has it."""
        key = (self.payments.chain_id, self.payments.manager)
        since = self.payments.since
        progress = self.store.progress(*key) or Progress(since.number, since)
        chain_id, latest, last = _checked(
            self.node.ask(
                [
                    Question("eth_chainId"),
                    Question("eth_getBlockByNumber", ("latest", False)),
                    Question("eth_getBlockByNumber", (hex(progress.last.number), False)),
                ]
            )
        )
        if int(chain_id, 16) != self.payments.chain_id:
            raise ChainError(f"the node is on chain {int(chain_id, 16)}, expected {self.payments.chain_id}")
        header = _Header.of(latest)
        if last is None or last["hash"] != progress.last.hash:
            self._verify()
            first = progress.first if progress.first <= header.number else 0
            progress = Progress(first, Block(number=first - 1, hash=""))
        return header, progress

    def _verify(self) -> None:
        """End the clusters whose streams aren't on the chain any more, and learn until when the others are paid for."""
        manager = self.payments.manager
        records = [(record, record.stream) for record in self._paid() if record.stream]
        calls = [contract("StreamManager").call(manager, "streams", stream.stream_id) for _, stream in records]
        questions = [Question("eth_getCode", (manager, "latest")), *(call.at("latest") for call in calls)]
        code, *answers = _checked(self.node.ask(questions))
        for (record, _), call, answer in zip(records, calls, answers, strict=True):
            stream = None if code == "0x" else Stream.of(call.read(answer))
            if stream is None or not _pays(stream.products, record):
                self.clusters.deprovision(record, "its stream isn't on the chain any more")
            else:
                self.store.set_expiration(record.info.id, stream.expires_at)

    def _follow(self, progress: Progress, to: int) -> Progress:
        """Do what the events of some more blocks say, and write down that this was done."""
        wanted = {
            "address": self.payments.manager,
            "fromBlock": hex(progress.last.number + 1),
            "toBlock": hex(to),
            "topics": [[event_topic(name) for name in ("StreamCreated", "StreamFunded", "StreamCancelled")]],
        }
        questions = [Question("eth_getLogs", (wanted,)), Question("eth_getBlockByNumber", (hex(to), False))]
        logs, block = _checked(self.node.ask(questions))
        if block is None:
            raise ChainError(f"the node has lost block {to}")
        for event in self._events(logs):
            self._heed(event)
        progress = Progress(progress.first, Block(number=to, hash=block["hash"]))
        self.store.set_progress(self.payments.chain_id, self.payments.manager, progress)
        return progress

    def _events(self, logs: list[dict[str, Any]]) -> list[Event]:
        numbers = sorted({one["blockNumber"] for one in logs})
        blocks = _checked(self.node.ask([Question("eth_getBlockByNumber", (number, False)) for number in numbers]))
        if None in blocks:
            raise ChainError("the node has lost a block")
        times = {number: int(block["timestamp"], 16) for number, block in zip(numbers, blocks, strict=True)}
        logs = sorted(logs, key=lambda one: (int(one["blockNumber"], 16), int(one["logIndex"], 16)))
        return [_event(one, times[one["blockNumber"]]) for one in logs]

    def _heed(self, event: Event) -> None:
        stream = StreamInfo(chain_id=self.payments.chain_id, manager=self.payments.manager, stream_id=event.stream_id)
        if isinstance(event, Expires):
            for record in self._paid():
                if record.stream == stream:
                    self.store.set_expiration(record.info.id, event.expires)
            return
        for record in self.store.clusters():
            if record.status is CREATED and (configuration := _paid_for(event, record)):
                self.clusters.provision(record, Payment(stream, configuration, event.expires))

    def _end_those_of_others(self) -> None:
        """End clusters that were paid for on another chain or with another StreamManager: nobody follows these."""
        here = (self.payments.chain_id, self.payments.manager)
        for record in self._paid():
            if record.stream and (record.stream.chain_id, record.stream.manager) != here:
                self.clusters.deprovision(record, "its stream is of another chain or StreamManager")

    def _paid(self) -> list[ClusterRecord]:
        return [record for record in self.store.clusters() if record.status in PAID]


@dataclass(frozen=True)
class _Header:
    """A block, with its Unix time."""

    number: int
    time: int

    @classmethod
    def of(cls, block: dict[str, Any]) -> _Header:
        return cls(int(block["number"], 16), int(block["timestamp"], 16))


def configuration_of(product: bytes) -> ClusterConfiguration | None:
    """Read the configuration of a product code; None for what is no code."""
    try:
        return ClusterConfiguration.decode(product[:PRODUCT_PART_SIZE].rstrip(b"\0"))
    except ValueError:
        return None


def _paid_for(event: Created, record: ClusterRecord) -> ClusterConfiguration | None:
    """Give the configuration that a new stream pays for a cluster; None when it doesn't pay for it.

    A product code was signed for who pays, with the cluster's id as the key.
    """
    for product in event.products:
        found = configuration_of(product)
        if found and found.get_product_code(event.owner, record.info.id) == product:
            return found
    return None


def _pays(products: Sequence[bytes], record: ClusterRecord) -> bool:
    """Say whether a stream still is the one that paid for a cluster, of whoever owns it now."""
    return record.info.configuration in map(configuration_of, products)


def _event(entry: dict[str, Any], time: int) -> Event:
    """Read a log of the StreamManager, from a block with a Unix time."""
    from eth_abi.abi import decode

    topic, *indexed = entry["topics"]
    stream_id, data = int(indexed[0], 16), bytes.fromhex(entry["data"].removeprefix("0x"))
    if topic == event_topic("StreamCreated"):
        _, life, products = decode(("uint256", "uint256", "bytes32[]"), data)
        return Created(stream_id, f"0x{indexed[1][-40:]}", tuple(map(bytes, products)), time + life)
    if topic == event_topic("StreamFunded"):
        _, life = decode(("uint256", "uint256"), data)
        return Expires(stream_id, time + life)
    return Expires(stream_id, time)


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, ChainError):
            raise answer
    return answers
