"""Errors of bots: the same one counted, and the line that tells most. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What differs each time that the same thing goes wrong: hashes and addresses, UUIDs, times, durations and shares, and
# numbers as long as heights of blocks and amounts. Shorter ones may be a status or an exit code.
_CHANGING = re.compile(
    r"0x[0-9a-fA-F]{8,}(?:…|\.\.\.)?"
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\b\d+(?:\.\d+)?(?:ms|s\b|%)"
    r"|\b\d{5,}\b"
)


@dataclass(frozen=True)
class ErrorCount:
    """An error, and how often it was told.

    Attributes:
        message: as it was told last.
        bots: name of a bot → how often it told it.
    """

    message: str
    bots: Mapping[str, int]

    @property
    def count(self) -> int:
        """How often it was told by all of them."""
        return sum(self.bots.values())


def count_errors(told: Mapping[str, Sequence[str]]) -> list[ErrorCount]:
    """Count errors, the most frequent first; those are one that differ in hashes, times and long numbers only.

    Args:
        told: name of a bot → its errors, the oldest first.
    """
    last: dict[str, str] = {}
    counts: dict[str, Counter[str]] = {}
    for name, messages in told.items():
        for message in messages:
            same = _CHANGING.sub("…", message)
            last[same] = message
            counts.setdefault(same, Counter())[name] += 1
    found = [ErrorCount(message, counts[same]) for same, message in last.items()]
    return sorted(found, key=lambda one: -one.count)


def last_error_line(errors: Sequence[str]) -> str | None:
    """Return the one line that tells most about why a bot ended: of the last error, the last line that names one.

    A line that ends with a colon only announces the next one, and takes it along.
    """
    lines: list[str] = []
    for line in (line.strip() for error in errors for line in error.splitlines()):
        if line and lines and lines[-1].endswith(":"):
            lines[-1] += f" {line}"
        elif line:
            lines.append(line)
    named = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception", "ERROR", "Halt"))]
    return next(reversed(named or lines), None)
