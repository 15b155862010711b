"""Follows the chain that pays for clusters: what the StreamManager logs decides which clusters there are.

Time is the chain's, the timestamp of a block. A node that doesn't answer, or answers anything, changes nothing and is
asked again. A look takes the same few requests however many clusters there are; only after a chain was replaced
(started anew, or blocks of it taken back) each stream is looked at.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ape_silverback.apepay.contract import Stream, contract
from ape_silverback.apepay.rpc import Node, RpcRequest, results_of
from ape_silverback.cluster.types import ClusterConfiguration, StreamInfo
from ape_silverback.exceptions import ChainError
from ape_silverback.server.events import (
    Created,
    Event,
    Expires,
    Header,
    Number,
    block_request,
    events_of,
    log_request,
    read,
)
from ape_silverback.server.platform.clusters import CREATED, PAID, PROVISIONING, Clusters, Payment
from ape_silverback.server.platform.payments import Block, Payments
from ape_silverback.server.platform.store import ClusterRecord, PlatformStore, Progress

POLL = 1.0
"""Seconds between two looks."""

MOST_BLOCKS = 2000
"""Most blocks in one question for logs, which hosted nodes limit."""

BELIEVED_AFTER = 3
"""Looks after which a block that isn't there any more is believed to be gone: one of several nodes may lag behind."""

PATIENCE = 2.0
"""Seconds that a look which is under way gets at the end. A node that drips isn't waited for."""

log = logging.getLogger(__name__)


class WatchEnded(Exception):
    """The watch was ended while a look waited for the node: nothing of it is done any more."""


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
        self._missing = 0
        self._ended = threading.Event()
        self._acting = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def begin(self) -> None:
        """Adopt the clusters, and watch."""
        self.clusters.begin()
        self._thread.start()

    def end(self) -> None:
        """Stop watching, and then the clusters."""
        with self._acting:  # what a look is at is finished; nothing more is started
            self._ended.set()
        self._thread.join(PATIENCE)
        self.clusters.end()

    def look(self) -> None:
        """Read the chain once and do what follows from it. The watch does this all the time.

        Raises:
            ChainError: the node doesn't answer or is on another chain; what was done until then stays.
        """
        self._end_those_of_others()
        for record in self.store.clusters():
            if record.status is PROVISIONING:  # something failed after its payment was recorded
                with self._act():
                    self.clusters.resume(record)
        latest, progress = self._state()
        while progress.last.number < latest.number:
            progress = self._follow(progress, min(latest.number, progress.last.number + MOST_BLOCKS))
        for record in self._paid():
            if record.expires is not None and record.expires <= latest.timestamp:
                self._deprovision(record, "its payment stream ran out, or was cancelled")

    @contextmanager
    def _act(self) -> Iterator[None]:
        """Change clusters, unless the watch was ended meanwhile."""
        with self._acting:
            if self._ended.is_set():
                raise WatchEnded
            yield

    def _deprovision(self, record: ClusterRecord, reason: str) -> None:
        with self._act():
            self.clusters.deprovision(record, reason)

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                self.look()
            except WatchEnded:
                return
            except ChainError as error:
                if self._answered:
                    log.warning("the chain can't be followed: %s; trying again", error)
                self._answered = False
            except Exception:  # such as a full disk; without the watch no payment would ever be noticed
                if self._ended.is_set():  # what it read from is closed
                    return
                if self._answered:
                    log.exception("the chain can't be followed; trying again")
                self._answered = False
            else:
                if not self._answered:
                    log.warning("the chain is followed again")
                self._answered = True
            self._ended.wait(self.poll)

    def _state(self) -> tuple[Header, Progress]:
        """Return the latest block, and how far the chain that has it was followed."""
        since = self.payments.since
        progress = self.store.progress(self.payments.chain_id, self.payments.manager) or Progress(since.number, since)
        chain_id, latest, last = results_of(
            self.node, RpcRequest("eth_chainId"), block_request("latest"), block_request(progress.last.number)
        )
        if read(Number, chain_id) != self.payments.chain_id:
            raise ChainError(f"the node is on chain {read(Number, chain_id)}, expected {self.payments.chain_id}")
        header = read(Header, latest)
        if last is None or read(Header, last).hash != progress.last.hash:
            self._missing += 1
            if self._missing < BELIEVED_AFTER:
                raise ChainError(f"the node doesn't have block {progress.last.number}, which it had")
            self._verify()
            first = progress.first if progress.first <= header.number else 0
            progress = Progress(first, Block(number=first - 1, hash=""))
        self._missing = 0
        return header, progress

    def _verify(self) -> None:
        """End the clusters whose streams aren't on the chain any more, and learn until when the others are paid for."""
        manager = self.payments.manager
        records = [(record, record.stream) for record in self._paid() if record.stream]
        calls = [contract("StreamManager").call(manager, "streams", stream.stream_id) for _, stream in records]
        questions = [RpcRequest("eth_getCode", (manager, "latest")), *(call.at("latest") for call in calls)]
        code, *answers = results_of(self.node, *questions)
        for (record, _), call, answer in zip(records, calls, answers, strict=True):
            stream = None if code == "0x" else Stream.of(call.read(answer))
            if stream is None or record.product not in stream.products:
                self._deprovision(record, "its stream isn't on the chain any more")
            else:
                self._set_expiration(record, stream.expires_at)

    def _follow(self, progress: Progress, to: int) -> Progress:
        """Do what the events of some more blocks demand, and write down that this was done."""
        manager = self.payments.manager
        questions = (log_request(manager, progress.last.number + 1, to), block_request(to))
        logs, block = results_of(self.node, *questions)
        header = read(Header, block)
        for event in events_of(self.node, logs):
            self._heed(event)
        progress = Progress(progress.first, Block(number=to, hash=header.hash))
        with self._act():
            self.store.set_progress(self.payments.chain_id, manager, progress)
        return progress

    def _heed(self, event: Event) -> None:
        stream = StreamInfo(chain_id=self.payments.chain_id, manager=self.payments.manager, stream_id=event.stream_id)
        if isinstance(event, Expires):
            for record in self._paid():
                if record.stream == stream:
                    self._set_expiration(record, event.expires)
            return
        for record in self.store.clusters():
            if record.status is CREATED and (product := product_for(event, record)):
                with self._act():
                    self.clusters.provision(record, Payment(stream, product, event.expires))

    def _set_expiration(self, record: ClusterRecord, expires: int) -> None:
        if record.expires != expires:
            with self._act():
                self.store.set_expiration(record.info.id, expires)

    def _end_those_of_others(self) -> None:
        """End clusters that were paid for on another chain or with another StreamManager, which isn't followed."""
        here = (self.payments.chain_id, self.payments.manager)
        for record in self._paid():
            if record.stream and (record.stream.chain_id, record.stream.manager) != here:
                self._deprovision(record, "its stream is of another chain or StreamManager")

    def _paid(self) -> list[ClusterRecord]:
        return [record for record in self.store.clusters() if record.status in PAID]


def product_for(event: Created, record: ClusterRecord) -> bytes | None:
    """Return the product with which a new stream pays for a cluster; None when it doesn't pay for it.

    A product code is signed for the payer, with the cluster's id as the key.
    """
    for product in event.products:
        with suppress(ValueError):  # it isn't a product code
            if ClusterConfiguration.from_product_code(product).get_product_code(event.owner, record.info.id) == product:
                return product
    return None
