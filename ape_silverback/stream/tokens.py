"""ERC-20 tokens: how they are called and counted, and amounts of them as people read and write them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from ape_silverback.apepay.contract import MAX_UINT256, contract, read_calls
from ape_silverback.apepay.rpc import Node
from ape_silverback.exceptions import StreamError

LONGEST_AMOUNT = 80
"""Digits of an amount above which it is more than any token has."""

LONGEST_SYMBOL = 32
"""Characters of a symbol, which its contract may choose freely, that are shown."""

READABLE_DIGITS = 4
"""Digits after the point of an amount that changes all the time; of a small one, digits that aren't zero."""


@dataclass(frozen=True)
class Token:
    """An ERC-20 token.

    Attributes:
        decimals: digits of an amount after the point.
    """

    address: str
    symbol: str
    decimals: int

    @property
    def one(self) -> int:
        """One token in its smallest unit."""
        return int(10**self.decimals)

    def text(self, amount: int) -> str:
        """Return an amount of the smallest unit for people, as ``12.5 USDC``."""
        whole, part = divmod(amount, self.one)
        digits = f"{part:0{self.decimals}d}".rstrip("0") if part else ""
        return f"{whole}{'.' if digits else ''}{digits} {self.symbol}"

    def about(self, amount: int) -> str:
        """Return an amount that changes all the time, without the digits that tell nothing."""
        step = min(self.one // 10**READABLE_DIGITS, 10 ** max(0, len(str(amount)) - READABLE_DIGITS))
        return self.text(amount - amount % max(1, step))

    def amount(self, text: str) -> int:
        """Read an amount: ``12.5`` or ``12.5 USDC`` are tokens.

        Raises:
            StreamError: it isn't a number above zero, is of another token, or has more digits than the token.
        """
        number, _, symbol = text.strip().partition(" ")
        if symbol and symbol.strip().lower() != self.symbol.lower():
            raise StreamError(f"amount '{text}': the stream is paid for in {self.symbol}")
        try:
            value = Decimal(number.replace("_", ""))
            amount = Fraction(value) * self.one if value.adjusted() < LONGEST_AMOUNT else Fraction(MAX_UINT256)
        except (ArithmeticError, ValueError):
            raise StreamError(f"amount '{text}': expected a number of tokens, such as '12.5 {self.symbol}'") from None
        if amount.denominator != 1:
            raise StreamError(f"amount '{text}': {self.symbol} has at most {self.decimals} digits after the point")
        if amount <= 0:
            raise StreamError(f"amount '{text}': it has to be above zero")
        return min(int(amount), MAX_UINT256)


def read_token(node: Node, address: str, block: str = "latest") -> Token:
    """Read how a token is called and counted.

    Raises:
        ChainError: the node refuses, or it isn't a token.
    """
    token = contract("TestToken")
    symbol, decimals = read_calls(node, [token.call(address, "symbol"), token.call(address, "decimals")], block)
    return Token(address, str(symbol)[:LONGEST_SYMBOL], int(decimals))
