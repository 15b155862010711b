"""Payments that were signed and not yet seen mined, kept on this machine so that none is made twice.

A payment is written down before it is sent, and forgotten when its end is known. Each holds a signed transaction, which
anyone could send, but only to the same end: only their owner can read the files.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ape_silverback.exceptions import StreamError
from ape_silverback.files import locked, silverback_folder, write_private

FOLDER = "payments"
"""Folder below that of this package where they are kept."""


class PendingPayment(BaseModel):
    """A payment of which it isn't known whether it was mined.

    Attributes:
        transaction: its hash.
        nonce: of the payer's account: another transaction that was mined with it replaced this one.
        raw: the signed transaction, as hexadecimal text.
        amount: what is paid, as shown to people.
    """

    model_config = ConfigDict(frozen=True)

    transaction: str
    nonce: int
    raw: str = Field(repr=False)
    amount: str
    signed: datetime


@dataclass(frozen=True)
class PaymentMemory:
    """The place where one payer's payment for one stream is kept."""

    file: Path

    @classmethod
    def of(cls, chain_id: int, manager: str, payer: str, purpose: str) -> PaymentMemory:
        """Return the place of a payment.

        Args:
            chain_id: of the chain.
            manager: address of the StreamManager.
            payer: address of the account.
            purpose: what is paid for: a cluster or a stream.
        """
        told = json.dumps([chain_id, manager.lower(), payer.lower(), purpose])
        name = hashlib.sha256(told.encode()).hexdigest()[:32]
        return cls(silverback_folder() / FOLDER / f"{name}.json")

    def lock(self) -> AbstractContextManager[None]:
        """Hold the right to make this payment, for as long as the context lasts.

        Raises:
            FileLocked: another process holds it.
        """
        return locked(self.file.with_suffix(".lock"))

    def read(self) -> PendingPayment | None:
        """Return the payment whose end isn't known; None if there is none.

        Raises:
            StreamError: the file can't be read, so that nothing may be paid.
        """
        try:
            return PendingPayment.model_validate_json(self.file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StreamError(
                f"{self.file} can't be read, which holds a payment that may be under way: look at the account's "
                "transactions, and remove the file when none is pending"
            ) from error

    def write(self, payment: PendingPayment) -> None:
        """Write a payment down, before it is sent.

        Raises:
            FileError: it can't be written.
        """
        write_private(self.file, payment.model_dump_json())

    def forget(self) -> None:
        """Forget it: its end is known."""
        self.file.unlink(missing_ok=True)
