from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values, texts
from tightloop.protocol.chat_history import WireMessage, explain, history_items
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    Reasoning,
    TextPart,
)

CALL = {"id": "call_1", "type": "function", "function": {"name": "ls", "arguments": '{"a":1}'}}
CUSTOM = {"id": "call_2", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}


def items(*messages: dict[str, Any]) -> tuple[Item, ...]:
    return history_items(msgspec.convert(list(messages), list[WireMessage])).items


def refusal(*messages: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        items(*messages)
    assert caught.value.status == 400
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value


def said(text: str, role: str = "user") -> Message:
    return Message(role, (TextPart("input_text", text),))


@pytest.mark.parametrize("role", ["system", "developer", "user"])
def test_a_message_with_text(role: str) -> None:
    """As a string or in parts, it is the same message."""
    assert (said("hi", role),) == items({"role": role, "content": "hi"})
    parts = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    assert (said("hi", role),) == items({"role": role, "content": parts})


def test_an_assistant_message_becomes_items_in_the_order_in_which_they_were_made() -> None:
    message = {
        "role": "assistant",
        "content": "let me see",
        "reasoning_content": "hm",
        "tool_calls": [CALL, CUSTOM],
        "function_call": None,
        "provider_specific_fields": {"refusal": None},
        "annotations": [],
    }
    assert (
        Reasoning(("hm",)),
        Message("assistant", (TextPart("output_text", "let me see"),)),
        FunctionCall("call_1", "ls", '{"a":1}'),
        CustomToolCall("call_2", "patch", "*** Begin"),
    ) == items(message)


@pytest.mark.parametrize("content", [None, "", []])
def test_an_assistant_message_of_calls_alone_has_no_empty_text(content: object) -> None:
    """The model wrote none; an item for it would change the prompt that is already computed."""
    message = {"role": "assistant", "content": content, "tool_calls": [CALL]}
    assert (FunctionCall("call_1", "ls", '{"a":1}'),) == items(message)


def test_the_other_name_of_reasoning() -> None:
    assert Reasoning(("hm",)) == items({"role": "assistant", "reasoning": "hm", "content": "x"})[0]


def test_outputs_are_of_the_kind_of_their_call() -> None:
    """A chat client answers both kinds with the same tool message."""
    made = items(
        {"role": "assistant", "tool_calls": [CALL, CUSTOM]},
        {"role": "tool", "tool_call_id": "call_2", "content": "Done!"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "a.py"}]},
    )
    assert (
        CustomToolCallOutput("call_2", "Done!"),
        FunctionCallOutput("call_1", "a.py"),
    ) == made[2:]


def test_an_output_with_an_image_keeps_it() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    content = [{"type": "text", "text": "seen"}, image]
    made = items(
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": content},
    )[1]
    assert isinstance(made, FunctionCallOutput)
    assert made.output == "seen"
    assert [part.type for part in made.parts] == ["input_text", "input_image"]


@pytest.mark.parametrize("image", [{"url": "https://x/y.png", "detail": "low"}, "https://x/y.png"])
def test_an_image_is_written_as_the_responses_api_does(image: object) -> None:
    [message] = items({"role": "user", "content": [{"type": "image_url", "image_url": image}]})
    assert isinstance(message, Message)
    [part] = message.content
    assert isinstance(part, OpaquePart)
    detail = image["detail"] if isinstance(image, dict) else "auto"
    expected = {"type": "input_image", "image_url": "https://x/y.png", "detail": detail}
    assert expected == msgspec.json.decode(part.raw)


def test_files_and_sound_pass_through_for_the_engine_to_judge() -> None:
    sound = {"data": "AA==", "format": "wav"}
    content = [
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "input_audio", "input_audio": sound},
    ]
    [message] = items({"role": "user", "content": content})
    assert isinstance(message, Message)
    raws = [
        msgspec.json.decode(part.raw) for part in message.content if isinstance(part, OpaquePart)
    ]
    assert [
        {"type": "input_file", "file_id": "f"},
        {"type": "input_audio", "input_audio": sound},
    ] == raws


def test_refusals_of_an_assistant_stay_and_its_other_parts_are_passed_over() -> None:
    content = [{"type": "refusal", "refusal": "no"}, {"type": "thinking", "thinking": "hm"}]
    [message] = items({"role": "assistant", "content": content, "refusal": "never"})
    assert isinstance(message, Message)
    assert [part.type for part in message.content] == ["refusal", "refusal"]


def test_the_old_form_of_calls_is_read_in_a_history() -> None:
    """An output without an id belongs to the latest call of its function."""
    made = items(
        {"role": "assistant", "function_call": {"name": "ls", "arguments": "{}"}},
        {"role": "function", "name": "ls", "content": "a.py"},
        {"role": "assistant", "function_call": {"name": "ls", "arguments": "{}"}},
        {"role": "function", "name": "ls", "content": None},
    )
    assert (
        FunctionCall("call_function_0", "ls", "{}"),
        FunctionCallOutput("call_function_0", "a.py"),
        FunctionCall("call_function_2", "ls", "{}"),
        FunctionCallOutput("call_function_2", ""),
    ) == made


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("messages[1].role", {"role": "robot", "content": "hi"}),
        ("messages[1].tool_call_id", {"role": "tool", "content": "hi"}),
        ("messages[1].content[0].text", {"role": "user", "content": [{"type": "text"}]}),
        ("messages[1].content[0].text", {"role": "assistant", "content": [{"type": "text"}]}),
        ("messages[1].content[0].type", {"role": "user", "content": [{"type": "video"}]}),
        ("messages[1].content[0].type", {"role": "user", "content": [{"type": "file"}]}),
        (
            "messages[1].content[0].image_url.url",
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
        ),
        ("messages[1].tool_calls[0]", {"role": "assistant", "tool_calls": [{"id": "a"}]}),
        (
            "messages[1].tool_calls[1]",
            {"role": "assistant", "tool_calls": [CALL, {**CALL, "type": "custom"}]},
        ),
    ],
)
def test_what_cannot_be_understood_is_named(param: str, message: dict[str, Any]) -> None:
    assert param == refusal({"role": "user", "content": "hi"}, message).param


def test_an_output_without_its_call_is_refused_with_its_place_and_a_remedy() -> None:
    """Also when the call comes after it."""
    output = {"role": "tool", "tool_call_id": "call_1", "content": "x"}
    error = refusal(output, {"role": "assistant", "tool_calls": [CALL]})
    assert (error.param, error.code) == ("messages[0].tool_call_id", "invalid_request")
    assert "'call_1'" in error.message
    assert "tool_calls" in error.message


def test_an_output_of_the_old_form_without_its_call_is_refused() -> None:
    with pytest.raises(ApiError, match="'ls'") as caught:
        items({"role": "function", "name": "ls", "content": "x"})
    assert caught.value.param == "messages[0].name"


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("messages[1].role", {"content": "hi"}),
        ("messages[1].content", {"role": "user", "content": 5}),
        ("messages[1].content[1].text", {"role": "user", "content": [{}, {"text": 5}]}),
        ("messages[1].content[0]", {"role": "user", "content": ["hi"]}),
        ("messages[1].tool_calls[1].id", {"role": "assistant", "tool_calls": [CALL, {}]}),
        (
            "messages[1].tool_calls[0].function.name",
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]},
        ),
        ("messages[1].tool_calls", {"role": "assistant", "tool_calls": "x"}),
        ("messages[1]", "hi"),
    ],
)
def test_the_field_with_the_wrong_type_is_named(param: str, message: object) -> None:
    raws = [msgspec.Raw(msgspec.json.encode(m)) for m in ({"role": "user"}, message)]
    with pytest.raises(ApiError) as caught:
        explain(raws)
    assert param == caught.value.param


_parts = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "image_url", "refusal", "file", "other"]),
        "text": texts,
        "image_url": json_values,
        "refusal": texts,
    },
)
_functions = st.fixed_dictionaries({"name": texts, "arguments": texts})
_calls = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b"])},
    optional={"type": st.sampled_from(["function", "custom"]), "function": _functions},
)
_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function"])},
    optional={
        "content": st.none() | texts | st.lists(_parts, max_size=3),
        "tool_calls": st.lists(_calls, max_size=2),
        "tool_call_id": st.sampled_from(["a", "b"]),
        "name": texts,
        "reasoning_content": texts,
        "reasoning": json_values,
        "function_call": _functions,
    },
)


@settings(max_examples=150)
@given(st.lists(_messages, max_size=5))
def test_any_messages_are_items_or_a_refusal(messages: list[dict[str, Any]]) -> None:
    """And every output among the items answers a call before it."""
    try:
        made = items(*messages)
    except ApiError as error:
        made, param = (), error.param or ""
    else:
        param = "messages["
    assert param.startswith("messages[")
    called: set[str] = set()
    for item in made:
        if isinstance(item, FunctionCall | CustomToolCall):
            called.add(item.call_id)
        elif isinstance(item, FunctionCallOutput | CustomToolCallOutput):
            assert item.call_id in called
