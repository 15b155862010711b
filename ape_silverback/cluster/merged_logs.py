"""The logs of several bots: merged by time, or followed side by side, from their last lines on where that is wanted.

A stream is open for each bot, so the memory is that of the streams' pieces, however long the logs are.
"""

from __future__ import annotations

import heapq
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, groupby

from ape.logging import LogLevel

from ape_silverback.cluster.cluster import Bot, RemovedBot
from ape_silverback.cluster.log_stream import LogLine
from ape_silverback.concurrency import map_threads
from ape_silverback.exceptions import ClusterError, SilverbackError
from ape_silverback.timezones import with_timezone

MOST_BOTS = 500
"""Most bots whose logs are read at once, twice what a cluster may have: each takes a connection."""

MOST_WAITING = 256
"""Most pieces of followed logs that wait to be taken; more of them wait in the cluster."""

BEGINNING = datetime(1, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class LogPiece:
    """Lines of one bot that came together.

    Attributes:
        bot: whose they are.
        lines: at least one.
    """

    bot: Bot | RemovedBot
    lines: Sequence[LogLine]


@dataclass(frozen=True)
class LogEnd:
    """The end of a followed log.

    Attributes:
        bot: whose it is.
        error: why it can't be read any more; None if the bot has been removed.
    """

    bot: Bot
    error: SilverbackError | None


def read_logs(
    bots: Sequence[Bot | RemovedBot],
    level: LogLevel = LogLevel.INFO,
    since: datetime | None = None,
    until: datetime | None = None,
    tail: int | None = None,
) -> Iterator[LogPiece]:
    """Read logs to their ends, merged by time; a line without a time stays behind the one before it.

    Args:
        bots: whose logs.
        level: lowest level.
        since: time from which on.
        until: time up to which.
        tail: most lines of each bot, its last ones; None for all.

    Raises:
        ClusterError: a log can't be read, or there are too many bots.
    """
    _check_number(bots)

    def read(bot: Bot | RemovedBot) -> Iterator[list[LogLine]]:
        return bot.read_log(level, since, until)

    if tail is not None:
        ends = map_threads(lambda bot: _last_lines(read(bot), tail), bots)
        logs = [iter([lines]) for lines in ends]
    else:
        opened = [read(bot) for bot in bots]
        begun = map_threads(lambda log: next(log, []), opened)  # so that not each waits for the one before it
        logs = [chain([lines], log) for lines, log in zip(begun, opened, strict=True)]
    if len(bots) == 1:
        yield from (LogPiece(bots[0], lines) for lines in logs[0] if lines)
        return
    merged = heapq.merge(*(_timed(number, log) for number, log in enumerate(logs)), key=lambda one: one[:2])
    for number, some in groupby(merged, key=lambda one: one[1]):
        for lines in _pieces(line for *_, line in some):
            yield LogPiece(bots[number], lines)


def _timed(number: int, log: Iterator[list[LogLine]]) -> Iterator[tuple[datetime, int, LogLine]]:
    last = BEGINNING
    for line in chain.from_iterable(log):
        if line.time is not None:
            last = with_timezone(line.time)
        yield last, number, line


def _pieces(lines: Iterator[LogLine], most: int = 500) -> Iterator[list[LogLine]]:
    """Yield lines in pieces of a bounded size."""
    piece: list[LogLine] = []
    for line in lines:
        piece.append(line)
        if len(piece) == most:
            yield piece
            piece = []
    if piece:
        yield piece


def _last_lines(log: Iterator[list[LogLine]], tail: int) -> list[LogLine]:
    window: deque[LogLine] = deque(maxlen=min(tail, sys.maxsize))
    for lines in log:
        window.extend(lines)
    return list(window)


def follow_logs(
    bots: Sequence[Bot],
    level: LogLevel = LogLevel.INFO,
    since: datetime | None = None,
    tail: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[LogPiece | LogEnd]:
    """Follow logs side by side as their lines come, until the last bot is removed or can't be read any more.

    Args:
        bots: whose logs.
        level: lowest level.
        since: time from which on.
        tail: most lines of each bot that were logged before; None for all.
        stop: set by another thread to end sooner.

    Raises:
        ClusterError: there are too many bots.
    """
    _check_number(bots)
    pieces: queue.Queue[LogPiece | LogEnd | BaseException] = queue.Queue(MOST_WAITING)
    stopped = stop or threading.Event()

    def put(piece: LogPiece | LogEnd | BaseException) -> None:
        while not stopped.is_set():
            try:
                pieces.put(piece, timeout=0.5)
            except queue.Full:
                continue
            return

    def read(bot: Bot) -> None:
        error: SilverbackError | None = None
        try:
            for lines in _follow(bot, level, since, tail):
                if stopped.is_set():
                    return
                put(LogPiece(bot, lines))
        except SilverbackError as caught:
            error = caught
        except BaseException as caught:  # noqa: BLE001 - raised where it is waited for
            put(caught)  # nobody waits any more when the client was closed, since the follower has gone
            return
        put(LogEnd(bot, error))

    for bot in bots:
        # Not waited for at the end of the process: a quiet log would never wake its thread.
        threading.Thread(target=read, args=(bot,), name=f"log of {bot.name}", daemon=True).start()
    left = len(bots)
    try:
        while left and not stopped.is_set():
            try:
                piece = pieces.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(piece, BaseException):
                raise piece
            left -= isinstance(piece, LogEnd)
            yield piece
    finally:
        stopped.set()


def _follow(bot: Bot, level: LogLevel, since: datetime | None, tail: int | None) -> Iterator[list[LogLine]]:
    """Follow a log from its last lines on. No cluster has an option for that, so what is there is read first."""
    if tail is None:
        yield from bot.read_log(level, since, follow=True)
        return
    begin, skipped = _beginning_of_tail(bot.read_log(level, since), since, tail)
    for lines in bot.read_log(level, begin, follow=True):
        fresh = lines[skipped:]
        skipped -= len(lines) - len(fresh)
        if fresh:
            yield fresh


def _beginning_of_tail(log: Iterator[list[LogLine]], since: datetime | None, tail: int) -> tuple[datetime | None, int]:
    """Return the time from which on a log holds its last lines, and how many lines from then on come before them."""
    begin, skipped = since, 0
    window: deque[LogLine] = deque()
    for line in chain.from_iterable(log):
        window.append(line)
        if len(window) > tail:
            gone = window.popleft()
            if gone.time is not None and gone.time != begin:
                begin, skipped = gone.time, 0
            skipped += 1
    return begin, skipped


def _check_number(bots: Sequence[Bot | RemovedBot]) -> None:
    if len(bots) > MOST_BOTS:
        raise ClusterError(f"the logs of {len(bots)} bots are too many to read at once; choose at most {MOST_BOTS}")
