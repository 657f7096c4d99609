"""Files of other versions: older ones are brought up, newer ones are left alone."""

import sqlite3
from pathlib import Path

import pytest

from tightloop.server.store import Row, Store, StoreError
from tightloop.server.store_schema import MIGRATIONS, VERSION_1, migrate, transaction, version_of

EVENTS = [b'{"type":"response.created"}', b'{"type":"response.completed"}']


async def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    """An old program must not write into a file it does not understand."""
    path = tmp_path / "responses.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = Store(path)
    with pytest.raises(StoreError, match="schema version 99"):
        await store.open()
    await store.close()


async def test_a_file_of_version_1_keeps_its_rows(tmp_path: Path) -> None:
    """The first release's file opens, and everything new works in it."""
    path = tmp_path / "responses.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.executescript(f"{VERSION_1} PRAGMA user_version = 1;")
        connection.execute("INSERT INTO responses VALUES ('a', NULL, x'', x'', x'', x'31')")
    connection.close()
    store = Store(path)
    await store.open()
    kept = await store.get("a")
    assert kept is not None
    assert (kept.id, kept.parent_id, kept.body) == ("a", None, b"1")
    await store.save([Row("b", "a", b"[]", b"[]", b"{}", b"{}")], events={"b": EVENTS})
    assert [link.id for link in await store.chain("b")] == ["a", "b"]
    assert await store.events("b") == EVENTS
    await store.close()
    again = Store(path)
    await again.open()
    assert await again.events("b") == EVENTS
    await again.close()


def test_migrating_twice_changes_nothing() -> None:
    """Another process may have done it first."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    before = db.execute("SELECT sql FROM sqlite_master").fetchall()
    migrate(db)
    assert db.execute("SELECT sql FROM sqlite_master").fetchall() == before
    assert version_of(db) == len(MIGRATIONS)
    db.close()


def test_a_transaction_that_fails_leaves_nothing() -> None:
    """Neither its rows nor its lock."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("CREATE TABLE t (x)")

    def fill() -> None:
        with transaction(db):
            db.execute("INSERT INTO t VALUES (1)")
            db.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(sqlite3.OperationalError):
        fill()
    assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert not db.in_transaction
    db.close()
