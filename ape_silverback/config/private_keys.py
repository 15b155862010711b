"""Recognize values that look like private keys, which every bot with the variable group could read."""

from __future__ import annotations

import re

_PRIVATE_KEY = re.compile(r"\s*(?:0x)?[0-9a-fA-F]{64}\s*")


def looks_like_private_key(value: str) -> bool:
    """Return whether a value has the shape of a private key."""
    return _PRIVATE_KEY.fullmatch(value) is not None


def private_key_text(variable: str, group: str) -> str:
    """Return what is wrong with a variable whose value looks like a private key; never the value."""
    return (
        f"the value of {variable} in {group} looks like a private key, which every bot with this group can read: let "
        "the bot sign with an `account:` instead"
    )


def refused_text(text: str) -> str:
    """Return a text of ``private_key_text`` for a section that refuses such variables."""
    return f"{text} (refused since the section is `strict:`)"
