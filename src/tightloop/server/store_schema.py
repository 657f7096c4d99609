"""The tables of the store, and how a file of an earlier version becomes one of this version."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

VERSION_1 = """
CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    parent_id TEXT,
    input BLOB NOT NULL,
    output BLOB NOT NULL,
    usage BLOB NOT NULL,
    body BLOB
) WITHOUT ROWID;
CREATE INDEX responses_by_parent ON responses (parent_id);
"""
VERSION_2 = """
ALTER TABLE responses ADD COLUMN events BLOB;
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    metadata BLOB NOT NULL,
    head_id TEXT
) WITHOUT ROWID;
CREATE INDEX conversations_by_head ON conversations (head_id);
"""
MIGRATIONS = (VERSION_1, VERSION_2)
"""``MIGRATIONS[n]`` leads from version n to n + 1; version 0 is an empty file."""

SCHEMA_VERSION = len(MIGRATIONS)


def version_of(db: sqlite3.Connection) -> int:
    """The schema version of an open file."""
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def migrate(db: sqlite3.Connection) -> None:
    """Bring the file to ``SCHEMA_VERSION`` in one transaction; its rows stay."""
    if version_of(db) == SCHEMA_VERSION:
        return
    with transaction(db):
        # Read again under the lock: another process may have done it in between.
        for script in MIGRATIONS[version_of(db) :]:
            for statement in script.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK when the body raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
