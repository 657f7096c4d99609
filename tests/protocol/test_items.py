import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from tests.strategies import items, json_values, objects
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    MAX_INPUT_CHARS,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Reasoning,
    TextPart,
    decode_input,
    decode_item,
    encode_item,
    encode_items,
    item_from_wire,
    user_message,
)


def decode(value: Any) -> tuple[Item, ...]:
    return decode_input(json.dumps(value).encode())


def test_text_becomes_a_user_message() -> None:
    assert (user_message("hi"),) == decode_input("hi")
    assert (user_message('a "b"\n'),) == decode('a "b"\n')


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(ApiError, match="10485761 characters") as caught:
        decode_input("x" * (MAX_INPUT_CHARS + 1))
    assert caught.value.param == "input"


def test_messages_may_lack_type_and_have_text_content() -> None:
    wire = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "phase": "final_answer"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "c"}]},
        {"type": "message", "role": "assistant", "content": None},
    ]
    assert decode(wire) == (
        Message("user", (TextPart("input_text", "a"),)),
        Message("assistant", (TextPart("output_text", "b"),), phase="final_answer"),
        Message("developer", (TextPart("input_text", "c"),)),
        Message("assistant", ()),
    )


def test_unknown_keys_are_ignored_and_unknown_types_kept_byte_for_byte() -> None:
    raw = b'{ "type":"tool_search_call", "arguments": {"q" : 1.50}, "role": 3 }'
    wire = (
        b'[{"type":"function_call","call_id":"c","name":"f","arguments":"{}","x":1}, ' + raw + b"]"
    )
    call, opaque = decode_input(wire)
    assert call == FunctionCall("c", "f", "{}")
    assert opaque == OpaqueItem("tool_search_call", msgspec.Raw(raw))


def test_opaque_bytes_do_not_pin_the_request() -> None:
    """A ``Raw`` that is a view would keep the whole body alive in a stored conversation."""
    body = b'[{"type":"item_reference","id":"cmp_1"}]' + b" " * 1000
    (item,) = decode_input(body)
    assert isinstance(item, OpaqueItem)
    assert memoryview(item.raw).obj is not body


def test_content_parts_that_are_not_text_are_kept() -> None:
    image = b'{"type":"input_image","image_url":"data:x"}'
    wire = b'[{"role":"user","content":[%b,{"type":"input_text","text":"a"}]}]' % image
    (message,) = decode_input(wire)
    assert isinstance(message, Message)
    assert message.content == (
        OpaquePart("input_image", msgspec.Raw(image)),
        TextPart("input_text", "a"),
    )
    assert message.text == "a"


def test_outputs_may_be_lists_of_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "x"}]
    wire = [
        {"type": "function_call_output", "call_id": "c1", "output": parts},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "b"},
    ]
    image = OpaquePart("input_image", msgspec.Raw(json.dumps(parts[1]).encode()))
    assert decode(wire) == (
        FunctionCallOutput("c1", "a", parts=(TextPart("input_text", "a"), image)),
        CustomToolCallOutput("c2", "b"),
    )


def test_reasoning_keeps_what_must_be_echoed() -> None:
    wire = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "a"}],
        "content": None,
        "encrypted_content": "E",
    }
    assert decode([wire]) == (Reasoning(("a",), "E", "rs_1"),)
    assert decode([{"type": "reasoning", "encrypted_content": ""}]) == (Reasoning(),)


@pytest.mark.parametrize(
    ("wire", "param", "code"),
    [
        (3, "input", "invalid_type"),
        ({}, "input", "invalid_type"),
        ([3], "input[0]", "invalid_type"),
        ([{}], "input[0].type", "missing_required_parameter"),
        ([{"type": 3}], "input[0].type", "invalid_type"),
        ([{"role": "user", "content": 3}], "input[0].content", "invalid_type"),
        (
            ["x", {"type": "function_call", "name": "f", "arguments": ""}],
            "input[0]",
            "invalid_type",
        ),
        (
            [{"role": "user"}, {"type": "function_call", "name": "f", "arguments": ""}],
            "input[1].call_id",
            "missing_required_parameter",
        ),
        (
            [{"type": "function_call_output", "call_id": "c", "output": 3}],
            "input[0].output",
            "invalid_type",
        ),
        (
            [{"role": "user", "content": [{"type": "input_text"}]}],
            "input[0].content[0].text",
            "missing_required_parameter",
        ),
    ],
)
def test_errors_name_the_field(wire: Any, param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode(wire)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert param in caught.value.message


def test_malformed_bytes_are_invalid_json() -> None:
    deep = b'[{"type":"x","a":' + b"[" * 100_000
    for raw in (b"[", deep, b'[{"type":"x"},]', b'[{"type":"x","a":"\\q"}, {"role":"\xff"}]'):
        with pytest.raises(ApiError) as caught:
            decode_input(raw)
        assert caught.value.code == "invalid_json"


def test_an_opaque_part_survives_the_wire() -> None:
    item = Message("user", (OpaquePart("input_file", msgspec.Raw(b'{"type":"input_file"}')),))
    assert item_from_wire(encode_item(item)) == item
    assert decode_item(msgspec.Raw(b'{"type":"x"}')) == OpaqueItem(
        "x", msgspec.Raw(b'{"type":"x"}')
    )


def test_a_value_that_is_no_json_is_refused() -> None:
    for wire in ({"type": "x", "a": object()}, {"type": "x", "a": "\ud83d"}):
        with pytest.raises(ApiError, match="is not JSON"):
            decode_item(wire)
    with pytest.raises(ApiError, match=r"input\[0\] is not JSON"):
        decode_input([object()])
    with pytest.raises(ApiError, match="not JSON"):
        decode_item(b"{")


@given(items)
@settings(max_examples=60, deadline=None)
def test_an_item_survives_the_wire(item: Item) -> None:
    wire = encode_item(item)
    assert item_from_wire(json.loads(json.dumps(wire))) == item
    assert decode_item(json.dumps(wire).encode()) == item
    assert decode_input([wire, wire]) == (item, item)


def test_an_opaque_item_survives_the_wire() -> None:
    item = OpaqueItem("item_reference", msgspec.Raw(b'{"type":"item_reference","id":"cmp_1"}'))
    assert item_from_wire(encode_item(item)) == item


@given(json_values | objects())
@settings(max_examples=100, deadline=None)
def test_any_value_gives_items_or_the_documented_error(value: Any) -> None:
    param = "input"
    try:
        decode([value])
    except ApiError as error:
        param = str(error.param)
    assert param.startswith("input")


def test_a_list_for_the_disk_reads_back_the_same() -> None:
    """Opaque bytes untouched, whatever number or depth they hold."""
    part = b'{"type":"odd","n":%b}' % (b"9" * 40)
    message = b'{"role":"user","content":[%b,{"type":"input_text","text":"a"}]}' % part
    text = b'[{"type":"weird","n":1e400},%b,{"type":"reasoning","summary":[]}]' % message
    items = decode_input(text)
    assert decode_input(encode_items(items)) == items
