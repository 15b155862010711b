"""A bot's log as a stream: constant memory, any kind of line, and read on where a connection broke.

Lines come in the pieces in which they arrive, so that reading many costs little and a new one is seen at once.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import Any, NamedTuple

import httpx
from ape.logging import LogLevel
from pydantic_core import from_json

from ape_silverback.cluster.types import BotLogEntry
from ape_silverback.exceptions import ConnectionFailed, NotFound, ServerError

LONGEST_LINE = 1 << 20
"""Bytes of one line that are kept; the rest is cut off, with a mark."""

CUT = "… (cut)"

MOST_REMEMBERED = 1 << 20
"""Characters of the last lines that are remembered, to know those of one time again after a broken connection."""

Connect = Callable[["datetime | None"], AbstractContextManager[httpx.Response]]
"""Opens the log's stream at a time on."""

HAS_FULL_ISO = sys.version_info >= (3, 11)

_LEVELS: dict[Any, LogLevel | None] = {
    None: None,
    **{int(level): level for level in LogLevel},
    **{level.name: level for level in LogLevel},
}


class LogLine(NamedTuple):
    """A line of a log: what a ``BotLogEntry`` holds, read in less than half of the time.

    Attributes:
        time: when it was logged; None for a line that doesn't tell.
        level: its level; None for a line that doesn't tell.
    """

    time: datetime | None
    level: LogLevel | None
    message: str


def read_entry(line: str) -> BotLogEntry:
    """Read a line of a log: JSON as the API sends it, a raw line, or anything else."""
    if line.startswith("{"):
        with suppress(ValueError):  # of which pydantic's errors are some
            return BotLogEntry.model_validate_json(line) if not line.endswith(CUT) else _read_cut_entry(line)
    return BotLogEntry.parse_line(line)


def _read_cut_entry(line: str) -> BotLogEntry:
    """Read what is left of an entry that was cut, which has its time and level in front.

    Raises:
        ValueError: that isn't enough.
    """
    entry = BotLogEntry.model_validate(from_json(line.removesuffix(CUT), allow_partial="trailing-strings"))
    return entry.model_copy(update={"message": entry.message + CUT})


def read_log_lines(lines: Sequence[str]) -> list[LogLine]:
    """Read lines of a log, as ``read_entry`` reads each, but quickly where all are the JSON that the API promises."""
    if all(line.startswith("{") and line.endswith("}") for line in lines):
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            contents = from_json(f"[{','.join(lines)}]")
            times = [_time(content.get("timestamp")) for content in contents]
            levels = [_LEVELS[content.get("level")] for content in contents]
            messages = [content["message"] for content in contents]
            if len(contents) == len(lines) and all(type(message) is str for message in messages):
                return list(map(LogLine, times, levels, messages))
    return [_read_slowly(line) for line in lines]


def _time(text: str | None) -> datetime | None:
    # Before Python 3.11 only some spellings of ISO 8601 are read, and none with a Z.
    return None if text is None else datetime.fromisoformat(text if HAS_FULL_ISO else text.replace("Z", "+00:00"))


def _read_slowly(line: str) -> LogLine:
    entry = read_entry(line)
    return LogLine(entry.timestamp, entry.level, entry.message)


def read_lines(response: httpx.Response) -> Iterator[list[str]]:
    """Yield the lines of a stream, as many at once as came together, each cut at ``LONGEST_LINE`` bytes."""
    rest = b""
    for chunk in response.iter_bytes():
        ended, newline, begun = chunk.rpartition(b"\n")
        if newline:
            yield _texts(rest + ended)
            rest = begun
        else:
            rest += begun
        rest = rest[: LONGEST_LINE + 1]  # one byte more shows that there was more
    if rest:
        yield _texts(rest)


def _texts(lines: bytes) -> list[str]:
    if len(lines) > LONGEST_LINE:
        return [_text(line) for line in lines.split(b"\n")]
    texts = lines.decode("utf8", errors="replace").split("\n")
    return [text.rstrip("\r") for text in texts] if b"\r" in lines else texts


def _text(line: bytes) -> str:
    text = line[:LONGEST_LINE].decode("utf8", errors="replace").rstrip("\r")
    return text + CUT if len(line) > LONGEST_LINE else text


def resumed(
    connect: Connect, since: datetime | None, delays: Callable[[], Iterator[float]], sleep: Callable[[float], None]
) -> Iterator[list[str]]:
    """Yield the lines of a log; when the connection breaks, go on from there without losing or repeating a line.

    Args:
        connect: opens the stream.
        since: where to begin.
        delays: the seconds to wait before each attempt to connect again.
        sleep: waits for some seconds.

    Raises:
        ClusterError: the log can't be read, or no longer; that the bot is removed ends its log and isn't an error.
    """
    place = _Place(since)
    waiting = delays()
    broken = False
    while True:
        try:
            with connect(place.time) as response:
                for lines in read_lines(response):
                    if fresh := place.without_known(lines):
                        waiting = delays()
                        yield fresh
        except NotFound:
            if broken:
                return
            raise
        except (ConnectionFailed, ServerError):
            broken = True
            if (delay := next(waiting, None)) is None:
                raise
            sleep(delay)
            place.come_back()
        else:
            return  # the server ended it: the log is over, or the bot is gone


class _Place:
    """How far a log was read: the last time, and the messages since then, which a new connection brings again."""

    def __init__(self, time: datetime | None) -> None:
        self.time = time
        # As they came: what they hold matters only if the connection breaks.
        self._recent: deque[str] = deque()
        self._size = 0
        self._at_time: Counter[str] = Counter()
        self._known: Counter[str] = Counter()

    def without_known(self, lines: list[str]) -> list[str]:
        """Return the lines that haven't been read before."""
        if self._known:
            fresh = []
            for text, line in zip(lines, read_log_lines(lines), strict=True):
                if line.time not in (self.time, None):
                    self._known.clear()
                if self._known[line.message] > 0:
                    self._known[line.message] -= 1
                else:
                    fresh.append(text)
            lines = fresh
        self._recent.extend(lines)
        self._size += sum(map(len, lines))
        while self._size > MOST_REMEMBERED and len(self._recent) > 1:
            self._size -= len(self._recent.popleft())
        return lines

    def come_back(self) -> None:
        """Prepare for a new connection, which begins at the last time that was read."""
        recent = read_log_lines(list(self._recent))
        self._recent.clear()
        self._size = 0
        last = next((line.time for line in reversed(recent) if line.time is not None), self.time)
        if last != self.time:
            begin = next(number for number, line in enumerate(recent) if line.time == last)
            # Lines of one time stand together; without one, a line belongs to the time before it.
            earlier = [number for number, line in enumerate(recent) if line.time not in (last, None)]
            recent = recent[max(begin, earlier[-1] + 1 if earlier else 0) :]
            self.time, self._at_time = last, Counter()
        self._at_time.update(line.message for line in recent)
        self._known = Counter(self._at_time)
