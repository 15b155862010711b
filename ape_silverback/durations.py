"""Time spans as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

_PART = re.compile(r"(\d+)\s*(weeks?|w|days?|d|hours?|h|minutes?|mins?|m|seconds?|secs?|s)", re.IGNORECASE)
_WHOLE = re.compile(rf"{_PART.pattern}(?:[\s,]*{_PART.pattern})*", re.IGNORECASE)
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def read_span(text: str) -> timedelta | None:
    """Read a time span such as ``3 days``, ``2h`` or ``1h 30m``; None for what is none.

    Raises:
        OverflowError: it is longer than there is time.
    """
    if not _WHOLE.fullmatch(text.strip()):
        return None
    spans = (timedelta(**{_UNITS[unit[0].lower()]: int(number)}) for number, unit in _PART.findall(text))
    return sum(spans, timedelta())
