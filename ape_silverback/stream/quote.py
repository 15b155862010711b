"""What a payment stream costs and what one holds, as a chain tells it. Reads only; nothing is signed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ape_silverback.apepay.contract import (
    MOST_UINT256,
    ZERO_ADDRESS,
    Stream,
    contract,
    event_topic,
    read_calls,
)
from ape_silverback.apepay.rpc import Node, Question, answers_of
from ape_silverback.exceptions import ChainError, StreamError

CANCEL_STREAMS = 8
"""Bit of the ability to cancel in what ``capabilities`` gives: the fourth of the flag in the contract's source."""

MOST_SECONDS = 100 * 365 * 24 * 60 * 60
"""Life of a stream above which no price was asked: validators that price nothing give the largest number."""

LONGEST_AMOUNT = 80
"""Digits of an amount above which it is more than any token has."""

READABLE_DIGITS = 4
"""Digits behind the point of an amount that changes all the time."""

ATTEMPTS = 8
"""How often an amount is corrected until it pays for a time, with prices that aren't proportional."""


@dataclass(frozen=True)
class Token:
    """An ERC-20 token.

    Attributes:
        decimals: how many of the digits of an amount are behind the point.
    """

    address: str
    symbol: str
    decimals: int

    @property
    def one(self) -> int:
        """One token in its smallest unit."""
        return int(10**self.decimals)

    def text(self, amount: int) -> str:
        """Give an amount of the smallest unit for people, as ``12.5 USDC``."""
        whole, part = divmod(amount, self.one)
        digits = f"{part:0{self.decimals}d}".rstrip("0") if part else ""
        return f"{whole}{'.' if digits else ''}{digits} {self.symbol}"

    def about(self, amount: int) -> str:
        """Give an amount that changes all the time, with no more digits than anybody reads."""
        return self.text(amount - amount % max(1, self.one // 10**READABLE_DIGITS))

    def amount(self, text: str) -> int:
        """Read an amount: ``12.5`` or ``12.5 USDC`` are tokens.

        Raises:
            StreamError: it is none, not above zero, of another token, or has more digits than the token.
        """
        number, _, symbol = text.strip().partition(" ")
        if symbol and symbol.strip().lower() != self.symbol.lower():
            raise StreamError(f"amount '{text}': the stream is paid for in {self.symbol}")
        try:
            given = Decimal(number.replace("_", ""))
            amount = Fraction(given) * self.one if given.adjusted() < LONGEST_AMOUNT else Fraction(MOST_UINT256)
        except (ArithmeticError, ValueError):
            raise StreamError(f"amount '{text}': expected a number of tokens, such as '12.5 {self.symbol}'") from None
        if amount.denominator != 1:
            raise StreamError(f"amount '{text}': {self.symbol} has {self.decimals} digits behind the point at most")
        if amount <= 0:
            raise StreamError(f"amount '{text}': it has to be above zero")
        return min(int(amount), MOST_UINT256)


@dataclass(frozen=True)
class StreamState:
    """A payment stream at one block.

    Attributes:
        manager: address of its StreamManager.
        number: its id there.
        time_left: seconds.
        claimable: what its receiver may claim already, in the token's smallest unit.
        cancelable: whether its owner may cancel it now.
        cancelable_in: seconds until its owner may, as far as time alone decides.
        controller: who receives it, and may cancel it at any time.
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
        """What isn't spent yet, and is refunded when it is cancelled."""
        return max(0, self.stream.funded_amount - self.claimable)

    @property
    def per_day(self) -> int:
        """What it costs a day, in the token's smallest unit."""
        return self.rest * 86_400 // self.time_left if self.time_left else 0

    @property
    def expires(self) -> datetime | None:
        """When it runs out; None for a time that no calendar has."""
        return moment(self.stream.expires_at)


def moment(seconds: int) -> datetime | None:
    """Give a Unix time of a chain; None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


def read_token(node: Node, address: str, block: str = "latest") -> Token:
    """Read how a token is called and counted.

    Raises:
        ChainError: the node refuses, or it is no token.
    """
    token = contract("TestToken")
    symbol, decimals = read_calls(node, [token.call(address, "symbol"), token.call(address, "decimals")], block)
    return Token(address, str(symbol), int(decimals))


def read_stream(node: Node, manager: str, number: int) -> StreamState:
    """Read all of a stream at one block.

    Raises:
        ChainError: the node refuses.
        StreamError: there is no such stream.
    """
    [head] = answers_of(node, Question("eth_getBlockByNumber", ("latest", False)))
    block = str(head["number"])
    known = contract("StreamManager")
    calls = [
        known.call(manager, "streams", number),
        *(known.call(manager, name, number) for name in ("time_left", "amount_claimable", "stream_is_cancelable")),
        known.call(manager, "controller"),
        known.call(manager, "MIN_STREAM_LIFE"),
    ]
    values, *others = node.ask([call.at(block) for call in calls])
    stream = Stream.of(calls[0].read(values))
    if stream.owner == ZERO_ADDRESS:
        raise StreamError(f"there is no stream {number} of {manager}")
    left, claimable, cancelable, controller, life = (
        call.read(one) for call, one in zip(calls[1:], others, strict=True)
    )
    now = int(str(head["timestamp"]), 16)
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


def life_of(node: Node, manager: str, payer: str, token: Token, products: Sequence[bytes]) -> Callable[[int], int]:
    """Give what tells for how many seconds an amount pays, by the manager's validators of now.

    Args:
        node: of the chain.
        manager: address of the StreamManager.
        payer: who pays: validators see who calls, not who is named.
        token: that is paid with.
        products: what is paid for.
    """

    def life(amount: int) -> int:
        arguments = (payer, token.address, amount, list(products))
        call = contract("StreamManager").call(manager, "compute_stream_life", *arguments, sender=payer)
        try:
            [seconds] = read_calls(node, [call])
        except ChainError as error:
            raise StreamError(f"the StreamManager sells nothing for this payment: {error}") from error
        if seconds > MOST_SECONDS:
            raise StreamError("the StreamManager asks no price for this configuration: it isn't made for it")
        return int(seconds)

    return life


def amount_for(seconds: int, life: Callable[[int], int], unit: int) -> tuple[int, int]:
    """Find the amount that pays for a time.

    Args:
        seconds: at least.
        life: tells for how many seconds an amount pays.
        unit: amount to begin with.

    Returns:
        The amount, and the seconds that it pays for.

    Raises:
        StreamError: no amount does.
    """
    if seconds > MOST_SECONDS:
        raise StreamError("a stream lasts 100 years at most")
    if (pays := life(unit)) <= 0:
        raise StreamError("the StreamManager's validators grant no time for a whole token; name an amount")
    amount = -(-unit * seconds // pays)
    for _ in range(ATTEMPTS):
        if (pays := life(amount)) >= seconds:
            # A whole token may pay for few seconds, and so tell the price roughly: now it is known better.
            less = -(-amount * seconds // pays)
            return (less, fewer) if less < amount and (fewer := life(less)) >= seconds else (amount, pays)
        amount = max(amount + 1, -(-amount * seconds // max(pays, 1)))
    raise StreamError("the StreamManager's price for this time can't be found; name an amount")


def streams_paying(node: Node, manager: str, payer: str, pays: Callable[[bytes], bool]) -> list[int]:
    """Give the streams that somebody opened and that have time left, of those with a certain product.

    Args:
        node: of the chain.
        manager: address of the StreamManager.
        payer: who opened them.
        pays: tells whether it is the product.

    Raises:
        ChainError: the node refuses to look for them.
    """
    topics = [event_topic("StreamCreated"), None, f"0x{payer[2:].lower():0>64}"]
    where: dict[str, Any] = {"address": manager, "topics": topics, "fromBlock": "0x0", "toBlock": "latest"}
    [logs] = answers_of(node, Question("eth_getLogs", (where,)))
    numbers = [int(log["topics"][1], 16) for log in logs]
    known = contract("StreamManager")
    calls = [known.call(manager, name, number) for number in numbers for name in ("streams", "time_left")]
    answers = read_calls(node, calls)
    pairs = zip(numbers, answers[::2], answers[1::2], strict=True)
    return [number for number, values, left in pairs if left and any(map(pays, Stream.of(values).products))]
