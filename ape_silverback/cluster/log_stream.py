"""A bot's log as a stream: constant memory, any kind of line, and followed over broken connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime

import httpx
from pydantic_core import from_json

from ape_silverback.cluster.types import BotLogEntry
from ape_silverback.exceptions import ConnectionFailed, NotFound, ServerError

LONGEST_LINE = 1 << 20
"""Bytes of one line that are kept; the rest is cut off, with a mark."""

CUT = "… (cut)"

MOST_AT_ONE_TIME = 10_000
"""Lines of one time that are remembered, to know them again after a broken connection."""

Connect = Callable[["datetime | None"], AbstractContextManager[httpx.Response]]
"""Opens the log's stream at a time on."""


def read_entry(line: str) -> BotLogEntry:
    """Read a line of a log: JSON as the API sends it, a raw line, or anything else."""
    if line.startswith("{"):
        with suppress(ValueError):  # of which pydantic's errors are some
            return BotLogEntry.model_validate_json(line) if not line.endswith(CUT) else _read_cut_entry(line)
    return BotLogEntry.parse_line(line)


def _read_cut_entry(line: str) -> BotLogEntry:
    """Read what is there of an entry that was cut, which has its time and level in front.

    Raises:
        ValueError: that isn't enough.
    """
    entry = BotLogEntry.model_validate(from_json(line.removesuffix(CUT), allow_partial="trailing-strings"))
    return entry.model_copy(update={"message": entry.message + CUT})


def read_lines(response: httpx.Response) -> Iterator[str]:
    """Give the lines of a stream, each cut at ``LONGEST_LINE`` bytes."""
    buffer = bytearray()
    cut = False
    for chunk in response.iter_bytes():
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            buffer += chunk[start:end][: LONGEST_LINE - len(buffer)] if not cut else b""
            cut = cut or len(buffer) >= LONGEST_LINE
            yield _text(buffer, cut)
            buffer.clear()
            cut = False
            start = end + 1
        rest = chunk[start:]
        if not cut:
            buffer += rest[: LONGEST_LINE - len(buffer)]
            cut = len(buffer) >= LONGEST_LINE
    if buffer:
        yield _text(buffer, cut)


def _text(line: bytes | bytearray, cut: bool) -> str:
    text = line.decode("utf8", errors="replace").rstrip("\r")
    return text + CUT if cut else text


def follow(
    connect: Connect, since: datetime | None, delays: Callable[[], Iterator[float]], sleep: Callable[[float], None]
) -> Iterator[BotLogEntry]:
    """Follow a log: when the connection breaks, go on where it broke, without losing or repeating an entry.

    Args:
        connect: opens the stream.
        since: where to begin.
        delays: gives the seconds to wait before each attempt to connect again.
        sleep: waits for some seconds.

    Raises:
        ClusterError: the log can't be had (any more); the end of the bot is the end of the log and no error.
    """
    last: datetime | None = since
    # The messages at the last time seen, of which more than one may share it or have none of their own.
    at_last: deque[str] = deque(maxlen=MOST_AT_ONE_TIME)
    waiting = delays()
    broken = False
    while True:
        try:
            with connect(last) as response:
                repeated = list(at_last) if broken else []
                for line in read_lines(response):
                    entry = read_entry(line)
                    if entry.message in repeated and entry.timestamp in (last, None):
                        repeated.remove(entry.message)
                        continue
                    if entry.timestamp is not None and entry.timestamp != last:
                        last, repeated = entry.timestamp, []
                        at_last.clear()
                    at_last.append(entry.message)
                    waiting = delays()
                    yield entry
        except NotFound:
            if broken:
                return
            raise
        except (ConnectionFailed, ServerError):
            broken = True
            if (delay := next(waiting, None)) is None:
                raise
            sleep(delay)
        else:
            return  # the server ended it: the bot is gone
