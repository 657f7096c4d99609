"""Listed items: ids that never change, JSON that strict clients read, pages that cover the list."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tightloop.engine.interface import Node
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Reasoning,
    TextPart,
    decode_item,
    user_message,
)
from tightloop.server.item_lists import (
    ListedItem,
    PageQuery,
    decode_query,
    key_in,
    key_of,
    listed,
    listed_context,
    walk,
    wire_item,
    with_id,
)

NODE_ID = "resp_0123456789abcdef0123456789abcdef"
IMAGE = OpaquePart("input_image", Raw(b'{"type":"input_image","image_url":"data:,"}'))


def wire(item: Item) -> dict[str, Any]:
    decoded: dict[str, Any] = orjson.loads(bytes(wire_item(ListedItem("x_1", item))))
    return decoded


def test_an_item_without_an_id_gets_one_that_names_its_node() -> None:
    """The same in every listing, of its own type; an id of its own stays."""
    own = Message("user", (), id="msg_own")
    node = Node(NODE_ID, None, (user_message("a"), FunctionCall("c", "f", "{}"), own))
    ids = [entry.id for entry in listed(node)]
    assert ids == ["msg_0123456789abcdefi0", "fc_0123456789abcdefi1", "msg_own"]
    assert [entry.id for entry in listed(node, 1)] == ids[1:]
    assert {key_in(name) for name in ids[:2]} == {key_of(NODE_ID)}


@pytest.mark.parametrize("item_id", ["", "msg_1", "msg_0123-56789abcdef", "msg_\u0661" * 16])
def test_an_id_of_another_making_names_no_node(item_id: str) -> None:
    """Nothing is looked up for it."""
    assert key_in(item_id) is None


def test_a_context_is_listed_from_the_root() -> None:
    """Ancestors first."""
    root = Node("resp_a", None, (user_message("1"), user_message("2")))
    leaf = Node("resp_b", root, (user_message("3"),))
    assert [entry.id for entry in listed_context(leaf)] == ["msg_ai0", "msg_ai1", "msg_bi0"]
    assert list(walk(leaf)) == listed_context(leaf)[::-1]
    assert listed_context(None) == list(walk(None)) == []


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            Message("user", (TextPart("input_text", "hi"), IMAGE)),
            {
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "hi"},
                    {"type": "input_image", "image_url": "data:,"},
                ],
            },
        ),
        (
            Message("assistant", (TextPart("output_text", "yo"),), phase="final_answer"),
            {
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "phase": "final_answer",
                "content": [
                    {"type": "output_text", "text": "yo", "annotations": [], "logprobs": []}
                ],
            },
        ),
        (
            FunctionCallOutput("c", "ok"),
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": "ok",
                "status": "completed",
            },
        ),
        (
            CustomToolCallOutput("c", "", parts=(IMAGE,)),
            {
                "type": "custom_tool_call_output",
                "call_id": "c",
                "status": "completed",
                "output": [{"type": "input_image", "image_url": "data:,"}],
            },
        ),
        (
            CustomToolCall("c", "patch", "p"),
            {
                "type": "custom_tool_call",
                "call_id": "c",
                "name": "patch",
                "input": "p",
                "status": "completed",
            },
        ),
        (
            Reasoning(("why",), "sealed"),
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "why"}],
                "encrypted_content": "sealed",
            },
        ),
        (
            OpaqueItem("web_search_call", Raw(b'{"type":"web_search_call","id":null} ')),
            {"type": "web_search_call"},
        ),
    ],
)
def test_listed_items_are_complete(item: Item, expected: dict[str, Any]) -> None:
    """With id and status, parts as strict clients want them."""
    assert wire(item) == {**expected, "id": "x_1"}


def test_an_opaque_item_keeps_what_no_decoder_here_reads() -> None:
    """Numbers of any size; its own id is found all the same, or else added."""
    raw = b'{"type":"t","n":' + b"9" * 400 + b',"id":"t_1"}'
    node = Node("resp_a", None, (OpaqueItem("t", Raw(raw)),))
    entry = listed(node)[0]
    assert (entry.id, bytes(wire_item(entry))) == ("t_1", raw)
    added = with_id(ListedItem("t_2", entry.item))
    assert isinstance(added, OpaqueItem)
    assert bytes(added.raw) == raw[:-1] + b',"id":"t_2"}'


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "message", "role": "user", "content": "x"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "item_of_tomorrow", "x": 1},
    ],
)
def test_an_item_made_to_hold_its_id_is_listed_under_it(raw: dict[str, Any]) -> None:
    """Wherever it is put."""
    moved = Node("resp_other", None, (with_id(ListedItem("x_9", decode_item(raw))),))
    assert listed(moved)[0].id == "x_9"


ENTRIES = [ListedItem(f"msg_{n}", user_message(str(n))) for n in range(45)]


@given(st.integers(1, 100), st.booleans(), st.integers(0, 45))
def test_pages_cover_a_list_once_and_in_order(limit: int, is_ascending: bool, size: int) -> None:
    """Following last_id while has_more."""
    expected = ENTRIES[:size] if is_ascending else ENTRIES[:size][::-1]
    seen: list[str] = []
    after: str | None = None
    while True:
        page = orjson.loads(PageQuery(limit, is_ascending, after).page(expected))
        ids = [item["id"] for item in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        seen += ids
        if not page["has_more"]:
            break
        assert len(ids) == limit
        after = page["last_id"]
    assert seen == [entry.id for entry in expected]


def test_a_query_says_how_to_page() -> None:
    """The API's defaults: 20, newest first."""
    assert decode_query({}) == PageQuery(20, False, None)
    asked = {"limit": "3", "order": "asc", "after": "msg_1", "include": "x"}
    assert decode_query(asked) == PageQuery(3, True, "msg_1")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "\u0665"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"order": "up"}, "order"),
    ],
)
def test_a_bad_query_is_named(query: dict[str, str], param: str) -> None:
    """With the parameter at fault."""
    with pytest.raises(ApiError) as caught:
        decode_query(query)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_page_after_an_unknown_item_is_refused() -> None:
    """Not answered with the first page again: a client would loop."""
    with pytest.raises(ApiError) as caught:
        PageQuery(after="msg_none").page(ENTRIES)
    assert (caught.value.code, caught.value.param) == ("item_not_found", "after")
