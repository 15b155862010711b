"""Copies what an engine keeps of a container's output into a bot's log, each line once, also after kills.

An engine stamps each line with nanoseconds, which makes a line unique. How far the copy is gets written down now and
then; reading goes on from there and skips the lines that are in the log already.
"""

from __future__ import annotations

import json
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from ape_silverback.server.runtimes.reports import Reports
from ape_silverback.server.runtimes.shim import LogWriter, numbers_of

STARTED = b"Startup complete"
"""What the bot SDK logs when its start is complete."""

MARK_EVERY = 0.5
"""Seconds between two notes of how far a copy is."""

MARK_BYTES = 256 * 1024
"""Bytes of a log after which that is noted in any case: no more than this is ever looked through."""

LONGEST_PART = 64 * 1024
"""Bytes of a line after which it is written, ended or not."""

AGAIN = 1.0
"""Seconds between two attempts to reach an engine."""

HEADER = struct.Struct(">BxxxL")
"""What comes before each part of a container's output in the Engine API: the stream, and the length of the part."""

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")


class Answer(Protocol):
    """An engine's answer that is read while it comes."""

    @property
    def raw(self) -> IO[bytes]:
        """What is read."""

    def close(self) -> None:
        """End it."""


Follow = Callable[[str], Answer]
"""Asks the engine for a container's output from a time on, ``2026-01-31T23:59:59.123456789Z``, until it ends."""


class EngineLog:
    """Follows one container's output into a bot's log, in a thread.

    Args:
        folder: of the bot.
        source: id of the container or task.
        follow: asks the engine.
        ended: whether the container has ended, so that an answer that ended is complete.
        size: bytes of the bot's log.
    """

    def __init__(self, folder: Path, source: str, follow: Follow, ended: Callable[[], bool], size: int) -> None:
        self.size = size
        self.folder = folder
        self.source = source
        self.follow = follow
        self.ended = ended
        self._closed = threading.Event()
        self._complete = threading.Event()
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._run, name=f"log of {source[:12]}", daemon=True)
        self._thread.start()

    @property
    def complete(self) -> bool:
        """Whether all of an ended container's output is in the log."""
        return self._complete.is_set()

    def finish(self) -> None:
        """Ask the engine anew: an answer that follows a container that has ended may never end itself."""
        if answer := self._answer:
            with suppress(Exception):  # in any state
                answer.close()

    def close(self) -> None:
        """End the copy; the next one goes on from there."""
        self._closed.set()
        self.finish()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._closed.is_set():
            ended = self.ended()
            with suppress(Exception):  # the engine or the node is away: ask again
                self._copy()
                if ended or (self.ended() and self._copy()):
                    self._complete.set()
                    return
            self._closed.wait(AGAIN)

    def _copy(self) -> bool:
        """Copy what the engine has, and follow while it answers."""
        log = Writer(self.folder, self.source, self.size)
        try:
            self._answer = self.follow(log.mark)
            for stamp, line in lines_of(self._answer.raw):
                log.write(stamp, line)
        finally:
            log.close()
            if answer := self._answer:
                answer.close()
        return True


class Writer:
    """Appends a container's lines to a bot's log, and notes how far that is.

    Args:
        folder: of the bot.
        source: id of the container or task.
        size: bytes of the bot's log.
    """

    def __init__(self, folder: Path, source: str, size: int) -> None:
        self.folder = folder
        self.source = source
        self.mark = _marks(folder).get(source, "")
        """Stamp of a line that is in the log, and all before it; empty for none."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._there = _lines_after(folder / "log", self.mark)
        self._log = LogWriter(str(folder / "log"), size)
        self._reports = Reports(folder / "work", source)
        self._last = self.mark
        self._unmarked = 0
        self._marked_at = time.monotonic()

    def write(self, stamp: str, line: bytes) -> None:
        """Write a line, unless it is there or is a report."""
        try:
            kept = self._reports.take(line)
        except OSError:  # a full disk, which costs reports
            kept = None
        entry = stamp.encode() + b" " + (kept or b"") + b"\n"
        if kept is not None and entry not in self._there:
            self._log.write_stamped(entry)
            self._unmarked += len(entry)
            if STARTED in line:
                _write(self.folder / "ready", self.source)
        self._last = max(self._last, stamp)
        if self._unmarked > MARK_BYTES or time.monotonic() - self._marked_at > MARK_EVERY:
            self._note()

    def close(self) -> None:
        """Note how far it is, and close the log."""
        self._note()
        self._log.close()

    def _note(self) -> None:
        if self._last != self.mark:
            self.mark = self._last
            _write(self.folder / "copied.json", json.dumps({**_marks(self.folder), self.source: self.mark}))
        self._unmarked, self._marked_at = 0, time.monotonic()


def _lines_after(base: Path, stamp: str) -> set[bytes]:
    """Return the lines at the end of a log that another copy wrote after it last noted how far it was."""
    found: set[bytes] = set()
    left = 2 * MARK_BYTES + LONGEST_PART
    for number in sorted(numbers_of(str(base)), reverse=True):
        with base.with_name(f"{base.name}.{number}").open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - left))
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) != len(content):  # a line that a full disk or a kill cut short
                file.truncate(size - len(content) + len(whole))
        found.update(line for line in whole.splitlines(keepends=True) if line[: len(stamp)] >= stamp.encode())
        left -= len(content)
        if left <= 0:
            break
    return found


def lines_of(raw: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield stamp and text of each line of a container's output, as it comes in the frames of the Engine API.

    A long line comes in several frames, each with a stamp.
    """
    stamp, pending = "", b""
    while header := _exactly(raw, HEADER.size):
        _, size = HEADER.unpack(header)
        frame = _exactly(raw, size)
        found, _, text = frame.partition(b" ")
        if not pending:
            stamp = normal_stamp(found)
        pending += text
        if pending.endswith(b"\n") or len(pending) >= LONGEST_PART:
            yield stamp, pending.rstrip(b"\r\n").replace(b"\n", b" ")
            pending = b""
    if pending:
        yield stamp, pending


def normal_stamp(stamp: bytes) -> str:
    """Return an engine's time with all nine digits of its nanoseconds, so that times compare as texts do.

    Raises:
        ValueError: it isn't one.
    """
    if (match := _STAMP.fullmatch(stamp)) is None:
        raise ValueError(f"not a time of the engine: {stamp!r}")
    return f"{match[1].decode()}.{(match[2] or b'').decode():0<9}Z"


def _exactly(raw: IO[bytes], size: int) -> bytes:
    """Read so many bytes; nothing at the end."""
    content = b""
    while len(content) < size:
        part = raw.read(size - len(content))
        if not part:
            return b""
        content += part
    return content


def _marks(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / "copied.json").read_text(encoding="utf8")))
    except (FileNotFoundError, ValueError):
        return {}


def _write(file: Path, text: str) -> None:
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(text, encoding="utf8")
    draft.replace(file)
