"""Counts the lines that a bot logs by their level, reading only what is new since the last time."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ape.logging import LogLevel

from ape_silverback.server.logs import files_of_log, level_of_line

FIRST = 1024 * 1024
"""Bytes at the end of a log that are counted when it is looked at for the first time."""

CHUNK = 1024 * 1024


class LogCounts:
    """Lines of one bot's log.

    Args:
        base: of the log.

    Attributes:
        lines: name of a level, in small letters → lines. A line without a level counts for the one before it.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.lines: Counter[str] = Counter()
        self._level = LogLevel.INFO.name
        self._read: dict[tuple[int, int], int] | None = None  # device and inode, which a rename keeps → bytes read

    def update(self) -> None:
        """Read what was logged since the last time."""
        there: dict[tuple[int, int], int] = {}
        files = files_of_log(self.base)
        for file in files:
            try:
                with file.open("rb") as opened:
                    state = os.fstat(opened.fileno())
                    key = (state.st_dev, state.st_ino)
                    begin = self._begin(key, state.st_size, is_last=file == files[-1])
                    there[key] = self._count(opened.fileno(), begin)
            except OSError:  # rotated away in the meantime
                continue
        self._read = there

    def _begin(self, key: tuple[int, int], size: int, *, is_last: bool) -> int:
        if self._read is None:
            return max(0, size - FIRST) if is_last else size
        position = self._read.get(key, 0)
        return position if position <= size else 0

    def _count(self, file: int, position: int) -> int:
        """Count the whole lines from a position on, and return where they end."""
        while chunk := os.pread(file, CHUNK, position):
            whole, newline, _ = chunk.rpartition(b"\n")
            if not newline and len(chunk) < CHUNK:  # still being written
                break
            for line in whole.split(b"\n"):
                if (level := level_of_line(line)) is not None:
                    self._level = LogLevel(level).name
                self.lines[self._level.lower()] += 1
            position += len(whole) + 1 if newline else len(chunk)
        return position
