"""The store: committed rows are found again, chains are whole, deletion leaves no orphans."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tightloop.server.store import MAX_EVENTS_BYTES, VERSION_1, Row, Store, StoreError


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


EVENTS = [b'{"type":"response.created"}', b'{"type":"response.completed"}']


async def test_the_events_of_a_stream_come_back_as_they_were(store: Store) -> None:
    """Each one, in order; those of a response without any, or of nobody, are None."""
    await store.save([row("a"), row("b")], events={"a": EVENTS})
    assert await store.events("a") == EVENTS
    assert await store.events("b") is None
    assert await store.events("unknown") is None


async def test_events_beyond_the_limit_are_not_kept(store: Store) -> None:
    """The response itself is; one byte less is kept."""
    await store.save(
        [row("fits"), row("long")],
        events={"fits": [b"x" * (MAX_EVENTS_BYTES - 1)], "long": [b"x" * MAX_EVENTS_BYTES]},
    )
    assert await store.events("fits") == [b"x" * (MAX_EVENTS_BYTES - 1)]
    assert await store.events("long") is None
    assert row("long") == await store.get("long")


async def test_events_go_with_their_response(store: Store) -> None:
    """Also when its items stay as the context of a child."""
    await store.save([row("a"), row("b", "a")], events={"a": EVENTS})
    await store.delete("a")
    assert await store.events("a") is None
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT events FROM responses WHERE id = 'a'").fetchall() == [
            (None,)
        ]
    connection.close()


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
    await store.save([row("b", "a")], events={"b": EVENTS})
    assert [link.id for link in await store.chain("b")] == ["a", "b"]
    assert await store.events("b") == EVENTS
    await store.close()
    again = Store(path)
    await again.open()
    assert await again.events("b") == EVENTS
    await again.close()
