"""What the local platform knows: workspaces, their clusters, and how far it has followed the chain that pays."""

from __future__ import annotations

import getpass
import json
import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ape_silverback.cluster.types import (
    ClusterConfiguration,
    ClusterInfo,
    ResourceStatus,
    StreamInfo,
    WorkspaceInfo,
)
from ape_silverback.server.database import Database, now
from ape_silverback.server.platform.payments import Block

END_OF_TIME = 253402300799
"""The last second that a calendar can show, since 1970: a stream may be paid for longer."""

MIGRATIONS = (
    f"""
CREATE TABLE users (id TEXT PRIMARY KEY, username TEXT NOT NULL);
CREATE TABLE workspaces (
    id TEXT PRIMARY KEY, owner_id TEXT NOT NULL, name TEXT NOT NULL, slug TEXT NOT NULL UNIQUE, created TEXT NOT NULL
);
CREATE TABLE clusters (
    id TEXT PRIMARY KEY, workspace TEXT NOT NULL, name TEXT NOT NULL, slug TEXT NOT NULL, created TEXT NOT NULL,
    last_updated TEXT NOT NULL, status INTEGER NOT NULL, version TEXT, configuration TEXT, expiration INTEGER,
    stream TEXT, product BLOB
);
CREATE UNIQUE INDEX slugs ON clusters (workspace, slug) WHERE status <> {int(ResourceStatus.REMOVED)};
CREATE TABLE followed (
    chain_id INTEGER NOT NULL, manager TEXT NOT NULL, first INTEGER NOT NULL, number INTEGER NOT NULL,
    hash TEXT NOT NULL, PRIMARY KEY (chain_id, manager)
);
""",
)


@dataclass(frozen=True)
class User:
    """Who uses the platform."""

    id: uuid.UUID
    name: str


@dataclass(frozen=True)
class ClusterRecord:
    """A cluster of the platform.

    Attributes:
        workspace: id of its workspace.
        info: what the platform returns of it.
        stream: what pays or paid for it.
        product: the code in that stream which does.
        expires: end of what is paid for, in seconds since 1970.
    """

    workspace: uuid.UUID
    info: ClusterInfo
    stream: StreamInfo | None
    product: bytes | None
    expires: int | None

    @property
    def status(self) -> ResourceStatus:
        """Its status."""
        return self.info.status


@dataclass(frozen=True)
class Progress:
    """How far a chain was followed.

    Attributes:
        first: number of the block from which on it was followed.
        last: the last block that was.
    """

    first: int
    last: Block


class PlatformStore(Database):
    """The database of the platform.

    Args:
        folder: holds it; made when it isn't there.

    Raises:
        LocalClusterError: the database can't be opened, or was made by a newer version of this package.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "platform.db", MIGRATIONS)
        if not self.rows("SELECT * FROM users"):
            with self.transaction() as db:
                db.execute("INSERT INTO users VALUES (?, ?)", (str(uuid.uuid4()), getpass.getuser()))

    @property
    def user(self) -> User:
        """The one user, who owns all."""
        [row] = self.rows("SELECT * FROM users")
        return User(uuid.UUID(row["id"]), row["username"])

    # Workspaces

    def workspaces(self) -> list[WorkspaceInfo]:
        """Return all workspaces, the oldest first."""
        return [_workspace(row) for row in self.rows("SELECT * FROM workspaces ORDER BY created, slug")]

    def workspace(self, workspace: uuid.UUID) -> WorkspaceInfo | None:
        """Return a workspace; None for one that doesn't exist."""
        return next(map(_workspace, self.rows("SELECT * FROM workspaces WHERE id = ?", str(workspace))), None)

    def add_workspace(self, name: str, slug: str) -> WorkspaceInfo:
        """Add a workspace.

        Raises:
            NameTakenError: there is one of this slug.
        """
        identity = str(uuid.uuid4())
        with self.transaction() as db:
            row = (identity, str(self.user.id), name, slug, now())
            db.execute("INSERT INTO workspaces VALUES (?, ?, ?, ?, ?)", row)
        [made] = self.rows("SELECT * FROM workspaces WHERE id = ?", identity)
        return _workspace(made)

    def change_workspace(self, workspace: uuid.UUID, name: str, slug: str) -> None:
        """Rename a workspace.

        Raises:
            NameTakenError: there is another one of this slug.
        """
        with self.transaction() as db:
            db.execute("UPDATE workspaces SET name = ?, slug = ? WHERE id = ?", (name, slug, str(workspace)))

    def remove_workspace(self, workspace: uuid.UUID) -> bool:
        """Remove a workspace and what is left of its removed clusters; return False when it holds another one."""
        with self.transaction() as db:
            inside = "SELECT 1 FROM clusters WHERE workspace = ? AND status <> ?"
            if db.execute(inside, (str(workspace), ResourceStatus.REMOVED)).fetchone():
                return False
            db.execute("DELETE FROM clusters WHERE workspace = ?", (str(workspace),))
            db.execute("DELETE FROM workspaces WHERE id = ?", (str(workspace),))
            return True

    # Clusters

    def clusters(self, workspace: uuid.UUID | None = None) -> list[ClusterRecord]:
        """Return the clusters of a workspace, or all, the oldest first."""
        if workspace is None:
            return _clusters(self.rows("SELECT * FROM clusters ORDER BY created, slug"))
        query = "SELECT * FROM clusters WHERE workspace = ? ORDER BY created, slug"
        return _clusters(self.rows(query, str(workspace)))

    def cluster(self, cluster: uuid.UUID) -> ClusterRecord | None:
        """Return a cluster; None for one that doesn't exist."""
        return next(iter(_clusters(self.rows("SELECT * FROM clusters WHERE id = ?", str(cluster)))), None)

    def cluster_at(self, workspace: str, slug: str) -> ClusterRecord | None:
        """Return the newest cluster with two slugs; None if there is none."""
        query = """
            SELECT clusters.* FROM clusters JOIN workspaces ON workspaces.id = workspace
            WHERE workspaces.slug = ? AND clusters.slug = ? ORDER BY clusters.created DESC
        """
        return next(iter(_clusters(self.rows(query, workspace, slug))), None)

    def add_cluster(self, workspace: uuid.UUID, name: str, slug: str) -> ClusterRecord:
        """Add a cluster that isn't paid for.

        Raises:
            NameTakenError: the workspace has one of this slug.
        """
        identity, created = str(uuid.uuid4()), now()
        columns = "id, workspace, name, slug, created, last_updated, status"
        row = (identity, str(workspace), name, slug, created, created, ResourceStatus.CREATED)
        with self.transaction() as db:
            db.execute(f"INSERT INTO clusters ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - ours
        [made] = _clusters(self.rows("SELECT * FROM clusters WHERE id = ?", identity))
        return made

    def rename_cluster(self, cluster: uuid.UUID, name: str, slug: str) -> None:
        """Rename a cluster.

        Raises:
            NameTakenError: its workspace has another one of this slug.
        """
        self._change(cluster, name=name, slug=slug)

    def set_version(self, cluster: uuid.UUID, version: str) -> None:
        """Write down which version a cluster is of."""
        self._change(cluster, version=version)

    def set_status(self, cluster: uuid.UUID, status: ResourceStatus) -> None:
        """Write down the state of a cluster."""
        self._change(cluster, status=int(status))

    def set_paid(
        self,
        cluster: uuid.UUID,
        status: ResourceStatus,
        *,
        stream: StreamInfo,
        product: bytes,
        configuration: ClusterConfiguration,
        expires: int,
        version: str,
    ) -> None:
        """Write down what is paid for a cluster, and its new state with it."""
        self._change(
            cluster,
            status=int(status),
            stream=stream.model_dump_json(),
            product=product,
            configuration=configuration.model_dump_json(),
            expiration=min(expires, END_OF_TIME),
            version=version,
        )

    def set_expiration(self, cluster: uuid.UUID, expires: int) -> None:
        """Write down until when a cluster is paid for, in seconds since 1970."""
        self._change(cluster, expiration=min(expires, END_OF_TIME))

    def _change(self, cluster: uuid.UUID, **columns: Any) -> None:
        changes = ", ".join(f"{name} = ?" for name in columns)
        with self.transaction() as db:
            db.execute(
                f"UPDATE clusters SET {changes}, last_updated = ? WHERE id = ?",  # noqa: S608 - names are ours
                (*columns.values(), now(), str(cluster)),
            )

    # The chain

    def progress(self, chain_id: int, manager: str) -> Progress | None:
        """Return how far a StreamManager was followed."""
        rows = self.rows("SELECT * FROM followed WHERE chain_id = ? AND manager = ?", chain_id, manager)
        return next((Progress(row["first"], Block(number=row["number"], hash=row["hash"])) for row in rows), None)

    def set_progress(self, chain_id: int, manager: str, progress: Progress) -> None:
        """Write down how far a StreamManager was followed."""
        row = (chain_id, manager, progress.first, progress.last.number, progress.last.hash)
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO followed VALUES (?, ?, ?, ?, ?)", row)


def _workspace(row: sqlite3.Row) -> WorkspaceInfo:
    return WorkspaceInfo.model_validate(dict(row))


def _clusters(rows: Iterable[sqlite3.Row]) -> list[ClusterRecord]:
    return [_cluster(row) for row in rows]


def _cluster(row: sqlite3.Row) -> ClusterRecord:
    stream = StreamInfo.model_validate_json(row["stream"]) if row["stream"] else None
    expires: int | None = row["expiration"]
    columns = ("id", "name", "slug", "created", "last_updated", "status", "version")
    info = ClusterInfo(
        **{name: row[name] for name in columns},
        configuration=json.loads(row["configuration"]) if row["configuration"] else None,
        expiration=None if expires is None else datetime.fromtimestamp(expires, timezone.utc),
        # A platform has its own ids for streams; here the id is derived from what identifies one.
        stream_id=uuid.uuid5(uuid.NAMESPACE_URL, str(stream)) if stream else None,
    )
    return ClusterRecord(uuid.UUID(row["workspace"]), info, stream, row["product"], expires)
