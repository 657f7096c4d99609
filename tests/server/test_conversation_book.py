"""Conversations by name: their items are whole after a restart, and one holder at a time."""

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tightloop.engine.interface import Node
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    Item,
    OpaqueItem,
    user_message,
)
from tightloop.server.conversation_book import Conversation, ConversationBook, Hold
from tightloop.server.conversations import Conversations, Record
from tightloop.server.item_lists import ListedItem, listed
from tightloop.server.store import Store, StoreError


async def opened(path: Path) -> ConversationBook:
    store = Store(path)
    await store.open()
    return ConversationBook(Conversations(store), store)


def answer(response_id: str, parent: Record | None, *texts: str) -> Record:
    items = tuple(user_message(text) for text in texts)
    return Record(Node(response_id, parent.node if parent else None, items), parent, 1)


def texts(conversation: Conversation) -> list[str]:
    items = (entry.item for entry in conversation.entries)
    return [getattr(item, "text", type(item).__name__) for item in items]


def num_rows(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        found: int = connection.execute("SELECT count(*) FROM responses").fetchone()[0]
    connection.close()
    return found


async def refusal(book: ConversationBook, conversation_id: str) -> tuple[int, str | None]:
    with pytest.raises(ApiError) as caught:
        await book.hold(conversation_id)
    return caught.value.status, caught.value.code


async def test_a_conversation_is_whole_after_a_restart(tmp_path: Path) -> None:
    """Items given, a stored response, items added, an unstored response, the metadata."""
    first = await opened(tmp_path / "db")
    made = await first.create((user_message("given"),), {"a": "b"})
    with await first.hold(made.id) as hold:
        await hold.append(answer("resp_1", hold.head, "q1", "a1"), b'{"id":"resp_1"}')
        await hold.add((user_message("added"),))
        await hold.append(answer("resp_2", hold.head, "q2", "a2"))
    await first.set_metadata(made.id, {"c": "d"})
    ids = [entry.id for entry in made.entries]
    await first.responses.close()

    second = await opened(tmp_path / "db")
    found = await second.get(made.id)
    assert texts(found) == ["given", "q1", "a1", "added", "q2", "a2"]
    assert [entry.id for entry in found.entries] == ids
    assert (found.metadata, found.created_at) == ({"c": "d"}, made.created_at)
    assert await second.responses.load("resp_2") is None  # it was not to be stored
    stored = await second.responses.load("resp_1")
    assert stored is not None
    assert found.head is not None
    assert stored.node in _ancestors(found.head.node)
    await second.responses.close()


def _ancestors(node: Node) -> list[Node]:
    found = []
    parent = node.parent
    while parent is not None:
        found.append(parent)
        parent = parent.parent
    return found


async def test_the_head_is_the_last_response(tmp_path: Path) -> None:
    """So the next turn has it as its parent, and finds what is warm."""
    book = await opened(tmp_path / "db")
    made = await book.create((), {})
    with await book.hold(made.id) as hold:
        assert hold.head is None
        record = answer("resp_1", None, "q", "a")
        await hold.append(record, b"{}")
    with await book.hold(made.id) as hold:
        assert hold.head is record
    await book.responses.close()


async def test_one_holder_at_a_time() -> None:
    """The second one is told to try again; nobody can delete meanwhile."""
    book = ConversationBook(Conversations())
    made = await book.create((), {})
    with await book.hold(made.id):
        assert await refusal(book, made.id) == (409, "conversation_locked")
        with pytest.raises(ApiError, match="try again"):
            await book.delete(made.id)
    (await book.hold(made.id)).release()


async def test_a_hold_is_released_once() -> None:
    """A late second release does not open what somebody else holds by then."""
    book = ConversationBook(Conversations())
    made = await book.create((), {})
    first = await book.hold(made.id)
    first.release()
    second = await book.hold(made.id)
    first.release()
    assert await refusal(book, made.id) == (409, "conversation_locked")
    second.release()


@pytest.mark.parametrize("has_store", [False, True])
async def test_an_unknown_conversation_is_refused(tmp_path: Path, has_store: bool) -> None:
    """And a deleted one, whose responses stay."""
    book = await opened(tmp_path / "db") if has_store else ConversationBook(Conversations())
    assert await refusal(book, "conv_none") == (404, "conversation_not_found")
    made = await book.create((user_message("given"),), {})
    with await book.hold(made.id) as hold:
        await hold.append(answer("resp_1", hold.head, "q", "a"), b"{}")
    await book.delete(made.id)
    assert await refusal(book, made.id) == (404, "conversation_not_found")
    assert await book.responses.body("resp_1") == b"{}"
    await book.responses.close()


async def test_deleting_leaves_no_rows_behind(tmp_path: Path) -> None:
    """Of what nothing else needs."""
    book = await opened(tmp_path / "db")
    made = await book.create((user_message("given"),), {})
    with await book.hold(made.id) as hold:
        await hold.append(answer("resp_1", hold.head, "q", "a"))
        await hold.add((user_message("added"),))
    assert num_rows(tmp_path / "db") == 3
    await book.delete(made.id)
    assert num_rows(tmp_path / "db") == 0
    await book.responses.close()


async def test_an_answer_to_what_was_deleted_brings_its_context_along(tmp_path: Path) -> None:
    """A connection may still hold the last response of a conversation that is gone."""
    book = await opened(tmp_path / "db")
    made = await book.create((user_message("given"),), {})
    with await book.hold(made.id) as hold:
        last = answer("resp_1", hold.head, "q", "a")
        await hold.append(last)
    await book.delete(made.id)
    await book.responses.commit(answer("resp_2", last, "q2"), b"{}")
    await book.responses.close()
    again = await opened(tmp_path / "db")
    loaded = await again.responses.load("resp_2")
    assert loaded is not None
    assert len(loaded.node.context()) == 4
    await again.responses.close()


@pytest.mark.parametrize("place", range(5))
async def test_an_item_can_be_taken_out(tmp_path: Path, place: int) -> None:
    """The others keep their order and their ids, now and after a restart."""
    book = await opened(tmp_path / "db")
    made = await book.create((user_message("0"), user_message("1")), {})
    late = OpaqueItem("t", Raw(b'{"type":"t"}'))
    with await book.hold(made.id) as hold:
        await hold.append(answer("resp_1", hold.head, "2", "3"), b"{}")
        await hold.add((late,))
        kept = made.entries
        gone = kept.pop(place)
        await hold.remove(gone.id)
    ids = [entry.id for entry in kept]
    assert [entry.id for entry in made.entries] == ids
    await book.responses.close()
    again = await opened(tmp_path / "db")
    found = await again.get(made.id)
    assert [entry.id for entry in found.entries] == ids
    assert await again.responses.body("resp_1") == b"{}"
    await again.responses.close()


@pytest.mark.parametrize("has_store", [False, True])
async def test_the_last_item_can_be_taken_out(tmp_path: Path, has_store: bool) -> None:
    """The conversation is empty then, and nothing is left of the item."""
    book = await opened(tmp_path / "db") if has_store else ConversationBook(Conversations())
    made = await book.create((user_message("0"),), {})
    with await book.hold(made.id) as hold:
        await hold.remove(made.entries[0].id)
    assert texts(await book.get(made.id)) == []
    if has_store:
        assert num_rows(tmp_path / "db") == 0
    await book.responses.close()


async def test_a_whole_batch_taken_out_makes_the_response_before_it_the_head(
    tmp_path: Path,
) -> None:
    """It can still be fetched."""
    book = ConversationBook(Conversations())
    made = await book.create((), {})
    with await book.hold(made.id) as hold:
        record = answer("resp_1", None, "q", "a")
        await hold.append(record, b"{}")
        await hold.add((user_message("added"),))
        await hold.remove(made.entries[-1].id)
        assert hold.head is record
    assert await book.responses.body("resp_1") == b"{}"


async def test_taking_out_an_unknown_item_is_refused() -> None:
    """And changes nothing."""
    book = ConversationBook(Conversations())
    made = await book.create((user_message("0"),), {})
    with await book.hold(made.id) as hold, pytest.raises(ApiError) as caught:
        await hold.remove("msg_none")
    assert (caught.value.status, caught.value.code) == (404, "item_not_found")
    assert texts(made) == ["0"]


@pytest.mark.parametrize(
    "item", [FunctionCallOutput("call_9", "x"), Compaction("not ours")], ids=["call", "compaction"]
)
async def test_items_that_do_not_fit_are_refused_before_anything_is_made(
    tmp_path: Path, item: Item
) -> None:
    """An output without its call, a summary that cannot be read."""
    book = await opened(tmp_path / "db")
    with pytest.raises(ApiError, match=r"call_9|compaction"):
        await book.create((item,), {})
    made = await book.create((FunctionCall("call_1", "f", "{}"),), {})
    with await book.hold(made.id) as hold:
        await hold.add((FunctionCallOutput("call_1", "fits"),))
        with pytest.raises(ApiError, match=r"call_9|compaction"):
            await hold.add((item,))
    assert len(made.entries) == 2
    await book.responses.close()


async def test_without_a_disk_the_oldest_conversations_go() -> None:
    """One that is held stays."""
    book = ConversationBook(Conversations(), num_recent=2)
    made = [await book.create((), {}) for _ in range(2)]
    with await book.hold(made[0].id):
        made.append(await book.create((), {}))
        made.append(await book.create((), {}))
        await book.get(made[0].id)
        await book.get(made[3].id)
        for gone in made[1:3]:
            assert await refusal(book, gone.id) == (404, "conversation_not_found")


async def test_with_a_disk_large_conversations_leave_memory_only(tmp_path: Path) -> None:
    """They are read again when they are asked for."""
    store = Store(tmp_path / "db")
    await store.open()
    book = ConversationBook(Conversations(store), store, max_recent_bytes=1000)
    large = await book.create((user_message("x" * 2000),), {})
    await book.create((user_message("y" * 2000),), {})
    found = await book.get(large.id)
    assert found is not large
    assert texts(found) == ["x" * 2000]
    await book.responses.close()


async def test_two_readers_of_one_row_get_one_conversation(tmp_path: Path) -> None:
    """Or both could hold it."""
    first = await opened(tmp_path / "db")
    made = await first.create((user_message("x"),), {})
    await first.responses.close()
    second = await opened(tmp_path / "db")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(second.get(made.id)) for _ in range(2)]
    assert tasks[0].result() is tasks[1].result()
    await second.responses.close()


async def test_a_deletion_of_a_response_leaves_its_items_in_the_conversation(
    tmp_path: Path,
) -> None:
    """The API promises that for conversations; the head can go on being a parent."""
    book = await opened(tmp_path / "db")
    made = await book.create((), {})
    with await book.hold(made.id) as hold:
        await hold.append(answer("resp_1", None, "q1"), b"{}")
    assert await book.responses.delete("resp_1")
    with await book.hold(made.id) as hold:
        await hold.append(answer("resp_2", hold.head, "q2"), b"{}")
    await book.responses.close()
    again = await opened(tmp_path / "db")
    assert texts(await again.get(made.id)) == ["q1", "q2"]
    assert await again.responses.body("resp_1") is None
    await again.responses.close()


class Watched(Store):
    """Tells when a commit has been handed to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_saving = asyncio.Event()

    async def save(self, *arguments: Any, **options: Any) -> None:
        self.is_saving.set()
        await super().save(*arguments, **options)


async def test_a_holder_that_is_cancelled_leaves_what_the_disk_says(tmp_path: Path) -> None:
    """Memory and disk never tell two stories."""
    store = Watched(tmp_path / "db")
    await store.open()
    book = ConversationBook(Conversations(store), store)
    made = await book.create((), {})

    async def add() -> None:
        with await book.hold(made.id) as hold:
            await hold.add((user_message("x"),))

    adding = asyncio.create_task(add())
    await store.is_saving.wait()
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert not made.is_held
    before = texts(made)
    await book.responses.close()
    again = await opened(tmp_path / "db")
    assert texts(await again.get(made.id)) == before == ["x"]
    await again.responses.close()


async def test_a_disk_that_fails_changes_nothing_in_memory(tmp_path: Path) -> None:
    """What was refused is not there."""
    book = await opened(tmp_path / "db")
    made = await book.create((user_message("0"),), {"a": "b"})
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("ALTER TABLE responses RENAME TO lost")
        connection.execute("ALTER TABLE conversations RENAME TO gone")
    connection.close()
    with await book.hold(made.id) as hold:
        with pytest.raises(StoreError):
            await hold.add((user_message("1"),))
        with pytest.raises(StoreError):
            await hold.remove(made.entries[0].id)
    with pytest.raises(StoreError):
        await book.set_metadata(made.id, {})
    assert texts(made) == ["0"]
    assert made.metadata == {"a": "b"}
    await book.responses.close()


@dataclass
class Deed:
    """One change of a conversation; ``place`` is taken modulo what there is."""

    kind: str
    place: int


DEEDS = st.lists(
    st.builds(
        Deed,
        st.sampled_from(["add", "answer", "store", "remove", "restart", "delete response"]),
        st.integers(0, 20),
    ),
    max_size=12,
)


@given(DEEDS)
@settings(max_examples=40, deadline=None)
def test_any_order_of_changes_gives_the_list_that_a_list_would(deeds: list[Deed]) -> None:
    """The same texts under the same ids, on disk as in memory; no row without a reason to be."""
    with TemporaryDirectory() as folder:
        asyncio.run(_do(Path(folder) / "db", deeds))


async def _do(path: Path, deeds: list[Deed]) -> None:
    book = await opened(path)
    conversation_id = (await book.create((), {})).id
    expected: list[ListedItem] = []
    stored: list[str] = []
    for number, deed in enumerate(deeds):
        if deed.kind == "restart":
            await book.responses.close()
            book = await opened(path)
        elif deed.kind == "delete response":
            if stored:
                assert await book.responses.delete(stored.pop(deed.place % len(stored)))
        else:
            with await book.hold(conversation_id) as hold:
                if await _change(hold, deed, f"resp_{number}", expected):
                    stored.append(f"resp_{number}")
        assert (await book.get(conversation_id)).entries == expected
    await book.delete(conversation_id)
    for response_id in stored:
        assert await book.responses.delete(response_id)
    await book.responses.close()
    assert num_rows(path) == 0


async def _change(hold: Hold, deed: Deed, name: str, expected: list[ListedItem]) -> bool:
    """Do it and write it down; whether a response was stored."""
    if deed.kind == "add":
        expected += await hold.add((user_message(name), user_message("and")))
    elif deed.kind != "remove":
        record = answer(name, hold.head, f"q {name}", f"a {name}")
        body = b"{}" if deed.kind == "store" else None
        await hold.append(record, body)
        expected += listed(record.node)
        return body is not None
    elif expected:
        gone = expected.pop(deed.place % len(expected))
        await hold.remove(gone.id)
        _pin_ids(hold.conversation, expected)
    return False


def _pin_ids(conversation: Conversation, expected: list[ListedItem]) -> None:
    """Items that were moved hold their ids themselves now; the ids must not have changed."""
    assert [entry.id for entry in conversation.entries] == [entry.id for entry in expected]
    expected[:] = conversation.entries
