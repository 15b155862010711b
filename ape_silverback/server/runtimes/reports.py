"""Takes what a bot in a container reports out of its output, and keeps it where a bot that is a process writes it.

What a container does is brought to the cluster by its engine, from any node, only as lines that it prints. ``sdk.py``
prints signs of work and the result of each task so.
"""

from __future__ import annotations

import json
from pathlib import Path

from ape_silverback.server.health import HEARTBEAT
from ape_silverback.server.metrics import ROTATE_AT, SESSIONS, prune
from ape_silverback.server.runtimes.sdk import MARK

FOLDER = Path(SESSIONS) / "reported"
"""Where the results of tasks are, in a bot's work folder."""

TAIL = 512 * 1024
"""Bytes at the end of what is there in which a result is looked for that comes a second time: more than a copy of a log
gets ahead of what it notes."""


class Reports:
    """What one container reports, or one task of a swarm.

    Args:
        work: the bot's work folder, on the cluster's machine.
        source: id of the container or task.
    """

    def __init__(self, work: Path, source: str) -> None:
        self._work = work
        self._file = work / FOLDER / f"session-{source[:32]}.jsonl"
        self._there = _tail(self._file)
        self._unpruned = 0

    def take(self, line: bytes) -> bytes | None:
        """Take a report out of a line, and return what is left of that for the log; None if nothing is.

        Raises:
            OSError: it can't be kept.
        """
        before, mark, report = line.partition(MARK.encode())
        if not mark:
            return line
        try:
            content = json.loads(report)
        except (ValueError, RecursionError):
            return line
        match content:
            case {"beat": dict(beat)}:
                self._keep_beat(beat)
            case {"task": dict(task)}:
                self._keep_task(task)
            case _:
                return line
        return before or None

    def _keep_beat(self, beat: dict[str, object]) -> None:
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._work / HEARTBEAT
        draft = file.with_name(f"{HEARTBEAT}.new")
        draft.write_text(json.dumps(beat), encoding="utf8")
        draft.replace(file)

    def _keep_task(self, task: dict[str, object]) -> None:
        entry = json.dumps(task).encode() + b"\n"
        if entry in self._there:
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._file.open("ab") as file:  # anew for each: it is moved aside once it is large
            file.write(entry)
        self._unpruned += len(entry)
        if self._unpruned > ROTATE_AT:  # a bot can't fill the cluster's disk between two looks at it
            self._unpruned = 0
            prune(self._work)


def _tail(file: Path) -> set[bytes]:
    try:
        with file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - TAIL))
            return set(content.read().splitlines(keepends=True))
    except FileNotFoundError:
        return set()
