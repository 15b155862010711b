"""Reads a bot's log: entries by level and time, followed if asked, and what went wrong in the latest run.

A log is a row of files that its writer bounds, see ``LogWriter`` in ``runtimes/shim.py``. Their lines are in the order
of their times, so that a time is found without reading what is before it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from ape.logging import LogLevel

from ape_silverback.cluster.types import BotLogEntry
from ape_silverback.timezones import with_timezone

POLL = 0.2
"""Seconds between two looks at the end of a followed log."""

STAYS_EVERY = 5
"""Looks at the end of a followed log between two questions whether its bot is still there."""

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

_LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z)(?: (?:(DEBUG|INFO|SUCCESS|WARNING|ERROR): {1,5})?(.*))?",
    re.DOTALL,
)
_LEVELS = {name.encode(): int(LogLevel[name]) for name in ("DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR")}


class Filter:
    """Chooses entries. A line without a level belongs to the one before it and has that one's level.

    Args:
        level: the lowest one wanted.
        start: of the time that is wanted.
        end: of it.
    """

    def __init__(self, level: int, start: datetime | None, end: datetime | None) -> None:
        self.level = level
        self.start, self.end = _stamp(start), _stamp(end)
        self.last_level: int = LogLevel.INFO

    def takes(self, stamp: bytes | None, level: int | None, message: bytes) -> bool:
        """Return whether an entry is wanted. Has to see all of them, in order."""
        if level is not None:
            self.last_level = level
        elif message.strip() == TASK_FAILED.encode():
            self.last_level = LogLevel.ERROR
        if self.last_level < self.level:
            return False
        if stamp is None:
            return True
        moment = _comparable(stamp)
        return (self.start is None or moment >= self.start) and (self.end is None or moment <= self.end)


class LogReader:
    """Reads a log from a time on, in pieces, across its files.

    Args:
        base: of the log; nothing of it may be there yet.
        wanted: which entries.
    """

    def __init__(self, base: Path, wanted: Filter) -> None:
        self.base = base
        self.wanted = wanted
        self.number = -1
        self._file: IO[bytes] | None = None
        self._rest = b""

    def read(self) -> bytes | None:
        """Return the entries of the next piece, a JSON object a line, perhaps none; None at the end for now."""
        if self._file is None and not self._open_first():
            return None
        assert self._file is not None  # noqa: S101 - just opened
        chunk = self._file.read(CHUNK)
        if not chunk:
            if not self._open_next():
                return None
            return self.finish()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return b"".join(self._encoded(lines))

    def finish(self) -> bytes:
        """Return the last line, when it isn't ended and never will be."""
        rest, self._rest = self._rest, b""
        return b"".join(self._encoded([rest])) if rest else b""

    def close(self) -> None:
        """Close the file that is read."""
        if self._file:
            self._file.close()

    def _open_first(self) -> bool:
        files = files_of_log(self.base)
        if self.wanted.start is not None:
            later = [file for file in files[1:] if (_first_stamp(file) or b"") <= self.wanted.start]
            files = later[-1:] or files[:1]
        if not files:
            return False
        self._open(files[0])
        if self._file is not None and self.wanted.start is not None:
            self._file.seek(_offset_of(self._file, self.wanted.start))
        return self._file is not None

    def _open_next(self) -> bool:
        """Go on with the next file, or from the beginning of one that was cut or replaced."""
        assert self._file is not None  # noqa: S101 - it was read to its end
        path = _path(self.base, self.number)
        try:
            status, there = os.fstat(self._file.fileno()), path.stat()
            if (there.st_ino, there.st_dev) != (status.st_ino, status.st_dev) or there.st_size < self._file.tell():
                self._open(path)
                return True
        except FileNotFoundError:
            pass  # the oldest one, which its writer deleted
        following = [file for file in files_of_log(self.base) if _number(self.base, file) > self.number]
        if not following or (more := self._file.read(1)):
            if following:
                self._file.seek(-len(more), os.SEEK_CUR)  # written just before the next file began
            return bool(following)
        self._open(following[0])
        return True

    def _open(self, path: Path) -> None:
        self.close()
        try:
            self._file = path.open("rb")
        except OSError:  # it is gone already, or can't be read
            self._file = None
        self.number = _number(self.base, path)

    def _encoded(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            stamp, level, message = _parts(line)
            if self.wanted.takes(stamp, level, message):
                entry = {
                    "level": level,
                    "timestamp": stamp.decode() if stamp else None,
                    "message": message.decode("utf8", "replace"),
                }
                yield json.dumps(entry).encode() + b"\n"


async def stream(base: Path, wanted: Filter, stays: Callable[[], bool] | None = None) -> AsyncIterator[bytes]:
    """Yield a log as the API sends it, a JSON entry a line.

    Args:
        base: of the log.
        wanted: which entries.
        stays: for a followed log, whether its bot is still there; None ends at the end of the log.
    """
    reader, looks = LogReader(base, wanted), 0
    try:
        while True:
            output = await asyncio.to_thread(reader.read)
            if output:
                yield output
            elif output is None:
                looks += 1
                if stays is None or (looks % STAYS_EVERY == 1 and not await asyncio.to_thread(stays)):
                    break
                await asyncio.sleep(POLL)
        if rest := reader.finish():
            yield rest
    finally:
        reader.close()


def files_of_log(base: Path) -> list[Path]:
    """Return the files of a log, the oldest first."""
    try:
        found = [file for file in base.parent.iterdir() if _number(base, file) >= 0 and file.is_file()]
    except OSError:
        return []
    return sorted(found, key=lambda file: _number(base, file))


def read_log(base: Path) -> bytes:
    """Return all that there is of a log."""
    return b"".join(file.read_bytes() for file in files_of_log(base))


@dataclass
class LoggedError:
    """An error that a bot logged, with the lines that belong to it.

    Attributes:
        time: when it was logged; None for a line without a time.
    """

    time: datetime | None
    message: str


def errors_of_run(base: Path, started: datetime | None) -> list[LoggedError]:
    """Return the errors that the latest run logged, from the end of its log.

    Args:
        base: of the log.
        started: when the run began.

    Returns:
        The last ones, oldest first.
    """
    errors: list[LoggedError] = []
    traces: list[LoggedError] = []  # of tasks that failed, whose entries are still to come
    is_error = is_trace = False
    for entry in _tail(base, started):
        if entry.level is not None:
            is_error, is_trace = entry.level >= LogLevel.ERROR, False
            if is_error:
                message = "\n".join([entry.message, *(trace.message for trace in traces[:1])])
                errors.append(LoggedError(entry.timestamp and with_timezone(entry.timestamp), message))
                del traces[:1]
        elif entry.message.strip() == TASK_FAILED:
            traces.append(LoggedError(entry.timestamp and with_timezone(entry.timestamp), ""))
            is_trace = True
        elif is_trace:
            traces[-1].message = f"{traces[-1].message}\n{entry.message}".removeprefix("\n")
        elif is_error:
            errors[-1].message += f"\n{entry.message}"
    errors += traces
    return errors[-MOST_ERRORS:]


def last_lines_of_run(base: Path, started: datetime | None) -> str:
    """Return the last lines of the latest run, which tell most of a bot that died without logging an error."""
    return "\n".join([entry.message for entry in _tail(base, started)][-LAST_LINES:])


@dataclass(frozen=True)
class LastWords:
    """What the log of a run ends with.

    Attributes:
        errors: the last ones, the oldest first.
        lines: the last ones of any kind, where no error was logged.
    """

    errors: Sequence[str]
    lines: str = ""


def last_words(base: Path, started: datetime | None) -> LastWords:
    """Return what the log of the latest run ends with, with the arguments of ``errors_of_run``."""
    errors = [one.message for one in errors_of_run(base, started)]
    return LastWords(errors, "" if errors else last_lines_of_run(base, started))


def _tail(base: Path, started: datetime | None) -> Iterator[BotLogEntry]:
    content, cut = b"", False
    for file in reversed(files_of_log(base)):
        try:
            with file.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                cut = size > ERRORS_FROM_END - len(content)
                opened.seek(max(0, size - (ERRORS_FROM_END - len(content))))
                content = opened.read() + content
        except OSError:
            break
        if cut:
            break
    lines = content.split(b"\n")
    for line in lines[1 if cut else 0 : None if lines[-1] else -1]:
        entry = BotLogEntry.parse_line(line.decode("utf8", "replace"))
        if started is None or entry.timestamp is None or with_timezone(entry.timestamp) >= started:
            yield entry


def level_of_line(line: bytes) -> int | None:
    """Return the level that a line of a log names; None for a line without one."""
    return _parts(line)[1]


def _parts(line: bytes) -> tuple[bytes | None, int | None, bytes]:
    """Return time, level and message of a line of a log; no time for another line."""
    if match := _LINE.fullmatch(line):
        return match[1], _LEVELS.get(match[2] or b""), match[3] or b""
    if line[:1].isdigit():  # perhaps a time in another spelling
        entry = BotLogEntry.parse_line(line.decode("utf8", "replace"))
        stamp = _stamp(entry.timestamp)
        level = None if entry.level is None else int(entry.level)
        return (stamp + b"Z" if stamp else None), level, entry.message.encode("utf8", "replace")
    return None, None, line


def _first_stamp(file: Path) -> bytes | None:
    try:
        with file.open("rb") as opened:
            return _next_stamp(opened)[0]
    except OSError:
        return None


def _next_stamp(opened: IO[bytes]) -> tuple[bytes | None, int]:
    """Return the time of the next line that has one, and where that line begins."""
    while True:
        position = opened.tell()
        line = opened.readline(CHUNK)
        if not line:
            return None, position
        if match := _LINE.match(line[:64]):
            return _comparable(match[1]), position


def _offset_of(opened: IO[bytes], start: bytes) -> int:
    """Return where the first line of a time or a later one begins, or a place not far before it."""
    low, high = 0, opened.seek(0, os.SEEK_END)
    while high - low > CHUNK:
        middle = (low + high) // 2
        opened.seek(middle)
        opened.readline()  # the rest of a line
        stamp, position = _next_stamp(opened)
        if stamp is None or stamp >= start or position >= high:
            high = middle
        else:
            low = position
    return low


def _comparable(stamp: bytes) -> bytes:
    """Return a time so that it compares with others as texts do: with six digits of the second's fraction."""
    seconds, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return seconds + b"." + fraction[:6].ljust(6, b"0")


def _path(base: Path, number: int) -> Path:
    return base.with_name(f"{base.name}.{number}") if number else base


def _number(base: Path, file: Path) -> int:
    """Return which of the files of a log a file is: 0 for one without a number, -1 for another file."""
    if file.name == base.name:
        return 0
    prefix, _, number = file.name.rpartition(".")
    return int(number) if prefix == base.name and number.isdecimal() and len(number) < 12 else -1


def _stamp(moment: datetime | None) -> bytes | None:
    """Return a time as the lines of a log begin with it; one without a zone is in UTC."""
    if moment is None:
        return None
    try:
        zoned = with_timezone(moment).astimezone(timezone.utc)
    except OverflowError:  # at an end of all times
        zoned = moment.replace(tzinfo=timezone.utc)
    return zoned.replace(tzinfo=None).isoformat(timespec="microseconds").encode()
