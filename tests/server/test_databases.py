"""Databases of other versions: those of older ones open with everything in them, others are left alone."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.exceptions import LocalClusterError
from ape_silverback.server.daemon import LocalCluster
from ape_silverback.server.database import Database
from ape_silverback.server.schema import MIGRATIONS
from ape_silverback.server.store import Store

DATABASES = Path(__file__).with_name("databases")


@pytest.mark.parametrize("version", [path.name for path in sorted(DATABASES.iterdir())])
def test_a_database_of_an_older_version_opens_with_everything_in_it(version: str, tmp_path: Path) -> None:
    shutil.copytree(DATABASES / version, tmp_path / "kept")
    store = Store(tmp_path / "kept")
    bots = {bot.name: bot for bot in store.bots()}
    assert {name: (bot.status, bot.wanted, bot.task.stopped_reason) for name, bot in bots.items()} == {
        "running": (ResourceStatus.RUNNING, True, None),
        "stopped": (ResourceStatus.STOPPED, False, "stopped by its user"),
        "crashed": (ResourceStatus.STOPPED, True, "exited with code 3"),
    }
    assert bots["running"].configuration == BotConfiguration(
        image="project:/nowhere#a",
        ecosystem="ethereum",
        network="local",
        provider="foundry",
        account="TEST::0",
        environment=("rpc",),
        credential_name="registry",
        cluster_access=True,
    )
    assert [(group.name, group.revision, group.variables) for group in store.groups()] == [
        ("rpc", 2, ("RPC_KEY", "THIRD")),
        ("empty", 1, ()),
    ]
    assert store.values_of("rpc") == {"RPC_KEY": "kept-through-versions", "THIRD": "3"}
    assert [(one.name, one.hostname, one.username) for one in store.credentials()] == [("registry", "ghcr.io", "me")]
    identity = store.id
    store.close()
    store = Store(tmp_path / "kept")
    assert store.id == identity, "it gets an id once"
    store.close()
    with sqlite3.connect(tmp_path / "kept" / "cluster.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    file = tmp_path / "some.db"
    first = "CREATE TABLE a (x TEXT); INSERT INTO a VALUES ('kept');"
    Database(file, [first]).close()
    with pytest.raises(LocalClusterError, match=r"some\.db can't be opened"):
        Database(file, [first, "CREATE TABLE b (y TEXT); INSERT INTO missing VALUES (1);"])
    opened = Database(file, [first, "ALTER TABLE a ADD COLUMN y TEXT DEFAULT 'new'"])
    assert [tuple(row) for row in opened.rows("SELECT * FROM a")] == [("kept", "new")]
    assert not opened.rows("SELECT * FROM sqlite_master WHERE name = 'b'")
    opened.close()


def test_a_transaction_within_one_is_undone_with_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "some.db", ["CREATE TABLE a (x TEXT)"])

    def fail_after_an_inner_one() -> None:
        with database.transaction():
            with database.transaction() as inner:
                inner.execute("INSERT INTO a VALUES ('lost')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_an_inner_one()
    assert not database.rows("SELECT * FROM a")
    database.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"this is no database, " * 100, "file is not a database"), (None, "version 99, newer than this package")],
    ids=["another file", "a newer version"],
)
def test_a_database_that_cant_be_used_is_left_alone_and_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    file = folder / "cluster.db"
    if content is None:
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 99")
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(LocalClusterError, match=says) as caught:
        LocalCluster(folder).up()
    assert "Traceback" not in str(caught.value)
    assert file.read_bytes() == before
