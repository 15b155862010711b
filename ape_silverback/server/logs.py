"""Reads a bot's log file: entries by level and time, followed if asked, and what went wrong in the latest run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from ape.logging import LogLevel

from ape_silverback.cluster.types import BotLogEntry

POLL = 0.2
"""Seconds between two looks at the end of a followed file."""

CHUNK = 64 * 1024
"""Bytes read at once, so that a long log never holds up the other requests."""

ERRORS_FROM_END = 256 * 1024
"""Bytes at the end of a log in which errors are looked for."""

MOST_ERRORS = 20
TASK_FAILED = "Exception found while executing function."
"""What the bot SDK's task runner writes, without a level, before the traceback of a task that failed. The SDK's own
entry comes after it and names the task only."""

LAST_LINES = 20
"""Lines shown of a bot that died without logging an error."""


class Filter:
    """Chooses entries. A line without a level belongs to the one before it and has that one's level."""

    def __init__(self, level: int, start: datetime | None, end: datetime | None) -> None:
        self.level = level
        self.start, self.end = _with_zone(start), _with_zone(end)
        self.last_level: int = LogLevel.INFO

    def takes(self, entry: BotLogEntry) -> bool:
        """Say whether an entry is wanted. Has to see all of them, in order."""
        if entry.level is not None:
            self.last_level = entry.level
        elif entry.message.strip() == TASK_FAILED:
            self.last_level = LogLevel.ERROR
        if self.last_level < self.level:
            return False
        if entry.timestamp is None:
            return True
        return (self.start is None or entry.timestamp >= self.start) and (
            self.end is None or entry.timestamp <= self.end
        )


async def stream(file: Path, wanted: Filter, stays: Callable[[], bool] | None = None) -> AsyncIterator[bytes]:
    """Give a log as the API sends it, a JSON entry a line.

    Args:
        file: the log; it may not be there yet.
        wanted: which entries.
        stays: for a followed log, says whether its bot is still there; None ends at the end of the file.
    """
    while not file.exists():
        if stays is None or not stays():
            return
        await asyncio.sleep(POLL)
    with file.open("rb") as opened:
        rest = b""
        while True:
            chunk = opened.read(CHUNK)
            if not chunk:
                if stays is None or not stays():
                    break
                await asyncio.sleep(POLL)
                continue
            *lines, rest = (rest + chunk).split(b"\n")
            if output := b"".join(_encoded(lines, wanted)):
                yield output
            await asyncio.sleep(0)
        if rest:
            yield b"".join(_encoded([rest], wanted))


def errors_of_run(file: Path, started: datetime | None) -> list[str]:
    """Give the errors that the latest run logged, from the end of its log.

    Args:
        file: the log.
        started: when the run began.

    Returns:
        Errors with the lines that belong to them, the last ones, oldest first.
    """
    errors: list[str] = []
    traces: list[str] = []  # of tasks that failed, whose entries are still to come
    is_error = is_trace = False
    for entry in _tail(file, started):
        if entry.level is not None:
            is_error, is_trace = entry.level >= LogLevel.ERROR, False
            if is_error:
                errors.append("\n".join([entry.message, *traces[:1]]))
                del traces[:1]
        elif entry.message.strip() == TASK_FAILED:
            traces.append("")
            is_trace = True
        elif is_trace:
            traces[-1] = f"{traces[-1]}\n{entry.message}".removeprefix("\n")
        elif is_error:
            errors[-1] += f"\n{entry.message}"
    errors += traces
    return errors[-MOST_ERRORS:]


def last_lines_of_run(file: Path, started: datetime | None) -> str:
    """Give the last lines of the latest run, which tell most of a bot that died without logging an error."""
    return "\n".join([entry.message for entry in _tail(file, started)][-LAST_LINES:])


def _tail(file: Path, started: datetime | None) -> Iterator[BotLogEntry]:
    try:
        with file.open("rb") as opened:
            _skip_to_end(opened)
            for line in opened:
                entry = BotLogEntry.parse_line(line.decode("utf8", "replace").rstrip("\n"))
                if started is None or entry.timestamp is None or entry.timestamp >= started:
                    yield entry
    except FileNotFoundError:
        return


def _skip_to_end(opened: IO[bytes]) -> None:
    size = opened.seek(0, 2)
    opened.seek(max(0, size - ERRORS_FROM_END))
    if size > ERRORS_FROM_END:
        opened.readline()  # the rest of a line


def _encoded(lines: Iterable[bytes], wanted: Filter) -> Iterator[bytes]:
    for line in lines:
        entry = BotLogEntry.parse_line(line.decode("utf8", "replace"))
        if wanted.takes(entry):
            yield entry.model_dump_json().encode() + b"\n"


def _with_zone(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=timezone.utc) if moment and moment.tzinfo is None else moment
