"""What a cluster knows: its bots, variable groups and registry credentials.

Values of variables and passwords are encrypted at rest, with a key in its own file.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from ape_silverback.cluster.types import (
    BotConfiguration,
    BotTaskStatus,
    ResourceStatus,
    RestartStatus,
)
from ape_silverback.exceptions import LocalClusterError
from ape_silverback.files import write_private
from ape_silverback.server.database import Database, now
from ape_silverback.server.schema import MIGRATIONS

EVENTS_KEPT = 500
"""Events of a bot that are kept, the last ones."""


class UnreadableError(Exception):
    """A value can't be decrypted."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a bot.

    Attributes:
        kind: ``started``, ``running``, ``stopped``, ``crashed``, ``gave-up``, ``circuit-breaker``, ``ended``,
            ``unhealthy``, ``recovered`` or ``removed``.
        reason: why, in one line.
    """

    bot: uuid.UUID
    name: str
    time: datetime
    kind: str
    reason: str | None = None


@dataclass(frozen=True)
class RemovedBot:
    """What is left of a bot that was removed, besides its log."""

    id: uuid.UUID
    name: str
    removed: datetime
    errors: tuple[str, ...]


@dataclass(frozen=True)
class BotRecord:
    """A bot of the store.

    Attributes:
        wanted: whether it should run, as its user last asked.
    """

    id: uuid.UUID
    name: str
    created: datetime
    configuration: BotConfiguration
    status: ResourceStatus
    wanted: bool
    task: BotTaskStatus
    restarts: RestartStatus = field(default_factory=RestartStatus)


@dataclass(frozen=True)
class GroupRecord:
    """A variable group of the store, without its values."""

    id: uuid.UUID
    name: str
    created: datetime
    revision: int
    variables: tuple[str, ...]


@dataclass(frozen=True)
class CredentialRecord:
    """Registry credentials of the store, without the password."""

    id: str
    name: str
    created: datetime
    updated: datetime
    hostname: str
    email: str
    username: str


class Store(Database):
    """The database of one cluster.

    Args:
        folder: holds the database and the key; made when it isn't there.
        with_secret: whether values are to be read or written.

    Raises:
        LocalClusterError: the database can't be opened, or was made by a newer version of this package; or the key that
            values are encrypted with is broken.

    Attributes:
        id: identifies the cluster, at every address and in every copy of it.
    """

    def __init__(self, folder: Path, *, with_secret: bool = True) -> None:
        super().__init__(folder / "cluster.db", MIGRATIONS)
        self.folder = folder
        self._known: dict[uuid.UUID, BotRecord] | None = None
        self._known_states: dict[uuid.UUID, dict[str, Any]] | None = None
        if with_secret:
            self._secret = _secret_key(folder / "secret.key")
        self.id = uuid.UUID(self.rows("SELECT id FROM cluster")[0]["id"])

    # Bots

    def bots(self) -> list[BotRecord]:
        """Return all bots, the oldest first. The database is read only after a change."""
        return list(self._bots().values())

    def bot(self, bot: uuid.UUID) -> BotRecord | None:
        """Return one bot."""
        return self._bots().get(bot)

    def _bots(self) -> dict[uuid.UUID, BotRecord]:
        with self._lock:
            if (known := self._known) is None:
                query = "SELECT * FROM bots ORDER BY created, name"
                known = {bot.id: bot for bot in map(_bot, self.rows(query))}
                if not self._depth:  # what a transaction sees may be undone
                    self._known = known
            return known

    def _bots_changed(self) -> None:
        self._known = self._known_states = None

    def add_bot(self, name: str, configuration: BotConfiguration, bot: uuid.UUID | None = None) -> BotRecord:
        """Add a bot that was just created, under an id that is free; None for a new one.

        Raises:
            NameTakenError: the name is taken.
        """
        identity = str(bot or uuid.uuid4())
        task = _new_task(ResourceStatus.CREATED).model_dump_json()
        values = (identity, name, now(), configuration.model_dump_json(), ResourceStatus.CREATED, True, task)
        columns = "id, name, created, configuration, status, wanted, task"
        with self.transaction() as db:
            query = f"INSERT INTO bots ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
            self._bots_changed()
            db.execute(query, values)
            [row] = self.rows("SELECT * FROM bots WHERE id = ?", identity)
        return _bot(row)

    def change_bot(self, bot: uuid.UUID, name: str, configuration: BotConfiguration) -> None:
        """Change name and configuration of a bot.

        Raises:
            NameTakenError: the name is taken.
        """
        with self.transaction() as db:
            self._bots_changed()
            values = (name, configuration.model_dump_json(), str(bot))
            db.execute("UPDATE bots SET name = ?, configuration = ? WHERE id = ?", values)

    def set_bot_state(self, bot: uuid.UUID, task: BotTaskStatus, wanted: bool) -> None:
        """Record the state of a bot; its status is the task's last one."""
        with self.transaction() as db:
            self._bots_changed()
            values = (ResourceStatus[task.last_status], wanted, task.model_dump_json(), str(bot))
            db.execute("UPDATE bots SET status = ?, wanted = ?, task = ? WHERE id = ?", values)

    def set_restarts(self, bot: uuid.UUID, restarts: RestartStatus) -> None:
        """Record how often a bot crashed, and when it is started again."""
        with self.transaction() as db:
            self._bots_changed()
            db.execute("UPDATE bots SET restarts = ? WHERE id = ?", (restarts.model_dump_json(), str(bot)))

    def remove_bot(self, bot: uuid.UUID) -> None:
        """Remove a bot."""
        with self.transaction() as db:
            self._bots_changed()
            db.execute("DELETE FROM bots WHERE id = ?", (str(bot),))
            db.execute("DELETE FROM runtime_states WHERE bot = ?", (str(bot),))

    # What happened to bots

    def add_event(self, event: Event) -> None:
        """Keep an event, and drop the bot's oldest ones."""
        row = (str(event.bot), event.name, event.time.isoformat(), event.kind, event.reason)
        with self.transaction() as db:
            db.execute("INSERT INTO events (bot, name, time, kind, reason) VALUES (?, ?, ?, ?, ?)", row)
            oldest = "SELECT id FROM events WHERE bot = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
            db.execute(f"DELETE FROM events WHERE bot = ? AND id <= ({oldest})", (row[0], row[0], EVENTS_KEPT))  # noqa: S608 - ours

    def events(self, bot: uuid.UUID) -> list[Event]:
        """Return what happened to a bot, the oldest first."""
        rows = self.rows("SELECT * FROM events WHERE bot = ? ORDER BY id", str(bot))
        return [
            Event(bot, row["name"], datetime.fromisoformat(row["time"]), row["kind"], row["reason"]) for row in rows
        ]

    def add_removed_bot(self, bot: BotRecord, errors: Sequence[str]) -> None:
        """Keep what is left of a bot that is removed."""
        row = (str(bot.id), bot.name, now(), json.dumps(list(errors)))
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO removed_bots VALUES (?, ?, ?, ?)", row)

    def removed_bots(self) -> list[RemovedBot]:
        """Return the removed bots of which something is kept, the one removed first first."""
        return [
            RemovedBot(
                uuid.UUID(row["id"]),
                row["name"],
                datetime.fromisoformat(row["removed"]),
                tuple(json.loads(row["errors"])),
            )
            for row in self.rows("SELECT * FROM removed_bots ORDER BY removed")
        ]

    def forget_removed_bot(self, bot: uuid.UUID) -> None:
        """Drop what is kept of a removed bot, with its events."""
        with self.transaction() as db:
            db.execute("DELETE FROM removed_bots WHERE id = ?", (str(bot),))
            db.execute("DELETE FROM events WHERE bot = ?", (str(bot),))

    def runtime_states(self) -> dict[uuid.UUID, dict[str, Any]]:
        """Return what the runtime remembers of each bot; empty for those of which it remembers nothing."""
        with self._lock:
            if (known := self._known_states) is None:
                kept = {
                    uuid.UUID(row["bot"]): json.loads(row["state"]) for row in self.rows("SELECT * FROM runtime_states")
                }
                known = {bot: kept.get(bot, {}) for bot in self._bots()}
                if not self._depth:
                    self._known_states = known
            return dict(known)

    def runtime_state(self, bot: uuid.UUID) -> dict[str, Any]:
        """Return what the runtime remembers of a bot; empty for nothing."""
        rows = self.rows("SELECT state FROM runtime_states WHERE bot = ?", str(bot))
        return dict(json.loads(rows[0]["state"])) if rows else {}

    def set_runtime_state(self, bot: uuid.UUID, state: Mapping[str, Any]) -> None:
        """Keep what the runtime has to remember of a bot."""
        with self.transaction() as db:
            self._known_states = None
            db.execute("INSERT OR REPLACE INTO runtime_states VALUES (?, ?)", (str(bot), json.dumps(dict(state))))

    def acknowledge_errors(self, bot: uuid.UUID) -> None:
        """Write down that the errors of a bot so far are known to its user."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO acknowledgements VALUES (?, ?)", (str(bot), now()))

    def acknowledged(self, bot: uuid.UUID) -> datetime | None:
        """Return up to when the errors of a bot are known to its user; None if none are."""
        rows = self.rows("SELECT time FROM acknowledgements WHERE bot = ?", str(bot))
        return datetime.fromisoformat(rows[0]["time"]) if rows else None

    # Variable groups

    def groups(self) -> list[GroupRecord]:
        """Return all variable groups, the oldest first."""
        return [_group(row) for row in self.rows("SELECT * FROM groups ORDER BY created, name")]

    def group(self, group: uuid.UUID) -> GroupRecord | None:
        """Return one variable group."""
        return next((_group(row) for row in self.rows("SELECT * FROM groups WHERE id = ?", str(group))), None)

    def add_group(self, name: str, values: Mapping[str, str], group: uuid.UUID | None = None) -> GroupRecord:
        """Add a variable group, under an id that is free; None for a new one.

        Raises:
            NameTakenError: the name is taken.
        """
        identity = str(group or uuid.uuid4())
        row = (identity, name, now(), 1, json.dumps(sorted(values)), self._encrypt(values))
        with self.transaction() as db:
            db.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?)", row)
        [found] = self.rows("SELECT * FROM groups WHERE id = ?", identity)
        return _group(found)

    def change_group(self, group: uuid.UUID, changes: Mapping[str, str | None]) -> None:
        """Set variables of a group, and remove those that are None: a new revision."""
        with self.transaction() as db:
            rows = db.execute("SELECT content FROM groups WHERE id = ?", (str(group),)).fetchall()
            if not rows:
                return
            try:
                merged = {**self._decrypt(rows[0]["content"]), **changes}
            except UnreadableError:  # there is nothing to keep
                merged = dict(changes)
            values = {name: value for name, value in merged.items() if value is not None}
            db.execute(
                "UPDATE groups SET revision = revision + 1, names = ?, content = ? WHERE id = ?",
                (json.dumps(sorted(values)), self._encrypt(values), str(group)),
            )

    def remove_group(self, group: uuid.UUID) -> None:
        """Remove a variable group."""
        with self.transaction() as db:
            db.execute("DELETE FROM groups WHERE id = ?", (str(group),))

    def values_of(self, group: str) -> dict[str, str]:
        """Return the values of the group of a name.

        Raises:
            LookupError: the group doesn't exist.
            UnreadableError: they can't be decrypted.
        """
        rows = self.rows("SELECT content FROM groups WHERE name = ?", group)
        if not rows:
            raise LookupError(f"there is no variable group '{group}'")
        return self._decrypt(rows[0]["content"])

    # Registry credentials

    def credentials(self) -> list[CredentialRecord]:
        """Return all registry credentials, the oldest first."""
        return [_credential(row) for row in self.rows("SELECT * FROM credentials ORDER BY created, name")]

    def credential(self, name: str) -> CredentialRecord | None:
        """Return registry credentials by name."""
        return next((_credential(row) for row in self.rows("SELECT * FROM credentials WHERE name = ?", name)), None)

    def password_of(self, credential: str) -> str:
        """Return the password of registry credentials, by their name."""
        [row] = self.rows("SELECT password FROM credentials WHERE name = ?", credential)
        return self._decrypt(row["password"])["password"]

    def add_credential(self, name: str, hostname: str, email: str, username: str, password: str) -> None:
        """Add registry credentials.

        Raises:
            NameTakenError: the name is taken.
        """
        created = now()
        row = (
            str(uuid.uuid4()),
            name,
            created,
            created,
            hostname,
            email,
            username,
            self._encrypt({"password": password}),
        )
        with self.transaction() as db:
            db.execute("INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def change_credential(self, name: str, changes: Mapping[str, str | None]) -> None:
        """Change what is given of registry credentials; None keeps a value."""
        given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        if "password" in given:
            given["password"] = self._encrypt({"password": given["password"]})
        columns = ", ".join(f"{key} = ?" for key in given)
        with self.transaction() as db:
            db.execute(
                f"UPDATE credentials SET {columns + ', ' if columns else ''}updated = ? WHERE name = ?",  # noqa: S608 - keys are ours
                (*given.values(), now(), name),
            )

    def remove_credential(self, name: str) -> None:
        """Remove registry credentials."""
        with self.transaction() as db:
            db.execute("DELETE FROM credentials WHERE name = ?", (name,))

    def _encrypt(self, values: Mapping[str, str]) -> bytes:
        return self._secret.encrypt(json.dumps(dict(values)).encode())

    def _decrypt(self, content: bytes) -> dict[str, str]:
        try:
            values: dict[str, str] = json.loads(self._secret.decrypt(content))
        except InvalidToken:
            raise UnreadableError("it was encrypted with another secret.key; set its values again") from None
        return values


def _new_task(status: ResourceStatus) -> BotTaskStatus:
    return BotTaskStatus(
        last_status=status.name,
        exit_code=None,
        reason=None,
        started_at=None,
        stop_code=None,
        stopped_at=None,
        stopped_reason=None,
    )


def _bot(row: sqlite3.Row) -> BotRecord:
    return BotRecord(
        id=uuid.UUID(row["id"]),
        name=row["name"],
        created=datetime.fromisoformat(row["created"]),
        configuration=BotConfiguration.model_validate_json(row["configuration"]),
        status=ResourceStatus(row["status"]),
        wanted=bool(row["wanted"]),
        task=BotTaskStatus.model_validate_json(row["task"]),
        restarts=RestartStatus.model_validate_json(row["restarts"]),
    )


def _group(row: sqlite3.Row) -> GroupRecord:
    created = datetime.fromisoformat(row["created"])
    return GroupRecord(uuid.UUID(row["id"]), row["name"], created, row["revision"], tuple(json.loads(row["names"])))


def _credential(row: sqlite3.Row) -> CredentialRecord:
    values = {key: row[key] for key in ("id", "name", "hostname", "email", "username")}
    created, updated = (datetime.fromisoformat(row[key]) for key in ("created", "updated"))
    return CredentialRecord(**values, created=created, updated=updated)


def _secret_key(file: Path) -> Fernet:
    """Return the key that encrypts values; made when there is none.

    Raises:
        LocalClusterError: the file doesn't hold a key.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        content = Fernet.generate_key()
        write_private(file, content.decode())
    except OSError as error:
        raise LocalClusterError(f"{file} can't be read: {error.strerror}") from error
    try:
        return Fernet(content)
    except ValueError as error:
        raise LocalClusterError(
            f"{file} doesn't hold a key, so no variable of the cluster can be read; restore it from a copy, or "
            "delete it and set the values of all variable groups and credentials again"
        ) from error
