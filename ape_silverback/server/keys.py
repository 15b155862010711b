"""Named API keys of a cluster: who has one, what it allows, when it was last used. Only their hashes are kept.

A key is 32 random bytes, so a plain SHA-256 of it can't be guessed back, unlike that of a password.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
import uuid
from dataclasses import dataclass
from datetime import datetime

from ape_silverback.cluster.types import KeyRole
from ape_silverback.server.database import Database, now

PREFIX = "sbk_"
"""How a key begins, so that a scanner for leaked secrets can tell it."""

NOTE_USE_EVERY = 60.0
"""Seconds between two notes of the use of a key."""


@dataclass(frozen=True)
class Key:
    """A key, without what opens the cluster."""

    id: uuid.UUID
    name: str
    role: KeyRole
    created: datetime
    last_use: datetime | None


class Keys:
    """The named keys of one cluster. Safe to use from several threads.

    Args:
        database: of the cluster.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._noted: dict[str, float] = {}

    def all(self) -> list[Key]:
        """Return all keys, the oldest first."""
        return [_key(row) for row in self.database.rows("SELECT * FROM api_keys ORDER BY created, name")]

    def has(self, key: uuid.UUID) -> bool:
        """Return whether a key is there, and wasn't revoked."""
        return bool(self.database.rows("SELECT 1 FROM api_keys WHERE id = ?", str(key)))

    def add(self, name: str, role: KeyRole) -> tuple[Key, str]:
        """Make a key, and return it with its secret, which can't be recovered later.

        Raises:
            NameTakenError: there is one of this name.
        """
        secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
        identity = str(uuid.uuid4())
        with self.database.transaction() as db:
            row = (identity, name, role, _hash(secret), now(), None)
            db.execute("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?)", row)
        [key] = [one for one in self.all() if str(one.id) == identity]
        return key, secret

    def revoke(self, key: uuid.UUID) -> bool:
        """Revoke a key, and return whether there was one."""
        with self.database.transaction() as db:
            return db.execute("DELETE FROM api_keys WHERE id = ?", (str(key),)).rowcount > 0

    def use(self, secret: str) -> Key | None:
        """Return the key that somebody brought, and note its use; None for one that isn't valid."""
        if not secret.startswith(PREFIX):
            return None
        found = self.database.rows("SELECT * FROM api_keys WHERE hash = ?", _hash(secret))
        if not found:
            return None
        identity = found[0]["id"]
        if time.monotonic() - self._noted.get(identity, -NOTE_USE_EVERY) >= NOTE_USE_EVERY:
            self._noted[identity] = time.monotonic()
            with self.database.transaction() as db:
                db.execute("UPDATE api_keys SET last_use = ? WHERE id = ?", (now(), identity))
        return _key(found[0])


def _key(row: sqlite3.Row) -> Key:
    return Key(
        id=uuid.UUID(row["id"]),
        name=row["name"],
        role=row["role"],
        created=datetime.fromisoformat(row["created"]),
        last_use=datetime.fromisoformat(row["last_use"]) if row["last_use"] else None,
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf8", "surrogatepass")).hexdigest()
