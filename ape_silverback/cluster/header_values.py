"""Keys and tokens as they can be sent in a header. What is refused isn't shown: most of it is a secret."""

from __future__ import annotations

import unicodedata


def header_value(text: str) -> str:
    """Return a key or token without the white space around it, which copying and ``$(cat FILE)`` leave.

    Raises:
        ValueError: nothing is left, or it has a character that can't be sent in a header (RFC 9110, section 5.5).
    """
    value = text.strip()
    if not value:
        raise ValueError("is empty")
    for place, letter in enumerate(value, start=1):
        if not " " <= letter <= "~":
            raise ValueError(f"can't be sent: character {place} of {len(value)} is {_named(letter)}")
    return value


def _named(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python reads a byte of the environment that isn't UTF-8
        return f"the byte 0x{ord(letter) - 0xDC00:02X}, which isn't UTF-8"
    return f"U+{ord(letter):04X} ({unicodedata.name(letter, 'a control character')})"
