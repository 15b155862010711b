"""A database of the local cluster, in SQLite: what was answered with yes survives the end of the server."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ape_silverback.exceptions import LocalClusterError


class NameTakenError(Exception):
    """There is one of this name already."""


class Database:
    """A database. Safe to use from several threads.

    Args:
        file: its file; made, with the folder, when it isn't there.
        schema: statements that make its tables.
        version: of the schema.

    Raises:
        LocalClusterError: the database was made by another version of this package.
    """

    def __init__(self, file: Path, schema: str, version: int) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))  # before SQLite makes it readable for all
        self._lock = threading.RLock()
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._db.executescript(f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
        elif found != version:
            raise LocalClusterError(
                f"{file} is of version {found}, this package knows version {version}; move {file.parent} away to begin "
                "anew"
            )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except sqlite3.IntegrityError as error:
                self._db.execute("ROLLBACK")
                raise NameTakenError(str(error)) from error
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()


def now() -> str:
    """Give the time as the tables hold it."""
    return datetime.now(timezone.utc).isoformat()
