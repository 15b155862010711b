"""Opens, extends and cancels payment streams. All that can be known to fail is said before anything is signed.

A payment is an ``Quote`` first: what is paid, for what, for how long. It is shown, and then sent as it is; the
StreamManager is told the time that it has to grant, so that a price that rose in between reverts the transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ape_silverback.apepay.contract import MOST_UINT256, contract, contract_type, event_topic, read_calls
from ape_silverback.apepay.rpc import Node, Question
from ape_silverback.cluster.types import ClusterConfiguration
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
    from ape.api import AccountAPI, ProviderAPI
    from ape.contracts import ContractInstance
    from ape.contracts.base import ContractTransactionHandler

SLACK = 15 * 60
"""Seconds that may pass until an extension is mined: what is spent till then can't be extended any more."""

UNLIMITED = MOST_UINT256

HEADROOM = 1.3
"""Share of the estimated gas that a transaction may take: what has been spent of a stream is claimed with an extension,
and is more, which takes more gas, by the time that it is mined."""

POLL = 0.5
"""Seconds between two looks for a transaction."""


@dataclass(frozen=True)
class Quote:
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
        rest: what isn't spent yet of the stream that it extends.
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
    rest: int = 0

    @property
    def per_day(self) -> int:
        """What a day costs at the price of now, in the token's smallest unit."""
        return (self.rest + self.amount) * 86_400 // self.life

    @property
    def needs_approval(self) -> bool:
        """Whether the StreamManager has to be allowed to take the amount first."""
        return self.allowance < self.amount


@dataclass(frozen=True)
class Payment:
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
) -> Quote:
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
        allowance = _affordable(node, payer, manager, found, paid)
    else:
        paid = found.amount(str(amount))
        allowance = _affordable(node, payer, manager, found, paid)
        pays = life(paid)
    if pays < shortest:
        raise StreamError(
            f"{found.text(paid)} pays for {span_text(pays)}; a stream has to last {span_text(shortest)} at least"
        )
    return Quote(manager, None, configuration, product, found, paid, pays, pays, allowance)


def offer_time(
    node: Node, payer: str, state: StreamState, *, amount: str | None = None, seconds: int | None = None
) -> Quote:
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
        allowance = _affordable(node, payer, state.manager, state.token, paid)
    else:
        paid = state.token.amount(str(amount))
        allowance = _affordable(node, payer, state.manager, state.token, paid)
        pays = life(state.rest + paid)
    if pays <= state.time_left - SLACK:
        raise StreamError(
            f"with {state.token.text(paid)} more the stream would end earlier: the price has risen, and what is left "
            f"would be counted at the new one ({span_text(pays)} in place of {span_text(state.time_left)})"
        )
    least = pays - min(SLACK, pays // 10)
    product = state.stream.products[0] if state.stream.products else b""
    return Quote(state.manager, state.number, None, product, state.token, paid, pays, least, allowance, state.rest)


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
    provider: ProviderAPI,
    node: Node,
    account: AccountAPI,
    quote: Quote,
    *,
    approval: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Payment:
    """Approve what is needed and pay.

    Args:
        provider: connected to the chain.
        node: of the same chain.
        account: that pays.
        quote: what was worked out for this account.
        approval: what the StreamManager is allowed to take; None for exactly the amount.
        tell: takes what is being done.

    Raises:
        StreamError: a transaction was refused; says which, and what was done before.
    """
    sender = _Sender(provider, node, account, tell)
    if quote.needs_approval:
        token = sender.contract("TestToken", quote.token.address)
        allowed = quote.amount if approval is None else approval
        sender.send(f"approval of {quote.token.symbol}", token.approve, quote.manager, allowed)
        sender.done = f"; the approval of {quote.token.text(quote.amount)} stays"
    manager = sender.contract("StreamManager", quote.manager)
    if quote.stream is None:
        create = (quote.token.address, quote.amount, [quote.product], quote.least)
        receipt = sender.send("payment", manager.create_stream, *create)
        number = int(_event(receipt, "StreamCreated")["topics"][1], 16)
    else:
        number = quote.stream
        receipt = sender.send("payment", manager.fund_stream, number, quote.amount, quote.least)
    return Payment(receipt["transactionHash"], read_stream(node, quote.manager, number))


def send_cancel(
    provider: ProviderAPI,
    node: Node,
    account: AccountAPI,
    state: StreamState,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Payment:
    """Cancel a stream.

    Args:
        provider: connected to the chain.
        node: of the same chain.
        account: that ``check_cancel`` let pass.
        state: the stream.
        tell: takes what is being done.

    Raises:
        StreamError: the transaction was refused.
    """
    sender = _Sender(provider, node, account, tell)
    manager = sender.contract("StreamManager", state.manager)
    receipt = sender.send("cancellation", manager.cancel_stream, state.number)
    refund = int(_event(receipt, "StreamCancelled")["data"], 16)
    return Payment(receipt["transactionHash"], read_stream(node, state.manager, state.number), refund)


@dataclass
class _Sender:
    """Sends an account's transactions through Ape, and waits until each is in a block.

    Attributes:
        done: what a failure leaves behind, for its error.
    """

    provider: ProviderAPI
    node: Node
    account: AccountAPI
    tell: Callable[[str], None]
    done: str = ""

    def contract(self, name: str, address: str) -> ContractInstance:
        """Give Ape's view of a contract of the manifest, without asking anybody what it is."""
        from ethpm_types import ContractType

        found: ContractInstance = self.provider.chain_manager.contracts.instance_at(
            address, contract_type=ContractType.model_validate(contract_type(name)), detect_proxy=False
        )
        return found

    def send(self, what: str, function: ContractTransactionHandler, *arguments: Any) -> dict[str, Any]:
        """Send a transaction; gives its receipt as the node tells it.

        Raises:
            StreamError: it was refused, not signed, reverted, or isn't in a block for long.
        """
        from ape.exceptions import ApeException
        from ape.logging import LogLevel, logger

        self.tell(f"Sending the {what} …")
        try:
            with logger.at_level(LogLevel.WARNING):  # it would say "confirmed" of what a slow node only took
                gas = int(function.estimate_gas_cost(*arguments, sender=self.account) * HEADROOM)
                sent = function(*arguments, sender=self.account, gas_limit=gas).txn_hash
        except ApeException as error:
            raise StreamError(f"the {what} was refused: {error}{self.done}") from error
        deadline = time.monotonic() + self.provider.network.transaction_acceptance_timeout
        while not isinstance(receipt := self.node.ask([Question("eth_getTransactionReceipt", (sent,))])[0], dict):
            if time.monotonic() > deadline:
                raise StreamError(f"the {what} was sent, but is in no block yet ({sent}){self.done}")
            time.sleep(POLL)
        if int(receipt["status"], 16) != 1:
            raise StreamError(f"the {what} failed in block {int(receipt['blockNumber'], 16)} ({sent}){self.done}")
        return receipt


def _event(receipt: dict[str, Any], name: str) -> dict[str, Any]:
    """Give an event of a receipt.

    Raises:
        StreamError: it isn't there.
    """
    topic = event_topic(name)
    for log in receipt["logs"]:
        if log["topics"][0] == topic:
            return dict(log)
    raise StreamError(f"transaction {receipt['transactionHash']} gave no {name}")


def _is_for(product: bytes, payer: str, cluster_id: UUID) -> bool:
    """Say whether a product code is a cluster's, in whatever configuration."""
    try:
        return ClusterConfiguration.from_product_code(product).get_product_code(payer, cluster_id) == product
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
