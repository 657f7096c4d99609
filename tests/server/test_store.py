"""The store: committed rows are found again, chains are whole, deletion leaves no orphans."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from tightloop.server.store import (
    MAX_EVENTS_BYTES,
    ConversationRow,
    Head,
    Row,
    Store,
    StoreError,
)


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
    with closing(sqlite3.connect(store.path)) as other:
        assert other.execute("SELECT id FROM responses").fetchall() == [("a",)]


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


async def test_a_conversation_can_be_found_changed_and_deleted(store: Store) -> None:
    """And is unknown afterwards."""
    row = ConversationRow("conv", 5, b'{"a":"b"}', None)
    await store.add_conversation(row)
    await store.set_metadata("conv", b"{}")
    assert await store.conversation("conv") == ConversationRow("conv", 5, b"{}", None)
    await store.delete_conversation("conv")
    assert await store.conversation("conv") is None
    await store.set_metadata("conv", b"{}")
    assert await store.conversation("conv") is None


async def test_rows_that_a_conversation_ends_with_are_kept_for_it(store: Store) -> None:
    """Context rows and deleted responses live as long as their conversation."""
    await store.add_conversation(ConversationRow("conv", 5, b"{}", None))
    await store.save([row("a", body=None)], head=Head("conv", "a"))
    await store.save([row("b", "a")], head=Head("conv", "b"))
    assert await store.delete("b")
    found = await store.conversation("conv")
    assert found is not None
    assert found.head_id == "b"
    assert [link.id for link in await store.chain("b")] == ["a", "b"]
    await store.delete_conversation("conv")
    assert await store.chain("b") == []
    assert await store.get("a") is None


async def test_rows_that_a_conversation_leaves_behind_go(store: Store) -> None:
    """When its end moves to another branch, up to the row that both share."""
    await store.add_conversation(ConversationRow("conv", 5, b"{}", None))
    await store.save([row("a", body=None)], head=Head("conv", "a"))
    await store.save([row("c", "b", None), row("b", "a", None)], head=Head("conv", "c"))
    await store.save([row("d", "a", None)], head=Head("conv", "d"))
    assert [await store.get(name) is not None for name in "abcd"] == [True, False, False, True]


async def test_a_head_of_no_conversation_stores_the_rows_all_the_same(store: Store) -> None:
    """It was deleted meanwhile; the response was promised to be kept."""
    await store.save([row("a")], head=Head("gone", "a"))
    assert await store.get("a") == row("a")


async def test_one_process_at_a_time_has_the_file(tmp_path: Path) -> None:
    """Two would each believe their own end of a conversation; the lock goes with its holder."""
    first, second = Store(tmp_path / "db"), Store(tmp_path / "db")
    await first.open()
    with pytest.raises(StoreError, match=f"process {os.getpid()}"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "db")
    with pytest.raises(StoreError, match="is not a folder"):
        await store.open()
