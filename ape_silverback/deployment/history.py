"""The record of a project's deployments to a cluster: who deployed what, when, and what it left.

A record is written before the first write to the cluster, and its outcome at the end; of one that was cut off the
journal shows how far it got. Nothing here ever holds a value of a variable, only keyed fingerprints.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from ape_silverback.cluster.http_errors import first_problem
from ape_silverback.deployment.earlier import read_earlier
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.journal import ActionJournal
from ape_silverback.deployment.left import bots_left, bots_with_creations, groups_left, groups_with_creations
from ape_silverback.deployment.lines import FileLines, Lines
from ape_silverback.deployment.plan import Plan
from ape_silverback.deployment.record import Record, Source
from ape_silverback.deployment.state import PendingRestart, RecordedBot, RecordedGroup, RecordedState
from ape_silverback.exceptions import DeployError, FileError, FileLocked
from ape_silverback.files import locked, write_private

IDENTITY = "project.json"
"""File that names the project and the cluster of a folder of records. It may be edited, for example after a move."""


class Records:
    """Records of the deployments of one project to one cluster.

    Args:
        folder: where they are; made when something is written.
        about: what is written into ``IDENTITY`` there.
        earlier: history of a version that told projects apart by the folder's name, which this one continues.
        kept: where the history is kept, when that isn't the folder.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, str] | None = None,
        earlier: Path | None = None,
        kept: Lines | None = None,
    ) -> None:
        self.folder = folder
        self.about = dict(about or {})
        self.journal = ActionJournal(folder / "journal.jsonl")
        self._file = FileLines(folder / "history.jsonl")
        self._kept: Lines = kept or self._file
        self._lock_file = folder / "lock"
        self._earlier = earlier

    @classmethod
    def of(
        cls,
        root: Path,
        name: str,
        project: str,
        cluster: str,
        kept: Lines | None = None,
        address: str | None = None,
    ) -> Records:
        """Return the records of a project's deployments to a cluster.

        Args:
            root: folder with the records of all projects.
            name: name of the project.
            project: identity of the project.
            cluster: identity of the cluster: its id, or its address without secrets.
            kept: where the history is kept, when that isn't the folder.
            address: address of a cluster that has an id. What was recorded under it, before there were ids, goes on.
        """
        address = address or cluster
        about = {"project": project, "cluster": cluster, "name": name}
        if address != cluster:
            about["address"] = address
        found = _folder_about(root, project, cluster) or _folder_about(root, project, address)
        folder = found or root / f"{_readable(name, address)}-{_digest(project, cluster)}"
        first = str(_about(folder / IDENTITY).get("address") or address)  # the one that its records began under
        earlier = root / f"{_readable(name, first)}-{_digest(name, first)}"
        return cls(folder, about, earlier if earlier != folder and earlier.is_dir() else None, kept)

    # The lock

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to deploy; the file stays behind.

        Raises:
            DeployError: another deployment of this project to this cluster runs; names who runs it.
            FileError: the file can't be written.
        """
        now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        try:
            with locked(self._lock_file, holder=f"{_who()}, process {os.getpid()}, since {now}"):
                yield
        except FileLocked as error:
            holder = error.holder or "another process"
            raise DeployError(f"this project is being deployed to this cluster already, by {holder}") from None

    # The history

    def history(self) -> list[Record]:
        """Return every recorded deployment, the oldest first.

        Raises:
            FileError: the file can't be read, or holds something else.
        """
        records = _parse(self._kept.read(), self.folder)
        if self._kept is not self._file:  # what was recorded here before the cluster kept it
            first = records[0].id if records else None
            before = [one for one in _parse(self._file.read(), self.folder) if first is None or one.id < first]
            records = [*before, *records]
        return [*read_earlier(self._earlier, before=records[0].id if records else None), *records]

    def known(self) -> RecordedState:
        """Return what the last deployment left, as far as it came."""
        history = self.history()
        if not history:
            return RecordedState()
        last = history[-1]
        origin = None if last.version > 1 else str(self._earlier)
        bots, groups, pending = (*last.bots, *last.leaving), last.groups, last.pending
        if last.version == 1 and self._earlier is not None:
            pending = _pending(ActionJournal(self._earlier / "journal.jsonl").pending_restarts(), last)
        elif last.outcome is None:
            bots, groups, pending = self._cut_off(last)
        return RecordedState(bots, groups, pending, last.id, origin)

    def _cut_off(
        self, last: Record
    ) -> tuple[tuple[RecordedBot, ...], dict[str, RecordedGroup], dict[UUID, PendingRestart]]:
        """Return the bots, the groups, and the restarts that are owed, after a deployment whose end isn't known."""
        bots = (*last.bots, *last.leaving)
        if not self.journal.belongs_to(last.id):  # it was cut off on another machine: anything may have been begun
            return bots, last.groups, {**last.pending, **last.owes}
        settled = self.journal.settled()
        carried = {identity: one for identity, one in last.pending.items() if identity not in settled}
        return (
            tuple(bots_with_creations(bots, last, self.journal)),
            groups_with_creations(last.groups, self.journal),
            {**carried, **_pending(self.journal.pending_restarts(), last)},
        )

    def unfinished(self) -> list[str]:
        """Return the actions of the last deployment that were begun, and of which no end is known."""
        history = self.history()
        if not history or history[-1].outcome is not None or not self.journal.belongs_to(history[-1].id):
            return []
        return self.journal.unfinished()

    def begin(self, source: Source, plan: Plan) -> Record:
        """Record that a deployment begins and what it is to reach; return its record."""
        known, history = self.known(), self.history()
        record = Record(
            id=history[-1].id + 1 if history else 1,
            time=datetime.now(timezone.utc),
            by=_who(),
            what=source.what,
            target=plan.target,
            selected=source.selected,
            commit=source.commit,
            dirty=source.dirty,
            restores=source.restores,
            bots=plan.bots,
            leaving=plan.leaving,
            groups=plan.groups,
            owes=plan.owes,
            origins=plan.origins,
            pending={bot: one for bot, one in known.pending_restarts.items() if bot not in plan.settled},
            digests=dict(source.digests),
        )
        if self.about and _about(self.folder / IDENTITY).get("cluster") != self.about["cluster"]:
            write_private(self.folder / IDENTITY, f"{json.dumps(self.about, indent=2)}\n")
        self.journal.restart(record.id)
        self._kept.append(record.model_dump(mode="json", exclude={"outcome"}))
        return record

    def end(self, record: Record, plan: Plan, events: Mapping[str, Event], before: RecordedState) -> None:
        """Record how a deployment ended, and what it left.

        Args:
            record: its record.
            plan: what it was to do.
            events: name of each thing that it touched → the last that happened to it.
            before: what was recorded before it.
        """
        settled = self.journal.settled()
        pending = {identity: one for identity, one in record.pending.items() if identity not in settled}
        pending |= _pending(self.journal.pending_restarts(), record)
        ended = record.model_copy(
            update={
                "bots": tuple(bots_with_creations(bots_left(record, plan, events, before), record, self.journal)),
                "leaving": (),
                "groups": groups_with_creations(groups_left(record, plan, events, before), self.journal),
                "pending": pending,
                "outcome": {name: f"{event.kind}: {event.text}" for name, event in events.items()},
            }
        )
        fields = {"id", "bots", "leaving", "groups", "pending", "outcome"}
        self._kept.append(ended.model_dump(mode="json", include=fields))


def _pending(restarts: Mapping[UUID, str], record: Record) -> dict[UUID, PendingRestart]:
    return {identity: record.owes.get(identity, PendingRestart(reason=reason)) for identity, reason in restarts.items()}


def _parse(found: Iterable[Mapping[str, Any]], folder: Path) -> list[Record]:
    """Return the deployments that the lines of a history are about; the begin of the oldest may be missing.

    Raises:
        FileError: the lines are something else.
    """
    lines: dict[int, dict[str, Any]] = {}
    for line in found:
        number = line.get("id")
        if isinstance(number, int):
            lines[number] = {**lines.get(number, {}), **line}
    try:
        return [Record.model_validate(line) for line in lines.values() if "time" in line]
    except ValidationError as error:
        raise FileError(f"{folder}: not a history of deployments: {first_problem(error)}") from None


def _folder_about(root: Path, project: str, cluster: str) -> Path | None:
    """Find the folder whose ``IDENTITY`` names a project and a cluster."""
    for file in sorted(root.glob(f"*/{IDENTITY}")):
        about = _about(file)
        if (about.get("project"), about.get("cluster")) == (project, cluster):
            return file.parent
    return None


def _about(file: Path) -> dict[str, Any]:
    """Return what an ``IDENTITY`` file names; nothing where there is none."""
    try:
        about = json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _readable(name: str, address: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{name} {address.partition('://')[2] or address}").strip("-")[:80]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = str(os.getuid())
    return f"{user}@{platform.node() or 'localhost'}"
