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
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from ape_silverback.deployment.events import Event
from ape_silverback.deployment.journal import ActionJournal
from ape_silverback.deployment.json_lines import append_line, read_lines
from ape_silverback.deployment.plan import Plan, RemoveGroup, UpdateBot, UpdateGroup
from ape_silverback.deployment.state import PendingRestart, RecordedBot, RecordedGroup, RecordedState
from ape_silverback.exceptions import Conflict, DeployError, FileError, FileLocked
from ape_silverback.files import locked, write_private

if TYPE_CHECKING:
    from ape_silverback.cluster.client import ClusterClient

IDENTITY = "project.json"
"""File that names the project and the cluster of a folder of records. It may be edited, for example after a move."""


class Record(BaseModel):
    """A deployment: `history`."""

    version: int = 2
    """Version of the record; 1 for one of a version that knew no ids of bots."""

    id: int
    """Number of the deployment, from 1 on."""

    time: datetime
    """When it began."""

    by: str
    """Who deployed, as `user@machine`."""

    what: str = "deploy"
    """The command: `deploy`, or `rollback to ID`."""

    target: str | None = None
    """Target of the section."""

    selected: tuple[str, ...] = ()
    """Names or globs of the bots that it was about; none for all of them."""

    commit: str | None = None
    """Git commit of the project, where there is one."""

    dirty: bool | None = None
    """Whether the project had changes that weren't committed."""

    restores: int | None = None
    """Number of the deployment that it went back to."""

    bots: tuple[RecordedBot, ...] = ()
    """Every bot that the project has on the cluster after it, of all targets."""

    leaving: tuple[RecordedBot, ...] = ()
    """The bots that it removes, while it goes on."""

    groups: dict[str, RecordedGroup] = Field(default_factory=dict)
    """Every variable group that the project made there, of all targets."""

    owes: dict[UUID, PendingRestart] = Field(default_factory=dict)
    """The restarts that it makes necessary: id of the bot → why."""

    pending: dict[UUID, PendingRestart] = Field(default_factory=dict)
    """The restarts that are owed: before it while it goes on, after it once it ended."""

    origins: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Name of a bot that it was about → where each value that is set of its configuration came from."""

    digests: dict[str, str] = Field(default_factory=dict)
    """Name of a bot → digest of its image, where an engine or the reference has it."""

    outcome: dict[str, str] | None = None
    """Name of each thing that it touched → the last that happened to it; null for a deployment that was cut off."""

    @property
    def succeeded(self) -> bool:
        """Whether it ended, and nothing of it failed or was left out."""
        return self.outcome is not None and not any(
            text.startswith(("failed", "skipped", "rolled-back")) for text in self.outcome.values()
        )

    def of_target(self, target: str | None) -> tuple[RecordedBot, ...]:
        """Return the bots that belong to a target of the section."""
        return tuple(bot for bot in self.bots if bot.target == target)


@dataclass(frozen=True)
class Source:
    """Where a deployment comes from, for its record."""

    what: str = "deploy"
    selected: tuple[str, ...] = ()
    commit: str | None = None
    dirty: bool | None = None
    restores: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


UNKNOWN_SOURCE = Source()


class Lines(Protocol):
    """Where the lines of a history are kept."""

    def read(self) -> list[dict[str, Any]]:
        """Return the lines, the oldest first."""

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line."""


class FileLines:
    """Lines in a file of this machine."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> list[dict[str, Any]]:
        """Return the lines, the oldest first."""
        return list(read_lines(self.file))

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        append_line(self.file, line)


class ClusterLines:
    """Lines that the cluster itself keeps, so that every machine which deploys knows of the others.

    Args:
        client: client of a cluster that announces ``deployments``.
        project: identity of the project.
    """

    def __init__(self, client: ClusterClient, project: str) -> None:
        self._client = client
        self._project = project
        self._lines: list[dict[str, Any]] | None = None
        self._last = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the lines, the oldest first; asked for once.

        Raises:
            ClusterError: the request failed.
        """
        if self._lines is None:
            found = self._client.get_as(dict[str, Any], "/deployments", params={"project": self._project})
            self._last, self._lines = int(found["last"]), [dict(line) for line in found["lines"]]
        return self._lines

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line after those that were read.

        Raises:
            ClusterError: the request failed.
            DeployError: another machine has added one in the meantime.
        """
        lines = self.read()
        params = {"project": self._project, "after": self._last}
        try:
            self._client.call("POST", "/deployments", params=params, json=dict(line), idempotent=True)
        except Conflict as error:
            raise DeployError(f"{error.message}; run deploy again") from error
        self._last += 1
        lines.append(dict(line))


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
    def of(cls, root: Path, name: str, project: str, cluster: str, kept: Lines | None = None) -> Records:
        """Return the records of a project's deployments to a cluster.

        Args:
            root: folder with the records of all projects.
            name: name of the project.
            project: identity of the project.
            cluster: identity of the cluster: its address, without secrets.
            kept: where the history is kept, when that isn't the folder.
        """
        about = {"project": project, "cluster": cluster, "name": name}
        readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{name} {cluster.partition('://')[2] or cluster}").strip("-")[:80]
        folder = _folder_about(root, project, cluster) or root / f"{readable}-{_digest(project, cluster)}"
        earlier = root / f"{readable}-{_digest(name, cluster)}"
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
        return [*_read_earlier(self._earlier, before=records[0].id if records else None), *records]

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
            tuple(_with_creations(bots, last, self.journal)),
            _groups_with_creations(last.groups, self.journal),
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
        if self.about and not (self.folder / IDENTITY).exists():
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
                "bots": tuple(_with_creations(_bots_left(record, plan, events, before), record, self.journal)),
                "leaving": (),
                "groups": _groups_with_creations(_groups_left(record, plan, events, before), self.journal),
                "pending": pending,
                "outcome": {name: f"{event.kind}: {event.text}" for name, event in events.items()},
            }
        )
        fields = {"id", "bots", "leaving", "groups", "pending", "outcome"}
        self._kept.append(ended.model_dump(mode="json", include=fields))


def _bots_left(record: Record, plan: Plan, events: Mapping[str, Event], before: RecordedState) -> Iterator[RecordedBot]:
    """Return the bots as a deployment that ended has really left them."""
    earlier = {bot.id: bot for bot in before.bots if bot.id is not None}
    renamed = {action.name: action.old["name"] for action in plan.of(UpdateBot) if "name" in action.old}
    for bot in record.bots:
        event = events.get(bot.name)
        if event is not None and event.kind == "skipped" and event.text.startswith("not started"):
            if bot.id in earlier:
                yield earlier[bot.id]
            continue
        if not bot.was_there:
            yield bot
        elif event is not None and event.kind == "failed" and bot.previous is not None:
            yield bot  # the change may have been made
        elif any(one.kind == "rolled-back" for one in (event, events.get(str(renamed.get(bot.name)))) if one):
            name = str(renamed.get(bot.name, bot.name))
            yield bot.model_copy(
                update={
                    "name": name,
                    "configuration": bot.previous or bot.configuration,
                    "previous": None,
                    "code": None,
                }
            )
        else:
            yield bot.model_copy(update={"previous": None})
    for bot in record.leaving:
        event = events.get(bot.name)
        if event is None or event.kind != "applied":
            yield bot


def _groups_left(
    record: Record, plan: Plan, events: Mapping[str, Event], before: RecordedState
) -> dict[str, RecordedGroup]:
    """Return the variable groups as a deployment that ended has really left them."""
    removed = {action.name for action in plan.of(RemoveGroup)}
    groups = {
        name: group
        for name, group in record.groups.items()
        if not (name in removed and name in events and events[name].kind == "applied")
    }
    for action in plan.of(UpdateGroup):
        event = events.get(action.name)
        if event is not None and event.kind not in ("applied", "skipped") and action.name in groups:
            groups.pop(action.name)
            if action.name in before.groups:
                groups[action.name] = before.groups[action.name]
    return groups


def _with_creations(bots: Iterable[RecordedBot], record: Record, journal: ActionJournal) -> Iterator[RecordedBot]:
    """Return bots, with what the journal of their deployment shows of those to be created."""
    made, begun = journal.made("create"), journal.begun("create")
    for bot in bots:
        if not bot.creating or bot.target != record.target or bot.begun is not None:
            yield bot
        elif bot.name in made:
            yield bot.model_copy(update={"id": made[bot.name], "creating": False})
        elif bot.name in begun:
            yield bot.model_copy(update={"begun": begun[bot.name]})
        else:
            yield bot.model_copy(update={"id": None, "creating": False})


def _groups_with_creations(groups: Mapping[str, RecordedGroup], journal: ActionJournal) -> dict[str, RecordedGroup]:
    """Return groups, with what the journal of their deployment shows of those to be created."""
    made, begun = journal.made("create-group"), journal.begun("create-group")
    left = {}
    for name, group in groups.items():
        if not group.creating:
            left[name] = group
        elif name in made:
            left[name] = group.model_copy(update={"id": group.id and made[name], "creating": False})
        elif name in begun:
            left[name] = group.model_copy(update={"begun": begun[name]})
    return left


def _pending(restarts: Mapping[UUID, str], record: Record) -> dict[UUID, PendingRestart]:
    return {identity: record.owes.get(identity, PendingRestart(reason=reason)) for identity, reason in restarts.items()}


# Files


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
        raise FileError(f"{folder}: not a history of deployments: {error.errors()[0]['msg']}") from None


def _read_earlier(folder: Path | None, before: int | None) -> list[Record]:
    """Read the history of a version that told projects apart by the folder's name and knew no ids of bots.

    Args:
        folder: where it is.
        before: number of the first deployment that came after it.
    """
    if folder is None:
        return []
    lines: dict[int, dict[str, Any]] = {}
    for line in read_lines(folder / "history.jsonl"):
        number = line.get("id")
        if isinstance(number, int) and line.get("version", 1) == 1 and (before is None or number < before):
            lines[number] = {**lines.get(number, {}), **line}
    targets: dict[str, tuple[Any, str | None]] = {}
    records = []
    for line in lines.values():
        bots = {**(line.get("bots") or {}), **(line.get("leaving") or {})}
        for name, bot in bots.items():  # a deployment changes the bots of its target, and carries the others along
            if targets.get(name, (None, None))[0] != bot:
                targets[name] = bot, line.get("target")
        converted = {
            **line,
            "version": 1,
            "bots": _convert(line.get("bots"), targets),
            "leaving": _convert(line.get("leaving"), targets),
            "groups": {
                name: {"variables": names, "targets": [line.get("target")], "confirmed": False}
                for name, names in (line.get("groups") or {}).items()
            },
        }
        try:
            records.append(Record.model_validate(converted))
        except ValidationError as error:
            where = folder / "history.jsonl"
            raise FileError(f"{where}: not a history of deployments: {error.errors()[0]['msg']}") from None
    return records


def _convert(bots: Any, targets: Mapping[str, tuple[Any, str | None]]) -> list[dict[str, Any]]:
    added = {"confirmed": False, "share_account": True}  # it was allowed
    return [{"name": name, "target": targets[name][1], **added, **bot} for name, bot in (bots or {}).items()]


def _folder_about(root: Path, project: str, cluster: str) -> Path | None:
    """Find the folder whose ``IDENTITY`` names a project and a cluster."""
    for file in sorted(root.glob(f"*/{IDENTITY}")):
        try:
            about = json.loads(file.read_text(encoding="utf8"))
        except (OSError, ValueError):
            continue
        if isinstance(about, dict) and (about.get("project"), about.get("cluster")) == (project, cluster):
            return file.parent
    return None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = str(os.getuid())
    return f"{user}@{platform.node() or 'localhost'}"
