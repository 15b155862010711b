"""The schema of a cluster's database, as the migrations that lead to it. The platform has its own, beside its store."""

from __future__ import annotations

MIGRATIONS = (
    # 1
    """
    CREATE TABLE bots (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, configuration TEXT NOT NULL,
        status INTEGER NOT NULL, wanted INTEGER NOT NULL, task TEXT NOT NULL
    );
    CREATE TABLE groups (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, revision INTEGER NOT NULL,
        names TEXT NOT NULL, content BLOB NOT NULL
    );
    CREATE TABLE credentials (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, updated TEXT NOT NULL,
        hostname TEXT NOT NULL, email TEXT NOT NULL, username TEXT NOT NULL, password BLOB NOT NULL
    );
    """,
    # 2: what the runtime of the cluster has to remember of a bot
    "CREATE TABLE IF NOT EXISTS runtime_states (bot TEXT PRIMARY KEY, state TEXT NOT NULL)",
    # 3: up to when the errors of a bot were acknowledged
    "CREATE TABLE acknowledgements (bot TEXT PRIMARY KEY, time TEXT NOT NULL)",
    # 4: restarts, what happened to bots, and what is kept of removed ones
    """
    ALTER TABLE bots ADD COLUMN restarts TEXT NOT NULL DEFAULT '{}';
    CREATE TABLE events (
        id INTEGER PRIMARY KEY, bot TEXT NOT NULL, name TEXT NOT NULL, time TEXT NOT NULL, kind TEXT NOT NULL,
        reason TEXT
    );
    CREATE INDEX events_of_bots ON events (bot, id);
    CREATE TABLE removed_bots (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, removed TEXT NOT NULL, errors TEXT NOT NULL
    );
    """,
    # 5: named keys of people and programs
    """
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL, last_use TEXT
    );
    """,
    # 6: the records of deployments that clients keep here
    """
    CREATE TABLE deployments (
        project TEXT NOT NULL, number INTEGER NOT NULL, line TEXT NOT NULL, PRIMARY KEY (project, number)
    );
    """,
    # 7: the id of the cluster, by which clients know it under every address
    """
    CREATE TABLE cluster (id TEXT NOT NULL);
    INSERT INTO cluster (id) VALUES (lower(hex(randomblob(16))));
    """,
)
"""Append one for a change; never edit one that was released. Each has to lead from any database of its version."""
