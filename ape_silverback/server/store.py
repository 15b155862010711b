"""What a cluster knows: its bots, variable groups and registry credentials.

Values of variables and passwords are encrypted at rest, with a key in a file of its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from ape_silverback.cluster.types import BotConfiguration, BotTaskStatus, ResourceStatus
from ape_silverback.server.database import Database, now
from ape_silverback.server.schema import MIGRATIONS


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

    Raises:
        LocalClusterError: the database can't be opened, or was made by a newer version of this package.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "cluster.db", MIGRATIONS)
        self._secret = Fernet(_secret_key(folder / "secret.key"))

    # Bots

    def bots(self) -> list[BotRecord]:
        """Return all bots, the oldest first."""
        return [_bot(row) for row in self.rows("SELECT * FROM bots ORDER BY created, name")]

    def bot(self, bot: uuid.UUID) -> BotRecord | None:
        """Return one bot."""
        return next((_bot(row) for row in self.rows("SELECT * FROM bots WHERE id = ?", str(bot))), None)

    def add_bot(self, name: str, configuration: BotConfiguration) -> BotRecord:
        """Add a bot that was just created.

        Raises:
            NameTakenError: the name is taken.
        """
        identity = str(uuid.uuid4())
        task = _new_task(ResourceStatus.CREATED).model_dump_json()
        values = (identity, name, now(), configuration.model_dump_json(), ResourceStatus.CREATED, True, task)
        with self.transaction() as db:
            db.execute("INSERT INTO bots VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        [row] = self.rows("SELECT * FROM bots WHERE id = ?", identity)
        return _bot(row)

    def change_bot(self, bot: uuid.UUID, name: str, configuration: BotConfiguration) -> None:
        """Change name and configuration of a bot.

        Raises:
            NameTakenError: the name is taken.
        """
        with self.transaction() as db:
            values = (name, configuration.model_dump_json(), str(bot))
            db.execute("UPDATE bots SET name = ?, configuration = ? WHERE id = ?", values)

    def set_bot_state(self, bot: uuid.UUID, task: BotTaskStatus, wanted: bool) -> None:
        """Record the state of a bot; its status is the task's last one."""
        with self.transaction() as db:
            values = (ResourceStatus[task.last_status], wanted, task.model_dump_json(), str(bot))
            db.execute("UPDATE bots SET status = ?, wanted = ?, task = ? WHERE id = ?", values)

    def remove_bot(self, bot: uuid.UUID) -> None:
        """Remove a bot."""
        with self.transaction() as db:
            db.execute("DELETE FROM bots WHERE id = ?", (str(bot),))
            db.execute("DELETE FROM runtime_states WHERE bot = ?", (str(bot),))

    def runtime_states(self) -> dict[uuid.UUID, dict[str, Any]]:
        """Return what the runtime remembers of each bot; empty for those of which it remembers nothing."""
        kept = {row["bot"]: json.loads(row["state"]) for row in self.rows("SELECT * FROM runtime_states")}
        return {uuid.UUID(row["id"]): kept.get(row["id"], {}) for row in self.rows("SELECT id FROM bots")}

    def runtime_state(self, bot: uuid.UUID) -> dict[str, Any]:
        """Return what the runtime remembers of a bot; empty for nothing."""
        rows = self.rows("SELECT state FROM runtime_states WHERE bot = ?", str(bot))
        return dict(json.loads(rows[0]["state"])) if rows else {}

    def set_runtime_state(self, bot: uuid.UUID, state: Mapping[str, Any]) -> None:
        """Keep what the runtime has to remember of a bot."""
        with self.transaction() as db:
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

    def add_group(self, name: str, values: Mapping[str, str]) -> GroupRecord:
        """Add a variable group.

        Raises:
            NameTakenError: the name is taken.
        """
        identity = str(uuid.uuid4())
        row = (identity, name, now(), 1, json.dumps(sorted(values)), self._encrypt(values))
        with self.transaction() as db:
            db.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?)", row)
        [found] = self.rows("SELECT * FROM groups WHERE id = ?", identity)
        return _group(found)

    def change_group(self, group: uuid.UUID, changes: Mapping[str, str | None]) -> None:
        """Set variables of a group, and remove those that are None: a new revision."""
        with self.transaction() as db:
            [(content,)] = db.execute("SELECT content FROM groups WHERE id = ?", (str(group),)).fetchall()
            merged = {**self._decrypt(content), **changes}
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
        """Return the values of the group of a name; nothing for a group that isn't there."""
        rows = self.rows("SELECT content FROM groups WHERE name = ?", group)
        return self._decrypt(rows[0]["content"]) if rows else {}

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
        values: dict[str, str] = json.loads(self._secret.decrypt(content))
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
    )


def _group(row: sqlite3.Row) -> GroupRecord:
    created = datetime.fromisoformat(row["created"])
    return GroupRecord(uuid.UUID(row["id"]), row["name"], created, row["revision"], tuple(json.loads(row["names"])))


def _credential(row: sqlite3.Row) -> CredentialRecord:
    values = {key: row[key] for key in ("id", "name", "hostname", "email", "username")}
    created, updated = (datetime.fromisoformat(row[key]) for key in ("created", "updated"))
    return CredentialRecord(**values, created=created, updated=updated)


def _secret_key(file: Path) -> bytes:
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return file.read_bytes()
    with os.fdopen(handle, "wb") as opened:
        key = Fernet.generate_key()
        opened.write(key)
        opened.flush()
        os.fsync(opened.fileno())
    return key
