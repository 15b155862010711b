"""Transactions of an account of Ape: signed here, so that the hash is known before they are sent, and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ape_silverback.apepay.contract import contract_type, event_topic
from ape_silverback.apepay.rpc import Node, Refusal, RpcRequest, results_of
from ape_silverback.exceptions import ChainError, StreamError, TransactionRefused

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI, TransactionAPI
    from ape.contracts import ContractInstance
    from ape.contracts.base import ContractTransactionHandler

HEADROOM = 1.3
"""Share of the estimated gas that a transaction may take: what has been spent of a stream is claimed with an extension,
and is more, which takes more gas, by the time that it is mined."""

POLL = 0.5
"""Seconds between two looks for a transaction."""

ALREADY_KNOWN = ("already known", "known transaction", "already imported", "already exists")
"""What nodes answer to a transaction that they have: it was sent."""

Receipt = dict[str, Any]
"""A receipt as the node answers it."""


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction that can be sent.

    Attributes:
        hash: of the transaction, as hexadecimal text.
        raw: the transaction, as hexadecimal text.
    """

    hash: str
    raw: str
    nonce: int


@dataclass
class Sender:
    """Sends an account's transactions, and waits until each is mined.

    Attributes:
        provider: connected to the chain.
        node: of the same chain.
        account: the account.
        tell: takes what is being done.
        patience: seconds to wait until a transaction is mined; None for Ape's configuration of the network.
        done: what a failure leaves behind, for its error.
    """

    provider: ProviderAPI
    node: Node
    account: AccountAPI
    tell: Callable[[str], None] = lambda _: None
    patience: float | None = None
    done: str = ""

    def contract(self, name: str, address: str) -> ContractInstance:
        """Return Ape's view of a contract of the manifest, without a look-up of what it is."""
        from ethpm_types import ContractType

        found: ContractInstance = self.provider.chain_manager.contracts.instance_at(
            address, contract_type=ContractType.model_validate(contract_type(name)), detect_proxy=False
        )
        return found

    def send(
        self,
        what: str,
        function: ContractTransactionHandler,
        *arguments: Any,
        signed: Callable[[SignedTransaction], None] = lambda _: None,
    ) -> Receipt:
        """Send a transaction and return its receipt.

        Args:
            what: how to call it in what users read.
            function: function of a contract.
            arguments: of the function.
            signed: called before it is sent. Not for an account that sends in its own way, such as a contract wallet.

        Raises:
            StreamError: it was refused, not signed, reverted, or isn't mined in time.
        """
        if not _signs_locally(self.account):
            return self._mined(what, self._call(what, function, arguments))
        sent = self._sign(what, self._prepare(what, function, arguments))
        self.tell(f"Sending the {what}, transaction {sent.hash} …")
        signed(sent)
        if refusal := self.broadcast(sent.raw):
            raise TransactionRefused(f"the {what} was refused: {refusal}{self.done}")
        return self._mined(what, sent.hash)

    def broadcast(self, raw: str) -> Refusal | None:
        """Send a signed transaction, which does no harm twice; return why the node refuses it.

        An answer that is lost isn't a refusal: the transaction may have been sent.
        """
        try:
            [answer] = self.node.batch([RpcRequest("eth_sendRawTransaction", (raw,))])
        except ChainError:
            return None
        if isinstance(answer, Refusal) and not any(text in str(answer).lower() for text in ALREADY_KNOWN):
            return answer
        return None

    def wait(self, what: str, transaction: str) -> Receipt:
        """Return the receipt of a transaction once it is mined, reverted or not.

        With as many confirmations as Ape's configuration of the network asks for.

        Raises:
            StreamError: it isn't mined in time.
        """
        patience = self.provider.network.transaction_acceptance_timeout if self.patience is None else self.patience
        deadline = time.monotonic() + patience
        while (receipt := self.receipt_of(transaction)) is None or not self._is_confirmed(receipt):
            if time.monotonic() > deadline:
                raise StreamError(
                    f"the {what} was sent, but isn't mined yet: transaction {transaction}. The same command waits for "
                    f"it and doesn't send another{self.done}"
                )
            time.sleep(POLL)
        return receipt

    def receipt_of(self, transaction: str) -> Receipt | None:
        """Return the receipt of a transaction; None if it isn't mined, or the node doesn't answer now."""
        try:
            [receipt] = self.node.batch([RpcRequest("eth_getTransactionReceipt", (transaction,))])
        except ChainError:
            return None
        return receipt if isinstance(receipt, dict) else None

    def _is_confirmed(self, receipt: Receipt) -> bool:
        if not (wanted := self.provider.network.required_confirmations):
            return True
        try:
            [latest] = results_of(self.node, RpcRequest("eth_blockNumber"))
        except ChainError:
            return False
        return int(latest, 16) >= int(receipt["blockNumber"], 16) + int(wanted)

    def _prepare(self, what: str, function: ContractTransactionHandler, arguments: tuple[Any, ...]) -> TransactionAPI:
        from ape.exceptions import ApeException

        try:
            gas = int(function.estimate_gas_cost(*arguments, sender=self.account) * HEADROOM)
            prepared: TransactionAPI = function.as_transaction(*arguments, sender=self.account, gas_limit=gas)
        except ApeException as error:
            raise TransactionRefused(f"the {what} was refused: {error}{self.done}") from error
        return prepared

    def _sign(self, what: str, transaction: TransactionAPI) -> SignedTransaction:
        from ape.exceptions import ApeException
        from eth_utils.crypto import keccak

        try:
            signed = self.account.sign_transaction(transaction)
            if signed is None or signed.nonce is None:
                raise StreamError(f"the {what} wasn't signed{self.done}")
            raw = signed.serialize_transaction()
        except ApeException as error:
            if isinstance(error, StreamError):
                raise
            raise StreamError(f"the {what} wasn't signed: {error}{self.done}") from error
        return SignedTransaction(f"0x{keccak(raw).hex()}", f"0x{raw.hex()}", int(signed.nonce))

    def _call(self, what: str, function: ContractTransactionHandler, arguments: tuple[Any, ...]) -> str:
        """Send a transaction in the account's own way; return the hash."""
        from ape.exceptions import ApeException
        from ape.logging import LogLevel, logger

        simulated = {
            "from": str(self.account.address),
            "to": str(function.contract.address),
            "data": f"0x{function.encode_input(*arguments).hex()}",
        }
        [answer] = self.node.batch([RpcRequest("eth_call", (simulated, "latest"))])
        if isinstance(answer, ChainError):
            raise TransactionRefused(f"the {what} was refused: {answer}{self.done}")
        self.tell(f"Sending the {what} …")
        try:
            with logger.at_level(LogLevel.WARNING):  # it would log "confirmed" for what a slow node only accepted
                return str(function(*arguments, sender=self.account).txn_hash)
        except ApeException as error:
            raise StreamError(
                f"the {what} failed, or its end isn't known; look at the account's transactions before you pay again: "
                f"{error}{self.done}"
            ) from error

    def _mined(self, what: str, transaction: str) -> Receipt:
        receipt = self.wait(what, transaction)
        if not succeeded(receipt):
            block = int(receipt["blockNumber"], 16)
            raise TransactionRefused(f"the {what} failed in block {block} ({transaction}){self.done}")
        return receipt


def succeeded(receipt: Receipt) -> bool:
    """Return whether a transaction that was mined did what it should."""
    return int(receipt["status"], 16) == 1


def event_of(receipt: Receipt, manager: str, name: str) -> dict[str, Any]:
    """Return an event of a StreamManager in a receipt.

    Raises:
        StreamError: it isn't there.
    """
    topic = event_topic(name)
    for log in receipt["logs"]:
        if log["topics"] and log["topics"][0] == topic and log["address"].lower() == manager.lower():
            return dict(log)
    raise StreamError(f"transaction {receipt['transactionHash']} has no event {name} of {manager}")


def _signs_locally(account: AccountAPI) -> bool:
    """Return whether an account's transactions are signed and then sent as they are.

    A contract wallet wraps them into others, and an impersonated account's are signed by the node.
    """
    from ape.api import AccountAPI

    return type(account).call is AccountAPI.call
