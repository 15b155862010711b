"""Errors of bots: counted, and the line of one that best explains why a bot ended. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, computed_field

# What differs each time the same thing goes wrong: hashes and addresses, UUIDs, times, durations, percentages, and
# numbers as long as block heights and amounts. Shorter numbers may be a status or an exit code.
_CHANGING = re.compile(
    r"0x[0-9a-fA-F]{8,}(?:…|\.\.\.)?"
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\b\d+(?:\.\d+)?(?:ms|s\b|%)"
    r"|\b\d{5,}\b"
)


class ErrorCount(BaseModel):
    """An error of bots, and how often it occurred: `bots errors`."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    message: str
    """The latest of them; errors that differ only in hashes, times and long numbers are one."""

    bots: Mapping[str, int]
    """Name of a bot → how often it occurred there."""

    @computed_field(description="How often it occurred in all.")  # type: ignore[prop-decorator]
    @property
    def count(self) -> int:
        """How often it occurred in all."""
        return sum(self.bots.values())


def count_errors(by_bot: Mapping[str, Sequence[str]]) -> list[ErrorCount]:
    """Count errors, the most frequent first; those that differ only in hashes, times and long numbers are one.

    Args:
        by_bot: name of a bot → its errors, the oldest first.
    """
    last: dict[str, str] = {}
    counts: dict[str, Counter[str]] = {}
    for name, messages in by_bot.items():
        for message in messages:
            same = _CHANGING.sub("…", message)
            last[same] = message
            counts.setdefault(same, Counter())[name] += 1
    found = [ErrorCount(message=message, bots=counts[same]) for same, message in last.items()]
    return sorted(found, key=lambda one: -one.count)


def last_error_line(errors: Sequence[str]) -> str | None:
    """Return the line that best explains why a bot ended: the last one that names an error.

    A line that ends with a colon is joined with the next one.
    """
    lines: list[str] = []
    for line in (line.strip() for error in errors for line in error.splitlines()):
        if line and lines and lines[-1].endswith(":"):
            lines[-1] += f" {line}"
        elif line:
            lines.append(line)
    named = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception", "ERROR", "Halt"))]
    return next(reversed(named or lines), None)
