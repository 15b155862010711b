"""What a payment costs and whether it can be made, as read from the chain before anything is signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ape_silverback.apepay.contract import MAX_UINT256, contract, read_calls
from ape_silverback.apepay.rpc import Node
from ape_silverback.cluster.types import ClusterConfiguration
from ape_silverback.durations import span_text
from ape_silverback.exceptions import ChainError, StreamError
from ape_silverback.stream.state import StreamState, live_streams
from ape_silverback.stream.tokens import Token, read_token

CANCEL_STREAMS = 8
"""Bit of the ability to cancel in what ``capabilities`` returns: the fourth of the flag in the contract's source."""

MAX_SECONDS = 100 * 365 * 24 * 60 * 60
"""Longest life of a stream. Validators without a price for a configuration grant the largest number."""

ATTEMPTS = 8
"""How often an amount is corrected until it pays for a time, with prices that aren't proportional."""

SLACK = 15 * 60
"""Seconds that may pass until an extension is mined: what is spent till then can't be extended any more."""


@dataclass(frozen=True)
class Quote:
    """A payment that can be made.

    Attributes:
        manager: address of the StreamManager.
        stream: id of the stream that it extends; None for a new one.
        configuration: what the cluster is paid for.
        products: product codes that are paid for; of a new stream the one that is signed for the payer.
        amount: in the token's smallest unit.
        life: seconds that the stream lasts after it.
        min_life: seconds that the StreamManager has to grant, or the transaction reverts.
        allowance: amount that the StreamManager may take already.
        rest: amount that isn't spent yet of the stream that it extends.
    """

    manager: str
    stream: int | None
    configuration: ClusterConfiguration | None
    products: tuple[bytes, ...]
    token: Token
    amount: int
    life: int
    min_life: int
    allowance: int
    rest: int = 0

    @property
    def per_day(self) -> int:
        """Cost of a day at the present price, in the token's smallest unit."""
        return (self.rest + self.amount) * 86_400 // self.life

    @property
    def needs_approval(self) -> bool:
        """Whether the StreamManager has to be allowed to take the amount first."""
        return self.allowance < self.amount


def quote_stream(
    node: Node,
    payer: str,
    manager: str,
    token: str,
    configuration: ClusterConfiguration,
    cluster_id: UUID,
    *,
    amount: str | None = None,
    seconds: int | None = None,
    since: datetime | None = None,
) -> Quote:
    """Return the quote for a new stream.

    Args:
        node: of the chain.
        payer: address that pays.
        manager: address of the StreamManager, verified.
        token: address of the token.
        configuration: what the cluster is to have.
        cluster_id: of the cluster, which its product code is signed with.
        amount: what is paid, as users write it; or
        seconds: the time that is paid for.
        since: time before which the cluster wasn't paid for; None for any time.

    Raises:
        ChainError: the node refuses.
        StreamError: it can't be paid so: the token, the amount, the balance, the time, or it is paid for already.
    """
    known = contract("StreamManager")
    accepted, shortest = read_calls(
        node, [known.call(manager, "token_is_accepted", token), known.call(manager, "MIN_STREAM_LIFE")]
    )
    found = read_token(node, token)
    if not accepted:
        raise StreamError(f"the StreamManager doesn't accept {found.symbol} ({token})")
    if already := live_streams(node, manager, lambda code: _is_for(code, payer, cluster_id), since):
        raise StreamError(
            f"stream {already[0]} of this account pays for this cluster already; the platform takes a while to see it"
        )
    product = configuration.get_product_code(payer, cluster_id)
    life = life_of(node, manager, payer, found, [product])
    if seconds is not None:
        paid, pays = amount_for(max(seconds, shortest), life, found.one)
        allowance = _affordable(node, payer, manager, found, paid)
    else:
        paid = found.amount(str(amount))
        allowance = _affordable(node, payer, manager, found, paid)
        pays = _checked_life(life, paid, found)
    if pays < shortest:
        raise StreamError(
            f"{found.text(paid)} pays for {span_text(pays)}; a stream has to last {span_text(shortest)} at least"
        )
    return Quote(manager, None, configuration, (product,), found, paid, pays, pays, allowance)


def quote_extension(
    node: Node, payer: str, state: StreamState, *, amount: str | None = None, seconds: int | None = None
) -> Quote:
    """Return the quote for an extension of a stream, which may belong to anyone.

    Args:
        node: of the chain.
        payer: address that pays.
        state: the stream.
        amount: what is paid, as users write it; or
        seconds: the time to add.

    Raises:
        ChainError: the node refuses.
        StreamError: it can't be paid so: the stream has run out, the token, the amount, the balance.
    """
    if not state.time_left:
        raise StreamError(f"stream {state.number} has run out: it can't be extended; `pay create` opens another")
    [accepted] = read_calls(
        node, [contract("StreamManager").call(state.manager, "token_is_accepted", state.token.address)]
    )
    if not accepted:
        raise StreamError(f"the StreamManager no longer accepts {state.token.symbol}, which the stream is paid in")
    life = life_of(node, state.manager, payer, state.token, state.stream.products)
    if seconds is not None:
        total, pays = amount_for(state.time_left + seconds, life, state.token.one)
        paid = total - state.rest
        if paid <= 0:
            raise StreamError("what is left on the stream pays for that time at the present price; pass --amount")
        allowance = _affordable(node, payer, state.manager, state.token, paid)
    else:
        paid = state.token.amount(str(amount))
        allowance = _affordable(node, payer, state.manager, state.token, paid)
        pays = _checked_life(life, state.rest + paid, state.token)
    if pays <= state.time_left - SLACK:
        raise StreamError(
            f"with {state.token.text(paid)} more the stream would end earlier: the price has risen, and what is left "
            f"would be counted at the new one ({span_text(pays)} in place of {span_text(state.time_left)})"
        )
    min_life = pays - min(SLACK, pays // 10)
    products = state.stream.products
    return Quote(state.manager, state.number, None, products, state.token, paid, pays, min_life, allowance, state.rest)


def check_cancel(node: Node, account: str, state: StreamState) -> None:
    """Check that an account may cancel a stream now.

    Raises:
        ChainError: the node refuses.
        StreamError: it may not, or there is nothing to cancel.
    """
    if not state.time_left:
        raise StreamError(f"stream {state.number} has run out or was cancelled: there is nothing to cancel")
    if account.lower() == state.stream.owner.lower():
        if not state.cancelable:
            raise StreamError(
                f"stream {state.number} can't be cancelled yet: its owner may in {span_text(state.cancelable_in)}"
            )
        return
    [abilities] = read_calls(node, [contract("StreamManager").call(state.manager, "capabilities", account)])
    if account.lower() != state.controller.lower() and not abilities & CANCEL_STREAMS:
        raise StreamError(
            f"stream {state.number} belongs to {state.stream.owner}: {account} can't cancel it, only its owner and the "
            "StreamManager's controller can"
        )


def price_risen(node: Node, payer: str, quote: Quote) -> str | None:
    """Return how the price rose since a quote was made; None if it didn't, or isn't known."""
    life = life_of(node, quote.manager, payer, quote.token, quote.products)
    try:
        pays = life(quote.rest + quote.amount)
    except (ChainError, StreamError):
        return None
    if pays >= quote.min_life:
        return None
    return (
        f"the price has risen: {quote.token.text(quote.amount)} pays for {span_text(pays)} now, "
        f"not for {span_text(quote.life)}"
    )


def life_of(node: Node, manager: str, payer: str, token: Token, products: Sequence[bytes]) -> Callable[[int], int]:
    """Return a function that asks the manager's validators for how many seconds an amount pays.

    Args:
        node: of the chain.
        manager: address of the StreamManager.
        payer: account that pays: validators see the caller, not who is named.
        token: token that is paid with.
        products: what is paid for.
    """

    def life(amount: int) -> int:
        arguments = (payer, token.address, amount, list(products))
        call = contract("StreamManager").call(manager, "compute_stream_life", *arguments, sender=payer)
        try:
            [seconds] = read_calls(node, [call])
        except ChainError as error:
            raise StreamError(f"the StreamManager sells nothing for this payment: {error}") from error
        return int(seconds)

    return life


def amount_for(seconds: int, life: Callable[[int], int], unit: int) -> tuple[int, int]:
    """Find the amount that pays for a time.

    Args:
        seconds: at least.
        life: returns for how many seconds an amount pays.
        unit: amount to begin with.

    Returns:
        The amount, and the seconds that it pays for.

    Raises:
        StreamError: no amount does.
    """
    if seconds > MAX_SECONDS:
        raise StreamError("a stream lasts at most 100 years")
    begin, pays = _priced(life, unit)
    amount = -(-begin * seconds // pays)
    for _ in range(ATTEMPTS):
        if (pays := life(amount)) >= seconds:
            # The first amount may pay for few seconds, and so tell the price roughly: now it is known better.
            less = -(-amount * seconds // pays)
            return (less, fewer) if less < amount and (fewer := life(less)) >= seconds else (amount, pays)
        amount = max(amount + 1, -(-amount * seconds // max(pays, 1)))
    raise StreamError("the StreamManager's price for this time can't be found; pass --amount")


def _priced(life: Callable[[int], int], amount: int) -> tuple[int, int]:
    """Return an amount that pays for some time but not for ever, and the seconds.

    A token may be dear, so that even a small part of it pays for years, or so cheap that a whole one pays for nothing.
    """
    while (pays := life(amount)) > MAX_SECONDS:
        if amount == 1:
            raise StreamError("the StreamManager asks no price for this configuration: it isn't made for it")
        amount = max(1, amount // 1000)
    while pays <= 0:
        amount *= 10
        if amount > MAX_UINT256:
            raise StreamError("the StreamManager's validators grant no time for any amount")
        pays = life(amount)
    return amount, pays


def _checked_life(life: Callable[[int], int], amount: int, token: Token) -> int:
    """Return the seconds that an amount pays for.

    Raises:
        StreamError: it pays for more than a stream lasts, or the configuration has no price.
    """
    if (pays := life(amount)) > MAX_SECONDS:
        _priced(life, 1)
        raise StreamError(f"{token.text(amount)} pays for more than 100 years; pass a smaller --amount")
    return pays


def _is_for(product: bytes, payer: str, cluster_id: UUID) -> bool:
    """Return whether a product code is a cluster's, in any configuration."""
    try:
        return ClusterConfiguration.from_product_code(product).get_product_code(payer, cluster_id) == product
    except ValueError:
        return False


def _affordable(node: Node, payer: str, manager: str, token: Token, amount: int) -> int:
    """Return the amount that the StreamManager may take already.

    Raises:
        StreamError: the payer doesn't have the amount.
    """
    known = contract("TestToken")
    balance, allowance = read_calls(
        node,
        [known.call(token.address, "balanceOf", payer), known.call(token.address, "allowance", payer, manager)],
    )
    if balance < amount:
        raise StreamError(f"{payer} has {token.text(balance)}; the payment takes {token.text(amount)}")
    return int(allowance)
