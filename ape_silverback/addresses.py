"""Addresses of accounts and contracts on EVM chains, as everything here accepts and writes them."""

from __future__ import annotations

import re
from typing import Any

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def checksummed_address(value: Any) -> str:
    """Return a 20-byte address in its EIP-55 spelling.

    Short input isn't padded, as Ape's own types do: for a contract that takes payments, that would turn a typing error
    into a stranger's account. Mixed case is a checksum, which has to hold.

    Args:
        value: 20 bytes, or 0x and 40 hexadecimal digits.

    Raises:
        ValueError: it isn't an address, or its checksum is wrong.
    """
    from eth_utils.address import to_checksum_address

    text = "0x" + bytes(value).hex() if isinstance(value, bytes | bytearray) else value
    if isinstance(text, int):
        raise ValueError("an address has to be quoted, or YAML reads it as a number")  # noqa: TRY004 - for pydantic
    if not isinstance(text, str) or not _ADDRESS.fullmatch(text):
        raise ValueError(f"not an address (0x and 40 hexadecimal digits): {value!r}")
    checksummed = str(to_checksum_address(text))
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and text != checksummed:
        raise ValueError(f"wrong checksum (EIP-55) in address {text}; expected {checksummed}")
    return checksummed
