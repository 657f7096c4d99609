"""The tree: stored responses are found again, with their whole context, and only those."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw

from tightloop.engine.interface import Node
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    OpaqueItem,
    user_message,
)
from tightloop.server.conversations import Conversations, Record, check_call_ids, context_tools
from tightloop.server.store import Store


def record(response_id: str, parent: Record | None = None, *extra: Item) -> Record:
    items = (user_message(f"in {response_id}"), user_message(f"out {response_id}"), *extra)
    node = Node(response_id, parent.node if parent else None, items, Usage(3, 2, 1))
    return Record(node, parent, num_input=1)


async def opened(path: Path) -> Conversations:
    store = Store(path)
    await store.open()
    return Conversations(store)


async def test_a_chain_is_whole_after_a_restart(tmp_path: Path) -> None:
    """A new process finds the leaf and, through it, every item in order."""
    first = await opened(tmp_path / "db")
    root = record("a")
    leaf = record("b", root)
    await first.commit(root, b'{"id":"a"}')
    await first.commit(leaf, b'{"id":"b"}')
    await first.close()

    second = await opened(tmp_path / "db")
    assert second.recall("b") is None
    loaded = await second.load("b")
    assert loaded is not None
    assert leaf.node == loaded.node
    assert loaded.num_input == 1
    assert loaded.parent is second.recall("a")
    assert await second.body("b") == b'{"id":"b"}'
    await second.close()


async def test_an_unstored_ancestor_is_kept_as_context_only(tmp_path: Path) -> None:
    """A stored child brings its context along, but the parent still cannot be named."""
    first = await opened(tmp_path / "db")
    root = record("a")
    await first.commit(record("b", root), b"{}")
    await first.close()

    second = await opened(tmp_path / "db")
    loaded = await second.load("b")
    assert loaded is not None
    assert [loaded.node.parent.id if loaded.node.parent else "", loaded.node.id] == ["a", "b"]
    assert await second.load("a") is None
    assert await second.body("a") is None
    await second.close()


async def test_a_deleted_response_is_gone_but_its_child_is_whole(tmp_path: Path) -> None:
    """Also for a child that was made after the deletion, and after a restart."""
    first = await opened(tmp_path / "db")
    root = record("a")
    await first.commit(root, b"{}")
    assert await first.delete("a")
    assert first.recall("a") is None
    assert await first.load("a") is None
    await first.commit(record("b", root), b"{}")
    await first.close()

    second = await opened(tmp_path / "db")
    loaded = await second.load("b")
    assert loaded is not None
    assert len(loaded.node.context()) == 4
    await second.close()


async def test_without_a_store_responses_last_as_long_as_the_object() -> None:
    """Same answers, no disk."""
    conversations = Conversations()
    await conversations.commit(record("a"), b"{}")
    assert conversations.recall("a") is not None
    assert await conversations.body("a") == b"{}"
    assert [await conversations.delete("a") for _ in range(2)] == [True, False]
    assert await conversations.load("a") is None


async def test_memory_is_bounded_by_the_number_of_recent_responses() -> None:
    """The oldest unused goes first; use makes it recent."""
    conversations = Conversations(num_recent=2)
    for name in ("a", "b"):
        await conversations.commit(record(name), b"{}")
    conversations.recall("a")
    await conversations.commit(record("c"), b"{}")
    assert [conversations.recall(name) is not None for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("has_store", [False, True])
async def test_memory_is_bounded_by_the_size_of_recent_responses(
    tmp_path: Path, has_store: bool
) -> None:
    """A few large ones push out many small ones; the latest one stays however large it is."""
    store = Store(tmp_path / "db") if has_store else None
    if store is not None:
        await store.open()
    conversations = Conversations(store, max_recent_bytes=5000)
    for name in ("a", "b"):
        await conversations.commit(record(name), b"1" * 2000)
    await conversations.delete("a")
    await conversations.commit(record("c"), b"1" * 2000)
    assert [conversations.recall(name) is not None for name in "bc"] == [True, True]
    await conversations.commit(record("d"), b"1" * 6000)
    assert [conversations.recall(name) is not None for name in "bcd"] == [False, False, True]
    await conversations.close()


def call_node() -> Node:
    call = FunctionCall("call_1", "shell", "{}")
    root = Node("a", None, (user_message("x"), call, CustomToolCall("call_2", "patch", "p")))
    return Node("b", root, (user_message("y"),))


@pytest.mark.parametrize(
    "items",
    [
        [FunctionCallOutput("call_1", "ok")],
        [CustomToolCallOutput("call_2", "ok")],
        [FunctionCall("call_3", "shell", "{}"), FunctionCallOutput("call_3", "ok")],
    ],
)
def test_outputs_of_known_calls_pass(items: list[Item]) -> None:
    """The call may be in an ancestor or earlier in the same input."""
    check_call_ids(items, call_node())


def test_the_search_for_a_call_ends_where_it_is_found() -> None:
    """What the last response was given may be a whole history; its call comes after that."""
    num_seen = 0

    class Counting(tuple[Item, ...]):
        __slots__ = ()

        def __reversed__(self) -> Iterator[Item]:
            nonlocal num_seen
            for item in self[::-1]:
                num_seen += 1
                yield item

    history = [user_message("x")] * 50
    node = Node("a", None, Counting([*history, FunctionCall("call_1", "shell", "{}")]))
    check_call_ids([FunctionCallOutput("call_1", "ok")], node)
    assert num_seen == 1


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([FunctionCallOutput("call_9", "ok")], "input[0].call_id"),
        (
            [user_message("hi"), CustomToolCallOutput("call_3", "x")],
            "input[1].call_id",
        ),
        (
            [FunctionCallOutput("call_3", "ok"), FunctionCall("call_3", "shell", "{}")],
            "input[0].call_id",
        ),
    ],
)
def test_an_output_without_a_call_is_refused_by_name(items: list[Item], param: str) -> None:
    """The refusal points at the item."""
    with pytest.raises(ApiError) as caught:
        check_call_ids(items, call_node())
    assert (400, param) == (caught.value.status, caught.value.param)


async def test_a_child_committed_while_its_parent_is_deleted_keeps_its_context(
    tmp_path: Path,
) -> None:
    """The deletion is only under way: the child must not rely on the parent's row."""
    first = await opened(tmp_path / "db")
    root = record("a")
    await first.commit(root, b"{}")
    deletion = asyncio.create_task(first.delete("a"))
    await asyncio.sleep(0)  # the deletion has been handed to the store's thread
    await first.commit(record("b", root), b"{}")
    assert await deletion
    await first.close()
    assert await context_of("b", tmp_path) == 4


async def test_context_that_went_with_a_deletion_is_written_again(tmp_path: Path) -> None:
    """An unstored root is on disk only for its stored child, and goes with it."""
    first = await opened(tmp_path / "db")
    root = record("a")
    await first.commit(record("b", root), b"{}")
    assert await first.delete("b")
    await first.commit(record("c", root), b"{}")
    await first.close()
    assert await context_of("c", tmp_path) == 4


async def context_of(response_id: str, tmp_path: Path) -> int:
    """Number of items in the context of a response after a restart."""
    again = await opened(tmp_path / "db")
    loaded = await again.load(response_id)
    await again.close()
    return len(loaded.node.context()) if loaded else 0


def test_the_first_output_without_a_call_is_named() -> None:
    """Of several."""
    items = [FunctionCallOutput(f"call_{n}", "x") for n in (1, 8, 9, 8)]
    with pytest.raises(ApiError) as caught:
        check_call_ids(items, call_node())
    assert caught.value.param == "input[1].call_id"


def test_late_tools_that_cannot_be_read_are_named_by_their_item() -> None:
    """Not only by the field."""
    late = OpaqueItem("additional_tools", Raw(b'{"type":"additional_tools","tools":[{}]}'))
    with pytest.raises(ApiError) as caught:
        context_tools(None, [user_message("x"), late])
    assert caught.value.param == "input[1].tools[0].type"


async def test_the_events_of_a_stream_outlive_the_process(tmp_path: Path) -> None:
    """They can be read again after a restart, byte for byte."""
    events = [b'{"type":"response.created"}', b'{"type":"response.completed"}']
    first = await opened(tmp_path / "db")
    await first.commit(record("a"), b"{}", events)
    await first.commit(record("b"), b"{}")
    await first.close()
    second = await opened(tmp_path / "db")
    assert events == await second.events("a")
    assert await second.events("b") is None
    await second.close()


async def test_without_a_store_there_are_no_events() -> None:
    """The journal has them as long as it lives."""
    conversations = Conversations()
    await conversations.commit(record("a"), b"{}", [b"{}"])
    assert await conversations.events("a") is None


async def test_a_response_that_is_read_while_it_is_deleted_does_not_come_back(
    tmp_path: Path,
) -> None:
    """Whoever was first still gets it; nobody after that does."""
    store = Store(tmp_path / "db")
    await store.open()
    await Conversations(store).commit(record("resp_1"), b"{}")
    conversations = Conversations(store)
    reading = asyncio.create_task(conversations.load("resp_1"))
    await asyncio.sleep(0)
    assert await conversations.delete("resp_1")
    assert await reading is not None
    assert await conversations.load("resp_1") is None
    await store.close()
