"""Blocks of the Messages dialect become the items they stand for, in place and in order."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from tests.strategies import json_values
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    Reasoning,
    TextPart,
)
from tightloop.protocol.messages_blocks import ERROR_MARK, decode_messages

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PNG_PART = {
    "type": "input_image",
    "detail": "auto",
    "image_url": "data:image/png;base64,AAAA",
}
CALL = {"type": "tool_use", "id": "call_1", "name": "Bash", "input": {"command": "ls"}}
CALLED = FunctionCall("call_1", "Bash", '{"command": "ls"}')


def decode(*messages: dict[str, Any]) -> tuple[Item, ...]:
    return decode_messages(json.dumps(messages, indent=1).replace("{\n", "{ \n").encode()).items


def blocks(*content: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def said(role: str, *texts: str) -> Message:
    kind = "output_text" if role == "assistant" else "input_text"
    return Message(role, tuple(TextPart(kind, value) for value in texts))


def refusal(*messages: Any) -> tuple[str | None, str | None]:
    with pytest.raises(ApiError) as caught:
        decode_messages(json.dumps(messages).encode())
    assert caught.value.status == 400
    return caught.value.code, caught.value.param


def test_strings_and_text_blocks_are_the_same() -> None:
    """A client changes from one to the other when its cache mark moves to another message."""
    plain = decode({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"})
    marked = decode(
        blocks(text("hi", cache_control={"type": "ephemeral"})),
        blocks(text("yo", citations=None), role="assistant"),
    )
    assert (said("user", "hi"), said("assistant", "yo")) == plain == marked


def test_a_turn_of_tools_keeps_its_order() -> None:
    """Text, then parallel calls; then results, and what the user adds to them."""
    second = {**CALL, "id": "call_2"}
    found = decode_messages(
        json.dumps(
            [
                blocks(text("Look."), CALL, second, role="assistant"),
                blocks(
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "b"},
                    {"type": "tool_result", "tool_use_id": "call_1", "content": [text("a")]},
                    text("and?"),
                ),
            ]
        ).encode()
    )
    assert (
        said("assistant", "Look."),
        CALLED,
        FunctionCall("call_2", "Bash", '{"command": "ls"}'),
        FunctionCallOutput("call_2", "b"),
        FunctionCallOutput("call_1", "a"),
        said("user", "and?"),
    ) == found.items


def test_the_input_of_a_call_is_kept_as_it_was_written() -> None:
    """The order of keys is part of the prompt, and a float stays a float."""
    raw = b'[{"role":"assistant","content":[{"type":"tool_use","id":"c","name":"f","input":{"b":1.0,"a":"\\u00e9"}}]}]'
    assert (FunctionCall("c", "f", '{"b":1.0,"a":"\\u00e9"}'),) == decode_messages(raw).items


def test_a_call_without_input_has_an_empty_object() -> None:
    call = {"type": "tool_use", "id": "c", "name": "f"}
    assert (FunctionCall("c", "f", "{}"),) == decode(blocks(call, role="assistant"))


def test_a_system_message_stays_where_it_is() -> None:
    """Claude Code sends reminders in the middle of a conversation."""
    found = decode(
        {"role": "user", "content": "a"},
        {"role": "system", "content": "mind this"},
        blocks(text("and"), text("that"), role="system"),
    )
    assert (
        said("user", "a"),
        said("developer", "mind this"),
        said("developer", "and", "that"),
    ) == (found)


def test_an_error_of_a_tool_is_said_in_its_text() -> None:
    """Items have no field for it."""
    result = {"type": "tool_result", "tool_use_id": "call_1", "is_error": True}
    found = decode(
        blocks(CALL, role="assistant"),
        blocks({**result, "content": "no"}, {**result, "content": [text("no")]}, result),
    )
    marked = FunctionCallOutput("call_1", f"{ERROR_MARK}no")
    assert (marked, marked, FunctionCallOutput("call_1", ERROR_MARK)) == found[1:]


def test_images_become_parts_of_the_responses_api() -> None:
    """With the data as a URL, in a message and in a tool's result."""
    linked = {"type": "image", "source": {"type": "url", "url": "https://h/i.png"}}
    filed = {"type": "image", "source": {"type": "file", "file_id": "f1"}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [text("see"), PNG]}
    message, _call, output = decode(
        blocks(text("what"), PNG, linked, filed), blocks(CALL, role="assistant"), blocks(result)
    )
    assert isinstance(message, Message)
    assert isinstance(output, FunctionCallOutput)
    assert TextPart("input_text", "what") == message.content[0]
    opaque = [part for part in message.content if isinstance(part, OpaquePart)]
    assert {"input_image"} == {part.type for part in opaque}
    assert [json.loads(bytes(part.raw)) for part in opaque] == [
        PNG_PART,
        {"type": "input_image", "detail": "auto", "image_url": "https://h/i.png"},
        {"type": "input_image", "detail": "auto", "file_id": "f1"},
    ]
    seen, image = output.parts
    assert (TextPart("input_text", "see"), "see") == (seen, output.output)
    assert isinstance(image, OpaquePart)
    assert json.loads(bytes(image.raw)) == PNG_PART


def test_documents_are_text_or_files() -> None:
    """Text goes into the prompt; anything else is for an engine that reads files."""
    plain = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "T"},
    }
    pdf = {"type": "document", "title": "a.pdf", "source": {"type": "base64", "data": "AA"}}
    link = {"type": "document", "source": {"type": "url", "url": "https://h/a.pdf"}}
    stored = {"type": "document", "source": {"type": "file", "file_id": "f"}}
    (message,) = decode(blocks(plain, pdf, link, stored))
    assert isinstance(message, Message)
    assert message.text == "T"
    assert [
        json.loads(bytes(part.raw)) for part in message.content if isinstance(part, OpaquePart)
    ] == [
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "input_file", "file_url": "https://h/a.pdf"},
        {"type": "input_file", "file_id": "f"},
    ]


def test_thinking_comes_back_as_reasoning() -> None:
    """As our own answers have it; what nobody can read is left out."""
    found = decode(
        blocks(
            {"type": "thinking", "thinking": "plan", "signature": ""},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "thinking", "thinking": "", "signature": "s"},
            text("ok"),
            role="assistant",
        )
    )
    assert (Reasoning(("plan",)), said("assistant", "ok")) == found


def test_unknown_blocks_are_left_out_whatever_they_hold() -> None:
    """Also where they use a name of ours for something else, and inside a result."""
    odd = {"type": "web_search_tool_result", "tool_use_id": 7, "content": {"type": "error"}}
    reference = {"type": "tool_reference", "source": "here"}
    result = {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": [reference, text("x"), PNG],
    }
    items = decode(
        {"role": "user", "content": "plain"},
        blocks(text("a"), odd, CALL, role="assistant"),
        blocks(odd, result, {**result, "content": None}, {**result, "content": "s"}),
    )
    assert [said("user", "plain"), said("assistant", "a"), FunctionCall] == [
        items[0],
        items[1],
        type(items[2]),
    ]
    outputs = [item.output for item in items[3:] if isinstance(item, FunctionCallOutput)]
    assert outputs == ["x", "", "s"]
    assert isinstance(items[3], FunctionCallOutput)
    assert len(items[3].parts) == 2


def test_empty_text_blocks_say_nothing() -> None:
    """They neither make a message nor split one."""
    assert (said("user", "a", "b"),) == decode(blocks(text("a"), text(""), text("b")))
    assert decode(blocks(text(""))) == ()


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"type": "text"}, "text"),
        ({"type": "tool_use", "name": "f", "input": {}}, "id"),
        ({"type": "tool_use", "id": "c", "input": {}}, "name"),
        ({"type": "tool_result", "content": "x"}, "tool_use_id"),
        ({"type": "image"}, "source"),
        ({}, "type"),
    ],
)
def test_a_missing_field_is_named_with_its_path(content: dict[str, Any], param: str) -> None:
    assert ("missing_required_parameter", f"messages[1].content[0].{param}") == refusal(
        {"role": "user", "content": "x"}, blocks(content)
    )


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        ({**CALL, "input": "ls"}, "invalid_type", "input"),
        ({"type": "text", "text": 5}, "invalid_type", "text"),
        ({"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": 1}]},
         "invalid_type", "content[0].text"),
        ({"type": "tool_result", "tool_use_id": "c", "content": 7}, "invalid_type", "content"),
        ({"type": "tool_result", "tool_use_id": "c"}, "invalid_request", "tool_use_id"),
        ({"type": "image", "source": {"type": "base64"}}, "invalid_value", "source"),
        ({"type": "image", "source": {"type": "x", "url": "u"}}, "invalid_value", "source"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_path(
    content: dict[str, Any], code: str, param: str
) -> None:
    assert (code, f"messages[1].content[1].{param}") == refusal(
        {"role": "user", "content": "x"}, blocks(text("y"), content)
    )


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"role": "tool", "content": "x"}, "invalid_value", "messages[0].role"),
        ({"role": "user", "content": None}, "invalid_type", "messages[0].content"),
        ({"role": "user", "content": 3}, "invalid_type", "messages[0].content"),
        ({"role": "user"}, "missing_required_parameter", "messages[0].content"),
        ({"content": "x"}, "missing_required_parameter", "messages[0].role"),
        (5, "invalid_type", "messages[0]"),
    ],
)
def test_a_wrong_message_is_named(message: Any, code: str, param: str) -> None:
    assert (code, param) == refusal(message)


@pytest.mark.parametrize("depth", [300, 3000, 100_000])
def test_results_in_results_are_no_endless_matter(depth: int) -> None:
    """Only the outermost counts, whichever way the message is decoded."""
    inner = (
        b"[" + b'{"type":"tool_result","tool_use_id":"c","content":[' * depth + b"]}" * depth + b"]"
    )
    for start in (b"", b'{"type":"odd","text":5},'):
        raw = b'[{"role":"user","content":[%b{"type":"tool_use","id":"c","name":"f"},' % start
        refused: ApiError | None = None
        try:
            items = decode_messages(raw + inner[1:] + b"}]").items
        except ApiError as error:
            refused = error
        assert refused is not None or [FunctionCall, FunctionCallOutput] == [*map(type, items)]
        assert refused is None or "nested too deeply" in refused.message


@settings(max_examples=150)
@given(json_values)
def test_any_json_is_items_or_a_refusal(value: object) -> None:
    """Never another exception, at any level."""
    for candidate in (
        value,
        [value],
        [{"role": "user", "content": value}],
        [{"role": "assistant", "content": [value]}],
        [blocks(CALL, {"type": "tool_result", "tool_use_id": "call_1", "content": value})],
        [blocks({"type": "image", "source": value}, {"type": "unknown", "text": value})],
    ):
        refused: ApiError | None = None
        try:
            decode_messages(json.dumps(candidate).encode())
        except ApiError as error:
            refused = error
        assert refused is None or (refused.param or "").startswith("messages")
