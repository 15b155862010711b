"""A payment stream as the chain has it now, for people: what is left of it, until when, who may cancel it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from ape_silverback.apepay.contract import ZERO_ADDRESS, Call, Stream, contract, read_calls, shown
from ape_silverback.apepay.rpc import Node, RpcRequest, results_of
from ape_silverback.exceptions import ChainError, StreamError
from ape_silverback.stream.tokens import Token, read_token

STREAMS_AT_ONCE = 100
"""Streams that are looked at in one batch, the newest first."""

MOST_STREAMS = 5_000
"""Streams that are looked at: a node may claim any number of them."""


@dataclass(frozen=True)
class StreamState:
    """A payment stream at one block.

    Attributes:
        manager: address of its StreamManager.
        number: its id there.
        time_left: seconds.
        claimable: amount that its receiver may claim already, in the token's smallest unit.
        cancelable: whether its owner may cancel it now.
        cancelable_in: seconds until its owner may, as far as time alone decides.
        controller: account that receives it, and may cancel it at any time.
        now: Unix time of the block.
    """

    manager: str
    number: int
    stream: Stream
    token: Token
    time_left: int
    claimable: int
    cancelable: bool
    cancelable_in: int
    controller: str
    now: int

    @property
    def rest(self) -> int:
        """Amount that isn't spent yet, and is refunded when it is cancelled."""
        return max(0, self.stream.funded_amount - self.claimable)

    @property
    def per_day(self) -> int:
        """Cost of a day, in the token's smallest unit."""
        return self.rest * 86_400 // self.time_left if self.time_left else 0

    @property
    def expires(self) -> datetime | None:
        """Time at which it runs out; None for one beyond the calendar."""
        return moment(self.stream.expires_at)


def moment(seconds: int) -> datetime | None:
    """Return a Unix time of a chain; None for one beyond the calendar."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


def read_stream(node: Node, manager: str, number: int) -> StreamState:
    """Read all of a stream at one block.

    Raises:
        ChainError: the node refuses.
        StreamError: the stream doesn't exist.
    """
    block, now = _latest(node)
    first, *rest = calls = _calls_about(manager, number)
    values, *others = node.batch([call.at(block) for call in calls])
    stream = Stream.of(first.read(values))
    if stream.owner == ZERO_ADDRESS:
        raise StreamError(f"{manager} has no stream {number}")
    left, claimable, cancelable, controller, life = (call.read(one) for call, one in zip(rest, others, strict=True))
    return StreamState(
        manager=manager,
        number=number,
        stream=stream,
        token=read_token(node, stream.token, block),
        time_left=left,
        claimable=claimable,
        cancelable=cancelable,
        cancelable_in=max(0, stream.last_update + life - now),
        controller=controller,
        now=now,
    )


def live_streams(node: Node, manager: str, pays: Callable[[bytes], bool], since: datetime | None = None) -> list[int]:
    """Return the ids of the streams that have time left, of those with a certain product; the newest first.

    Looks at the streams themselves, since many nodes search only few blocks for their events.

    Args:
        node: of the chain.
        manager: address of the StreamManager.
        pays: returns whether it is the product.
        since: time before which none with that product can have been opened; None for any time.

    Raises:
        ChainError: the node refuses, or there are more of them than are looked at.
    """
    block, now = _latest(node)
    known = contract("StreamManager")
    [count] = read_calls(node, [known.call(manager, "num_streams")], block)
    found: list[int] = []
    for end in range(count, 0, -STREAMS_AT_ONCE):
        if count - end >= MOST_STREAMS:
            raise ChainError(
                f"the node has more than {MOST_STREAMS:,} streams of {manager} since the cluster was created, too many "
                "to look for one that pays for it; name another node with --network"
            )
        numbers = range(end - 1, max(0, end - STREAMS_AT_ONCE) - 1, -1)
        values = read_calls(node, [known.call(manager, "streams", number) for number in numbers], block)
        for number, stream in zip(numbers, map(Stream.of, values), strict=True):
            if since is not None and stream.last_update < since.timestamp():
                return found  # ids ascend with time, and a stream is never updated before it is opened
            if stream.expires_at > now and any(map(pays, stream.products)):
                found.append(number)
    return found


def _calls_about(manager: str, number: int) -> list[Call]:
    known = contract("StreamManager")
    about_it = ("streams", "time_left", "amount_claimable", "stream_is_cancelable")
    return [
        *(known.call(manager, name, number) for name in about_it),
        *(known.call(manager, name) for name in ("controller", "MIN_STREAM_LIFE")),
    ]


def _latest(node: Node) -> tuple[str, int]:
    """Return number, as hexadecimal text, and Unix time of the newest block."""
    [head] = results_of(node, RpcRequest("eth_getBlockByNumber", ("latest", False)))
    try:
        return str(head["number"]), int(str(head["timestamp"]), 16)
    except (TypeError, ValueError, LookupError):
        raise ChainError(f"the node's newest block isn't one: {shown(head)}") from None
