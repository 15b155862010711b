"""What this machine remembers of a project's deployments to a cluster: history, journal, and a lock.

The history is append-only, a JSON document a line: a record is written before the first write to the cluster, its
outcome at the end. The journal says which restarts are owed: a bot that was changed, or whose variables were, runs on
with what it had until it is restarted, and the cluster doesn't tell. Neither file ever holds a value of a variable.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from ape_silverback.deployment.plan import Plan, RecordedBot, RecordedState
from ape_silverback.exceptions import DeployError, FileError, FileLocked
from ape_silverback.files import locked, make_private_folder, write_private


class Record(BaseModel):
    """One deployment.

    Attributes:
        id: number of the deployment, from 1 on.
        by: who deployed, as ``user@machine``.
        what: the command: ``deploy``, or ``rollback to 3``.
        commit: git commit of the project, where there is one.
        dirty: whether the project had changes that weren't committed.
        restores: number of the deployment that it went back to.
        bots: every bot that the project has on the cluster after it, by name.
        leaving: the bots that it removes.
        groups: every variable group that the project made there → names of its variables.
        digests: name of a bot → digest of its image, where an engine could tell.
        outcome: name of each thing that it touched → what became of it; None for a deployment that was cut off.
    """

    version: int = 1
    id: int
    time: datetime
    by: str
    what: str = "deploy"
    target: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    restores: int | None = None
    bots: dict[str, RecordedBot] = Field(default_factory=dict)
    leaving: dict[str, RecordedBot] = Field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    digests: dict[str, str] = Field(default_factory=dict)
    outcome: dict[str, str] | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it ended, and nothing of it failed or was left out."""
        return self.outcome is not None and not any(
            text.startswith(("failed", "skipped", "rolled-back")) for text in self.outcome.values()
        )


@dataclass(frozen=True)
class Source:
    """Where a deployment comes from, for its record."""

    what: str = "deploy"
    target: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    restores: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


UNKNOWN_SOURCE = Source()


class Records:
    """Records of the deployments of one project to one cluster.

    Args:
        folder: where they are; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._history = folder / "history.jsonl"
        self._journal = folder / "journal.jsonl"
        self._lock_file = folder / "lock"
        self._writing = threading.Lock()

    @classmethod
    def of(cls, folder: Path, project: str, cluster: str) -> Records:
        """Give the records of a project's deployments to a cluster.

        Args:
            folder: where all records are.
            project: name of the Ape project.
            cluster: what tells the cluster from others: its address, without secrets.
        """
        readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{project} {cluster.partition('://')[2] or cluster}").strip("-")[:80]
        distinct = hashlib.sha256(f"{project}\0{cluster}".encode()).hexdigest()[:10]
        return cls(folder / f"{readable}-{distinct}")

    # The lock

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to deploy; the file stays behind.

        Raises:
            DeployError: another deployment of this project to this cluster runs; names who runs it.
            FileError: the file can't be written.
        """
        who = f"{_who()}, process {os.getpid()}, since {datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        with ExitStack() as held:
            try:
                held.enter_context(locked(self._lock_file, holder=who))
            except FileLocked as error:
                holder = error.holder or "another process"
                raise DeployError(f"this project is being deployed to this cluster already, by {holder}") from None
            yield

    # The history

    def history(self) -> list[Record]:
        """Give every deployment that is remembered, the oldest first.

        Raises:
            FileError: the file can't be read, or holds something else.
        """
        records: dict[int, dict[str, Any]] = {}
        for line in _lines(self._history):
            number = line.get("id")
            if isinstance(number, int):
                records[number] = {**records.get(number, {}), **line}
        try:
            return [Record.model_validate(record) for record in records.values()]
        except ValidationError as error:
            raise FileError(f"{self._history}: not a history of deployments: {error.errors()[0]['msg']}") from None

    def known(self) -> RecordedState:
        """Give what a plan has to know of earlier deployments."""
        history = self.history()
        if not history:
            return RecordedState(pending_restarts=self.pending_restarts())
        last = history[-1]
        return RecordedState(
            bots={**last.bots, **last.leaving}, groups=last.groups, pending_restarts=self.pending_restarts()
        )

    def begin(self, source: Source, plan: Plan) -> Record:
        """Write down that a deployment begins, and what it is to reach; give its record."""
        before = self.history()
        record = Record(
            id=before[-1].id + 1 if before else 1,
            time=datetime.now(timezone.utc),
            by=_who(),
            what=source.what,
            target=source.target,
            commit=source.commit,
            dirty=source.dirty,
            restores=source.restores,
            bots=plan.bots,
            leaving=plan.leaving,
            groups=plan.groups,
            digests=dict(source.digests),
        )
        self._append(self._history, record.model_dump(mode="json", exclude={"outcome"}))
        return record

    def end(self, record: Record, outcome: Mapping[str, str]) -> None:
        """Write down how a deployment ended."""
        self._append(self._history, {"id": record.id, "outcome": dict(outcome)})

    # The journal

    def begin_action(self, kind: str, name: str, owes: Mapping[str, str]) -> None:
        """Write down that an action is about to be done, and the restarts that are owed once it is.

        Args:
            kind: kind of the action.
            name: bot or variable group.
            owes: id of each bot that has to be restarted then → why.
        """
        self._append(self._journal, {"begin": kind, "name": name, **({"owes": dict(owes)} if owes else {})})

    def end_action(self, kind: str, name: str, settles: str | None = None) -> None:
        """Write down that an action was done, and the id of the bot whose restart is no longer owed."""
        self._append(self._journal, {"end": kind, "name": name, **({"settles": settles} if settles else {})})

    def pending_restarts(self) -> dict[str, str]:
        """Give the id of each bot that runs with what it had before a change → why it has to be restarted."""
        pending_restarts: dict[str, str] = {}
        for line in _lines(self._journal):
            pending_restarts |= line.get("owes") or {}
            pending_restarts.pop(line.get("settles", ""), None)
        return pending_restarts

    def unfinished(self) -> list[str]:
        """Give the actions of the last deployment that were begun, and of which no end is known."""
        begun: dict[tuple[str, str], str] = {}
        for line in _lines(self._journal):
            if "begin" in line:
                begun[line["begin"], line["name"]] = f"{line['begin']} {line['name']}"
            elif "end" in line:
                begun.pop((line["end"], line["name"]), None)
        return list(begun.values())

    def restart_journal(self) -> None:
        """Begin the journal of a deployment: what is owed stays."""
        pending_restarts = self.pending_restarts()
        line = {"begin": "carry", "name": "", "owes": pending_restarts}
        write_private(
            self._journal,
            f"{json.dumps(line)}\n{json.dumps({'end': 'carry', 'name': ''})}\n" if pending_restarts else "",
        )

    def _append(self, file: Path, line: Mapping[str, Any]) -> None:
        """Add a line in one write, so that a process that is killed leaves a whole line or none."""
        data = f"{json.dumps(line, ensure_ascii=False)}\n".encode()
        try:
            make_private_folder(self.folder)
            with self._writing:
                torn = _is_torn(file)
                handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(handle, b"\n" + data if torn else data)
                finally:
                    os.close(handle)
        except OSError as error:
            raise FileError(f"{file}: can't be written: {error.strerror}") from error


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Give the documents of a file; one that was torn in the middle of writing is left out."""
    try:
        text = file.read_text(encoding="utf8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: can't be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            yield document


def _is_torn(file: Path) -> bool:
    """Say whether the last line was cut off, as by a full disk."""
    try:
        with file.open("rb") as content:
            return content.seek(0, os.SEEK_END) > 0 and content.seek(-1, os.SEEK_END) >= 0 and content.read() != b"\n"
    except FileNotFoundError:
        return False


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = str(os.getuid())
    return f"{user}@{platform.node() or 'localhost'}"
