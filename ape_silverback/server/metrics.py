"""What bots record of their tasks: read from the files that the bot SDK's recorder writes, and kept within bounds.

The SDK appends a JSON line a task to a file a session, below the bot's work folder:
``.silverback-sessions/NAME/ECOSYSTEM/NETWORK/session-TIME.jsonl``. It opens the file for each line, so a file can be
moved aside while its bot runs.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ape_silverback.cluster.types import BotTaskResult
from ape_silverback.timezones import with_timezone

SESSIONS = ".silverback-sessions"
ROTATED = "rotated"
"""Folder beside a session's file that holds its older parts."""

ROTATE_AT = 4 * 1024 * 1024
"""Bytes of a session's file at which it is moved aside."""

MOST_BYTES = 32 * 1024 * 1024
"""Bytes that are kept of a bot."""

MOST_AGE = timedelta(days=90)
"""Age of the oldest part that is kept of a bot."""

LONGEST_LINE = 1024 * 1024
"""Bytes of a line that is read; a longer one is skipped."""

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of a task's execution time, in seconds."""


def session_files(work: Path) -> list[Path]:
    """Return the files with what a bot recorded, the oldest first.

    Args:
        work: the bot's work folder.
    """
    found: list[tuple[float, str, Path]] = []
    for file in (work / SESSIONS).glob("**/*.jsonl"):
        try:
            found.append((file.stat().st_mtime, file.name, file))
        except OSError:  # moved or removed in the meantime
            continue
    return [file for _, _, file in sorted(found)]


def read_results(
    work: Path,
    names: Collection[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[BotTaskResult]:
    """Read what a bot recorded, in the order in which it did.

    Args:
        work: the bot's work folder.
        names: metrics to read; every task when empty, else only tasks that recorded one of them.
        since: earliest time of a task's end.
        until: latest time of it.
    """
    for file in session_files(work):
        try:
            if since is not None and file.stat().st_mtime < since.timestamp():
                continue
            with file.open("rb") as lines:
                for line in _whole_lines(lines):
                    result = read_result(line)
                    if result is None or (since and result.completed < since) or (until and result.completed > until):
                        continue
                    if names:
                        metrics = {name: value for name, value in result.metrics.items() if name in names}
                        if not metrics:
                            continue
                        result = result.model_copy(update={"metrics": metrics})
                    yield result
        except FileNotFoundError:  # rotated or pruned in the meantime
            continue


def read_result(line: bytes) -> BotTaskResult | None:
    """Read one recorded line; None for one that is torn or isn't what the SDK writes."""
    try:
        document = json.loads(line)
        return BotTaskResult(
            completed=_time(document["completed"]),
            task=document["task_name"],
            execution_time=document["execution_time"],
            error=document.get("error"),
            block_number=document.get("block_number"),
            metrics=_scalars(document.get("metrics") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError):
        return None


def prune(
    work: Path, now: datetime | None = None, most_bytes: int = MOST_BYTES, most_age: timedelta = MOST_AGE
) -> None:
    """Move large files aside, and delete the oldest ones beyond the bounds of size and age.

    Args:
        work: the bot's work folder.
        now: the time; default: that of the clock.
        most_bytes: bytes to keep.
        most_age: age of the oldest file to keep.

    Raises:
        OSError: a file can't be moved or deleted.
    """
    now = now or datetime.now(timezone.utc)
    for file in session_files(work):
        if file.parent.name != ROTATED and file.stat().st_size >= ROTATE_AT:
            file.parent.joinpath(ROTATED).mkdir(mode=0o700, exist_ok=True)
            file.rename(file.parent / ROTATED / f"{file.stem}.until-{now:%Y%m%dT%H%M%S%f}.jsonl")
    total = 0
    for file in reversed(session_files(work)):
        state = file.stat()
        total += state.st_size
        if total > most_bytes or now.timestamp() - state.st_mtime > most_age.total_seconds():
            file.unlink(missing_ok=True)


@dataclass
class TaskCounters:
    """What was counted of one task of a bot.

    Attributes:
        handled: runs that ended, failed ones included.
        failed: runs that ended with an error.
        seconds: execution time of all runs.
        buckets: runs by execution time, one count for each of ``LATENCY_BUCKETS``; not cumulative.
    """

    handled: int = 0
    failed: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))

    def add(self, result: BotTaskResult) -> None:
        """Count one run."""
        self.handled += 1
        self.failed += result.error is not None
        self.seconds += result.execution_time
        slot = next((at for at, bound in enumerate(LATENCY_BUCKETS) if result.execution_time <= bound), -1)
        self.buckets[slot] += 1


class BotCounters:
    """Counts what a bot recorded, reading only what is new since the last time.

    Args:
        work: the bot's work folder.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.tasks: defaultdict[str, TaskCounters] = defaultdict(TaskCounters)
        self.latest: dict[str, float] = {}
        self.last_block: int | None = None
        self._read: dict[tuple[int, int], int] = {}  # device and inode, which a rename keeps → bytes read

    def update(self) -> None:
        """Read what was recorded since the last time."""
        there: dict[tuple[int, int], int] = {}
        for file in session_files(self.work):
            try:
                with file.open("rb") as lines:
                    state = file.stat()
                    key = (state.st_dev, state.st_ino)
                    position = self._read.get(key, 0)
                    lines.seek(position if position <= state.st_size else 0)
                    for line in _whole_lines(lines):
                        if (result := read_result(line)) is not None:
                            self._add(result)
                    there[key] = lines.tell()
            except OSError:
                continue
        self._read = there

    def _add(self, result: BotTaskResult) -> None:
        self.tasks[result.task].add(result)
        self.latest |= {name: float(value) for name, value in result.metrics.items()}
        if result.block_number is not None:
            self.last_block = result.block_number


def _whole_lines(lines: Any) -> Iterator[bytes]:
    """Read lines that are written to their end, and leave the position behind the last one of them."""
    while True:
        position = lines.tell()
        line = lines.readline(LONGEST_LINE)
        if not line:
            return
        if not line.endswith(b"\n"):
            if len(line) < LONGEST_LINE:  # still being written
                lines.seek(position)
                return
            while line and not line.endswith(b"\n"):  # too long: skipped
                line = lines.readline(LONGEST_LINE)
            continue
        yield line


def _time(text: str) -> datetime:
    return with_timezone(datetime.fromisoformat(text.replace("Z", "+00:00")))


def _scalars(metrics: dict[str, Any]) -> dict[str, float | int | bool]:
    values = {name: point["data"] if isinstance(point, dict) else point for name, point in metrics.items()}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, bool | int | float) and not (isinstance(value, float) and not math.isfinite(value))
    }
