"""Time spans as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from ape_silverback.plurals import plural

MANY_YEARS = 36_500 * 24 * 60 * 60
MOST_DIGITS = 20

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
    parts = _PART.findall(text)
    if any(len(number) > MOST_DIGITS for number, _ in parts):  # Python doesn't read a number of any length
        raise OverflowError("longer than there is time")
    return sum((timedelta(**{_UNITS[unit[0].lower()]: int(number)}) for number, unit in parts), timedelta())


def span_text(seconds: int) -> str:
    """Return a time span in its two largest units, such as ``29 days 3 hours``."""
    if seconds >= MANY_YEARS:
        return "more than 100 years"
    parts: list[str] = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(plural(count, unit))
    return " ".join(parts[:2]) or "no time"


def short_span_text(seconds: float) -> str:
    """Return a time span in one unit, such as ``46 s``, ``20 min`` or ``3 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
