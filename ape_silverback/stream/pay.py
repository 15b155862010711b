"""Opens, extends and cancels payment streams. All that can be known to fail is an error before anything is signed.

A payment is a ``Quote`` first: what is paid, for what, for how long. It is shown, and then made as it is; the
StreamManager is told the time that it has to grant, so that a price that rose in between reverts the transaction.

No payment is made twice: each is written down before it is sent, and a second run for the same payment reads
``settle`` first what became of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ape_silverback.apepay.contract import MAX_UINT256, contract
from ape_silverback.apepay.rpc import RpcRequest, results_of
from ape_silverback.exceptions import ChainError, StreamError, TransactionRefused
from ape_silverback.stream.pending import PaymentMemory, PendingPayment
from ape_silverback.stream.quote import Quote, price_risen
from ape_silverback.stream.state import StreamState, read_stream
from ape_silverback.stream.transactions import (
    POLL,
    Receipt,
    Sender,
    SignedTransaction,
    event_of,
    succeeded,
)

UNLIMITED = MAX_UINT256

LOOKS = 4
"""Looks for the receipt of a transaction that seems replaced: one of several nodes may lag behind."""


@dataclass(frozen=True)
class Payment:
    """A payment or a cancellation that was made.

    Attributes:
        transaction: its hash.
        state: the stream after it.
        refund: amount that was given back, in the token's smallest unit.
    """

    transaction: str
    state: StreamState
    refund: int = 0


def pay(sender: Sender, quote: Quote, memory: PaymentMemory, *, approval: int | None = None) -> Payment:
    """Approve what is needed and pay.

    Args:
        sender: of the account that pays.
        quote: what was worked out for this account.
        memory: where the payment is kept until its end is known; see ``settle``.
        approval: amount that the StreamManager is allowed to take; None for exactly the amount.

    Raises:
        StreamError: a transaction was refused or isn't mined yet; names it, and what was done before.
    """
    manager = sender.contract("StreamManager", quote.manager)
    function = manager.create_stream if quote.stream is None else manager.fund_stream
    what = (quote.token.address,) if quote.stream is None else (quote.stream,)
    products = (list(quote.products),) if quote.stream is None else ()

    def remember(signed: SignedTransaction) -> None:
        memory.write(
            PendingPayment(
                transaction=signed.hash,
                nonce=signed.nonce,
                raw=signed.raw,
                amount=quote.token.text(quote.amount),
                signed=datetime.now(timezone.utc),
            )
        )

    try:
        _approve(sender, quote, quote.amount if approval is None else approval)
        receipt = sender.send("payment", function, *what, quote.amount, *products, quote.min_life, signed=remember)
    except TransactionRefused as error:
        memory.forget()
        if risen := price_risen(sender.node, str(sender.account.address), quote):
            raise TransactionRefused(f"nothing was paid: {risen}{sender.done}") from error
        raise
    memory.forget()
    return _paid(sender, receipt, quote.manager, quote.stream)


def settle(sender: Sender, memory: PaymentMemory, manager: str, stream: int | None) -> Payment | None:
    """Return the payment that an earlier run signed and didn't see mined, once it is; None if it never will be.

    What isn't mined is sent again as it was signed, which can't pay twice.

    Args:
        sender: of the account that pays.
        memory: where the payment was kept.
        manager: address of the StreamManager.
        stream: id of the stream that was extended; None for a new one.

    Raises:
        StreamError: it isn't mined in time, or the node refuses it and it may be mined all the same.
        ChainError: the node doesn't answer.
    """
    if (pending := memory.read()) is None:
        return None
    what = f"payment of {pending.amount} that was signed at {pending.signed.astimezone():%Y-%m-%d %H:%M}"
    sender.tell(f"Looking for the {what}, transaction {pending.transaction} …")
    if (receipt := sender.receipt_of(pending.transaction)) is None:
        if _is_replaced(sender, pending):
            sender.tell(f"The {what} was replaced by another transaction of the account, and never paid.")
            memory.forget()
            return None
        refusal = sender.broadcast(pending.raw)
        if refusal and not _is_known(sender, pending):
            raise StreamError(
                f"the {what} isn't mined, and the node refuses it ({refusal}). To give it up, send any other "
                f"transaction with nonce {pending.nonce} from {sender.account.address}, and run this again"
            )
        receipt = sender.wait(what, pending.transaction)
    memory.forget()
    if not succeeded(receipt):
        sender.tell(f"The {what} failed: nothing was paid.")
        return None
    return _paid(sender, receipt, manager, stream)


def cancel_stream(sender: Sender, state: StreamState) -> Payment:
    """Cancel a stream.

    Args:
        sender: of an account that ``check_cancel`` let pass.
        state: the stream.

    Raises:
        StreamError: the transaction was refused, or isn't mined yet.
    """
    manager = sender.contract("StreamManager", state.manager)
    receipt = sender.send("cancellation", manager.cancel_stream, state.number)
    refund = int(event_of(receipt, state.manager, "StreamCancelled")["data"], 16)
    return Payment(receipt["transactionHash"], _state_after(sender, receipt, state.manager, state.number), refund)


def _approve(sender: Sender, quote: Quote, amount: int) -> None:
    """Approve an amount for the StreamManager, unless it is approved already."""
    if not quote.needs_approval:
        return
    token = sender.contract("TestToken", quote.token.address)
    if quote.allowance and not _may_be_changed(sender, quote, amount):
        sender.send(f"approval of 0 {quote.token.symbol}", token.approve, quote.manager, 0)
    sender.send(f"approval of {quote.token.symbol}", token.approve, quote.manager, amount)
    sender.done = f"; the approval of {quote.token.text(quote.amount)} stays"


def _may_be_changed(sender: Sender, quote: Quote, amount: int) -> bool:
    """Return whether an allowance can be changed at once: tokens such as USDT want it to be 0 in between."""
    payer = str(sender.account.address)
    call = contract("TestToken").call(quote.token.address, "approve", quote.manager, amount, sender=payer)
    [answer] = sender.node.batch([call.at("latest")])
    return not isinstance(answer, ChainError)


def _is_replaced(sender: Sender, pending: PendingPayment) -> bool:
    """Return whether another transaction of the account was mined in place of a payment."""
    request = RpcRequest("eth_getTransactionCount", (str(sender.account.address), "latest"))
    for _ in range(LOOKS):
        [count] = results_of(sender.node, request)
        if int(count, 16) <= pending.nonce:
            return False
        time.sleep(POLL)
        if sender.receipt_of(pending.transaction) is not None:
            return False
    return True


def _is_known(sender: Sender, pending: PendingPayment) -> bool:
    [found] = sender.node.batch([RpcRequest("eth_getTransactionByHash", (pending.transaction,))])
    return isinstance(found, dict)


def _paid(sender: Sender, receipt: Receipt, manager: str, stream: int | None) -> Payment:
    number = stream if stream is not None else int(event_of(receipt, manager, "StreamCreated")["topics"][1], 16)
    return Payment(receipt["transactionHash"], _state_after(sender, receipt, manager, number))


def _state_after(sender: Sender, receipt: dict[str, Any], manager: str, number: int) -> StreamState:
    """Read a stream after a transaction, at a node that may be behind the one that had the receipt."""
    mined = int(receipt["blockNumber"], 16)
    for _ in range(LOOKS):
        [latest] = results_of(sender.node, RpcRequest("eth_blockNumber"))
        if int(latest, 16) >= mined:
            break
        time.sleep(POLL)
    return read_stream(sender.node, manager, number)
