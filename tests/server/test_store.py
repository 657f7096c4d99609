"""The store: committed rows are found again, chains are whole, deletion leaves no orphans."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tightloop.server.store import Row, Store, StoreError


def row(response_id: str, parent_id: str | None = None, body: bytes | None = b"{}") -> Row:
    return Row(response_id, parent_id, b"[]", b"[]", b"{}", body)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "deep" / "responses.sqlite3")
    await opened.open()
    yield opened
    await opened.close()


async def test_a_second_connection_reads_what_was_saved(store: Store) -> None:
    """Committed means visible to anybody who opens the file now."""
    await store.save([row("a")])
    other = Store(store.path)
    await other.open()
    assert row("a") == await other.get("a")
    await other.close()


async def test_a_chain_is_returned_root_first(store: Store) -> None:
    """Ancestors in the order of the conversation, siblings left out."""
    await store.save([row("c", "b"), row("b", "a"), row("a"), row("sibling", "a")])
    assert [link.id for link in await store.chain("c")] == ["a", "b", "c"]
    assert await store.chain("unknown") == []


async def test_saving_again_adds_only_a_missing_body(store: Store) -> None:
    """A context row becomes a full one; a full one is never overwritten."""
    await store.save([row("a", body=None)])
    await store.save([row("a", body=b"1")])
    await store.save([row("a", body=b"2")])
    assert row("a", body=b"1") == await store.get("a")


async def test_deleting_a_parent_keeps_its_items_until_the_last_child_goes(store: Store) -> None:
    """A child's context stays whole, and nothing is left over after the last one."""
    await store.save([row("a"), row("b", "a"), row("c", "a")])
    assert await store.delete("a")
    assert [link.id for link in await store.chain("b")] == ["a", "b"]
    assert row("a", body=None) == await store.get("a")
    assert await store.delete("b")
    assert await store.get("a") is not None
    assert await store.delete("c")
    assert await store.get("a") is None


async def test_deleting_twice_says_no(store: Store) -> None:
    """The second caller learns that there is no such response."""
    await store.save([row("a"), row("b", "a")])
    assert [await store.delete(name) for name in ("a", "a", "unknown")] == [True, False, False]


async def test_the_file_is_readable_by_its_owner_only(store: Store) -> None:
    """Conversations are private."""
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


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


async def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    """The message names the path and a way out."""
    path = tmp_path / "responses.sqlite3"
    path.write_bytes(b"not a database, " * 100)
    store = Store(path)
    with pytest.raises(StoreError, match=r"responses\.sqlite3 failed.*--state-dir"):
        await store.open()
    await store.close()


async def test_use_before_open_is_named(tmp_path: Path) -> None:
    """No attribute error from inside a thread."""
    store = Store(tmp_path / "x")
    with pytest.raises(StoreError, match="is not open"):
        await store.get("a")
    await store.close()
