"""Opens, extends and cancels payment streams. All that can be known to fail is said before anything is signed.

A payment is an ``Offer`` first: what is paid, for what, for how long. It is shown, and then sent as it is; the
StreamManager is told the time that it has to grant, so that a price that rose in between reverts the transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ape_silverback.cluster.types import ClusterConfiguration
from ape_silverback.contracts.rpc import Node
from ape_silverback.contracts.stream_manager import contract, contract_type, read_calls
from ape_silverback.exceptions import StreamError
from ape_silverback.stream.quote import (
    CANCEL_STREAMS,
    StreamState,
    Token,
    amount_for,
    life_of,
    read_stream,
    read_token,
    streams_paying,
)
from ape_silverback.stream.verify import span_text

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI, ReceiptAPI
    from ape.contracts import ContractInstance

SLACK = 15 * 60
"""Seconds that may pass until an extension is mined: what is spent till then can't be extended any more."""

UNLIMITED = 2**256 - 1


@dataclass(frozen=True)
class Offer:
    """A payment that can be sent.

    Attributes:
        manager: address of the StreamManager.
        stream: number of the stream that it extends; None for a new one.
        configuration: what the cluster is paid for.
        product: product code of that, for the account that pays.
        amount: in the token's smallest unit.
        life: seconds that the stream has after it.
        least: seconds that the StreamManager has to grant, or the transaction reverts.
        allowance: what the StreamManager may take already.
    """

    manager: str
    stream: int | None
    configuration: ClusterConfiguration | None
    product: bytes
    token: Token
    amount: int
    life: int
    least: int
    allowance: int

    @property
    def needs_approval(self) -> bool:
        """Whether the StreamManager has to be allowed to take the amount first."""
        return self.allowance < self.amount


@dataclass(frozen=True)
class Sent:
    """What became of a payment or a cancellation.

    Attributes:
        transaction: its hash.
        state: the stream after it.
        refund: what was given back, in the token's smallest unit.
    """

    transaction: str
    state: StreamState
    refund: int = 0


def offer_stream(
    node: Node,
    payer: str,
    manager: str,
    token: str,
    configuration: ClusterConfiguration,
    cluster_id: UUID,
    *,
    amount: str | None = None,
    seconds: int | None = None,
) -> Offer:
    """Work out a new stream.

    Args:
        node: of the chain.
        payer: address that pays.
        manager: address of the StreamManager, verified.
        token: address of the token.
        configuration: what the cluster is to have.
        cluster_id: of the cluster, which its product code is signed with.
        amount: what is paid, as users write it; or
        seconds: for how long is paid.

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
    if already := streams_paying(node, manager, payer, lambda code: _is_for(code, payer, cluster_id)):
        raise StreamError(
            f"stream {already[0]} of this account pays for this cluster already; the platform takes a while to see it"
        )
    product = configuration.get_product_code(payer, cluster_id)
    life = life_of(node, manager, payer, found, [product])
    if seconds is not None:
        paid, pays = amount_for(max(seconds, shortest), life, found.one)
    else:
        paid = found.amount(str(amount))
        pays = life(paid)
    if pays < shortest:
        raise StreamError(
            f"{found.text(paid)} pays for {span_text(pays)}; a stream has to last {span_text(shortest)} at least"
        )
    allowance = _affordable(node, payer, manager, found, paid)
    return Offer(manager, None, configuration, product, found, paid, pays, pays, allowance)


def offer_time(
    node: Node, payer: str, state: StreamState, *, amount: str | None = None, seconds: int | None = None
) -> Offer:
    """Work out an extension of a stream, which may be anybody's.

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
        raise StreamError(
            f"stream {state.number} has run out: it can't be extended any more, `pay create` opens another"
        )
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
            raise StreamError("what is left on the stream pays for that time at the price of now; name an amount")
    else:
        paid = state.token.amount(str(amount))
        pays = life(state.rest + paid)
    if pays <= state.time_left - SLACK:
        raise StreamError(
            f"with {state.token.text(paid)} more the stream would end earlier: the price has risen, and what is left "
            f"would be counted at the new one ({span_text(pays)} in place of {span_text(state.time_left)})"
        )
    allowance = _affordable(node, payer, state.manager, state.token, paid)
    least = pays - min(SLACK, pays // 10)
    product = state.stream.products[0] if state.stream.products else b""
    return Offer(state.manager, state.number, None, product, state.token, paid, pays, least, allowance)


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


def send_offer(
    provider: ProviderAPI, node: Node, account: AccountAPI, offer: Offer, *, approval: int | None = None
) -> Sent:
    """Approve what is needed and pay.

    Args:
        provider: connected to the chain.
        node: of the same chain.
        account: that pays.
        offer: what was worked out for this account.
        approval: what the StreamManager is allowed to take; None for exactly the amount.

    Raises:
        StreamError: a transaction was refused; says which, and what was done before.
    """
    done = ""
    if offer.needs_approval:
        token = _instance(provider, "TestToken", offer.token.address)
        allowed = offer.amount if approval is None else approval
        _transact(
            provider, f"the approval of {offer.token.symbol}", token.approve, offer.manager, allowed, sender=account
        )
        done = f"; the approval of {offer.token.text(offer.amount)} stays"
    manager = _instance(provider, "StreamManager", offer.manager)
    if offer.stream is None:
        create = (offer.token.address, offer.amount, [offer.product], offer.least)
        receipt = _transact(provider, "the payment", manager.create_stream, *create, sender=account, done=done)
        [log] = receipt.decode_logs(manager.StreamCreated.abi)
        number = int(log.stream_id)
    else:
        number = offer.stream
        fund = (number, offer.amount, offer.least)
        receipt = _transact(provider, "the payment", manager.fund_stream, *fund, sender=account, done=done)
    return Sent(receipt.txn_hash, read_stream(node, offer.manager, number))


def send_cancel(provider: ProviderAPI, node: Node, account: AccountAPI, state: StreamState) -> Sent:
    """Cancel a stream.

    Args:
        provider: connected to the chain.
        node: of the same chain.
        account: that ``check_cancel`` let pass.
        state: the stream.

    Raises:
        StreamError: the transaction was refused.
    """
    manager = _instance(provider, "StreamManager", state.manager)
    receipt = _transact(provider, "the cancellation", manager.cancel_stream, state.number, sender=account)
    [log] = receipt.decode_logs(manager.StreamCancelled.abi)
    return Sent(receipt.txn_hash, read_stream(node, state.manager, state.number), int(log.refund_amount))


def _is_for(product: bytes, payer: str, cluster_id: UUID) -> bool:
    """Say whether a product code is a cluster's, in whatever configuration."""
    try:
        return ClusterConfiguration.decode(product[:8]).get_product_code(payer, cluster_id) == product
    except ValueError:
        return False


def _affordable(node: Node, payer: str, manager: str, token: Token, amount: int) -> int:
    """Give what the StreamManager may take already.

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


def _instance(provider: ProviderAPI, name: str, address: str) -> ContractInstance:
    """Give Ape's view of a contract of the manifest, without asking anybody what it is."""
    from ethpm_types import ContractType

    found: ContractInstance = provider.chain_manager.contracts.instance_at(
        address, contract_type=ContractType.model_validate(contract_type(name)), detect_proxy=False
    )
    return found


def _transact(
    provider: ProviderAPI, what: str, send: Callable[..., Any], *arguments: Any, done: str = "", **more: Any
) -> ReceiptAPI:
    """Send a transaction and wait until it is in a block.

    Raises:
        StreamError: it was refused, or not signed.
    """
    from ape.exceptions import ApeException

    # On development chains Ape takes a transaction as done when it is sent.
    confirmations = max(1, provider.network.required_confirmations)
    try:
        receipt: ReceiptAPI = send(*arguments, required_confirmations=confirmations, **more)
    except ApeException as error:
        raise StreamError(f"{what} was refused: {error}{done}") from error
    return receipt
