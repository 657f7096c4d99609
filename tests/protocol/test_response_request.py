"""Requests to an upstream that speaks Responses, read back by our own decoder."""

from typing import Any

import msgspec
import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tightloop.protocol.compaction import Summary, seal
from tightloop.protocol.items import (
    Compaction,
    FunctionCall,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Reasoning,
    decode_input,
    user_message,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool, OpaqueTool, Tool, decode_request
from tightloop.protocol.response_request import (
    ItemList,
    encode_input,
    encode_response_tools,
    hides_earlier,
    response_fields,
    sendable,
)


def joined(words: ItemList) -> list[Item]:
    return list(decode_input(b"[" + b",".join(words.pieces()) + b"]"))


@given(st.lists(strategies.items, max_size=8), st.data(), st.booleans())
def test_steps_give_the_same_items_as_the_whole(
    items: list[Item], data: st.DataObject, plain: bool
) -> None:
    place = data.draw(st.integers(0, len(items)))
    words = ItemList(plain).extended(items[:place]).extended(items[place:])
    expected = list(decode_input(b"[" + encode_input(items, plain_reasoning=plain) + b"]"))
    assert joined(words) == expected
    assert words.num_bytes == len(words.piece)


def test_what_means_nothing_elsewhere_stays_here() -> None:
    """Our ids, reasoning that nobody signed, items that we do not know."""
    items: list[Item] = [
        msgspec.structs.replace(user_message("hi"), id="msg_1"),
        Reasoning(("hm",), id="rs_1"),
        Reasoning(("hm",), encrypted_content="E", id="rs_2"),
        FunctionCall("c", "f", "{}", id="fc_1"),
        OpaqueItem("web_search_call", msgspec.Raw(b'{"type":"web_search_call"}')),
    ]
    kept = [
        user_message("hi"),
        Reasoning(("hm",), encrypted_content="E"),
        FunctionCall("c", "f", "{}"),
    ]
    assert sendable(items) == kept
    assert Reasoning(("hm",)) in sendable(items, plain_reasoning=True)


def test_images_are_passed_on() -> None:
    raw = b'{"type":"input_image","image_url":"data:x"}'
    image = Message("user", (OpaquePart("input_image", msgspec.Raw(raw)),))
    assert raw in encode_input([image])


def test_a_summary_takes_the_place_of_what_it_hides() -> None:
    start = ItemList().extended([user_message("secret")])
    shown = Compaction(seal(Summary("short")))
    hiding = Compaction(seal(Summary("short", hides_earlier=True)))
    assert len(joined(start.extended([shown]))) == 2
    assert "secret" not in str(joined(start.extended([hiding, user_message("on")])))
    assert [hides_earlier([shown]), hides_earlier([user_message("x"), hiding])] == [False, True]


TOOLS: tuple[Tool, ...] = (
    FunctionTool("run", "runs", {"type": "object"}, True),
    CustomTool("patch", "edits", "start: /x/"),
    CustomTool("say"),
    FunctionTool("find", "", {"type": "object"}, namespace="code"),
    FunctionTool("open", "", {"type": "object"}, namespace="code"),
)


def decoded(fields: dict[str, Any]) -> Any:
    return decode_request(msgspec.json.encode({"model": "m", "input": "hi", **fields}))


def test_tools_and_settings_are_read_back_as_they_were() -> None:
    wanted = OutputFormat("json_schema", {"type": "object"}, "x", True)
    fields = response_fields(
        TOOLS,
        instructions="be brief",
        tool_choice="patch",
        parallel_tool_calls=False,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        max_output_tokens=99,
        output_format=wanted,
        reasoning_effort="low",
    )
    told = decoded(fields)
    assert told.tools == TOOLS
    assert (told.tool_choice, told.parallel_tool_calls, told.store) == ("patch", False, False)
    assert (told.temperature, told.top_p, told.seed) == (0.5, 0.9, 3)
    assert (told.instructions, told.max_output_tokens) == ("be brief", 99)
    assert (told.output_format, told.reasoning_effort) == (wanted, "low")


def test_a_forced_function_and_a_free_form_are_told_apart() -> None:
    assert response_fields(TOOLS, tool_choice="run")["tool_choice"]["type"] == "function"
    assert response_fields(TOOLS, tool_choice="say")["tool_choice"]["type"] == "custom"
    assert decoded(response_fields((), output_format=OutputFormat("json_object"))).output_format


def test_absent_settings_are_absent() -> None:
    assert response_fields(()) == {"store": False}


def test_tool_types_that_are_not_known_stay_here() -> None:
    opaque = OpaqueTool("web_search", msgspec.Raw(b'{"type":"web_search"}'))
    assert orjson.loads(bytes(encode_response_tools((opaque,)))) == []
