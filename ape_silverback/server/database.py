"""A SQLite database of the server, whose schema is the sum of its migrations."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ape_silverback.exceptions import LocalClusterError


class NameTakenError(Exception):
    """Another row has this name already."""


class Database:
    """A database file. Safe to use from several threads.

    Opening it applies the migrations that it lacks, each in a transaction, so that a process killed in between leaves
    a database of some version, never half of one. ``PRAGMA user_version`` is the number of migrations applied.

    Args:
        file: its file; made, with the folder, when it isn't there.
        migrations: statements that lead from each version of the schema to the next. Append to them; never change one.

    Raises:
        LocalClusterError: the file isn't a database, can't be opened, or was made by a newer version of this package.

    Attributes:
        is_closed: whether it was closed, so that nothing can be read any more.
    """

    def __init__(self, file: Path, migrations: Sequence[str]) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        self.is_closed = False
        try:
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))  # before SQLite makes it readable for all
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            _check_version(file, found, len(migrations))
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            for version, migration in enumerate(migrations[found:], found + 1):
                self._migrate(migration, version)
        except (sqlite3.Error, OSError) as error:
            raise LocalClusterError(
                f"{file} can't be opened: {error}; restore it from a copy, or move {file.parent} away to start over"
            ) from error

    def close(self) -> None:
        """Close the database, with everything in its one file."""
        with self._lock:
            self.is_closed = True
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do everything in the block at once or not at all; a transaction within one is part of it.

        Other threads wait, so what is read in the block still holds when it writes.

        Raises:
            NameTakenError: a name that has to be unique isn't.
        """
        with self._lock:
            if self._depth:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.IntegrityError):
                    raise NameTakenError(str(error)) from error
                raise
            finally:
                self._depth -= 1

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _migrate(self, migration: str, version: int) -> None:
        try:
            self._db.executescript(f"BEGIN IMMEDIATE; {migration}; PRAGMA user_version = {version}; COMMIT;")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def _check_version(file: Path, found: int, known: int) -> None:
    if found > known:
        raise LocalClusterError(
            f"{file} is of version {found}, newer than this package, which knows version {known}; install the newer "
            f"ape-silverback again, or move {file.parent} away to start over"
        )


def now() -> str:
    """Return the time as the tables hold it."""
    return datetime.now(timezone.utc).isoformat()
