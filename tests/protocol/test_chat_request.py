from typing import Any

import msgspec
import pytest

from tightloop.protocol.chat_request import (
    IMAGE_FOLLOWS,
    NO_OUTPUT,
    build_messages,
    build_request,
    custom_tool_names,
)
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
    user_message,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool, OpaqueTool, Tool

USER = user_message("hi")


def message(role: str, text: str) -> Message:
    return Message(role, (TextPart("input_text", text),))


def part(raw: bytes) -> OpaquePart:
    return OpaquePart(msgspec.json.decode(raw)["type"], msgspec.Raw(raw))


def wire_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def test_a_whole_agent_turn() -> None:
    items: list[Item] = [
        message("developer", "D"),
        USER,
        Reasoning(("hm",)),
        message("assistant", "I look."),
        FunctionCall("c1", "shell", '{"cmd":"ls"}'),
        CustomToolCall("c2", "apply_patch", 'a "b"'),
        CustomToolCallOutput("c2", "patched"),
        FunctionCallOutput("c1", "x.py"),
        message("assistant", "Done."),
    ]
    assert build_messages(items, "I") == [
        {"role": "system", "content": "I\n\nD"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                wire_call("c1", "shell", '{"cmd":"ls"}'),
                wire_call("c2", "apply_patch", '{"input":"a \\"b\\""}'),
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "x.py"},
        {"role": "tool", "tool_call_id": "c2", "content": "patched"},
        {"role": "assistant", "content": "Done."},
    ]


def test_only_leading_system_messages_are_merged() -> None:
    """Templates accept one system message, first; later ones must not move, or caches break."""
    items = [message("system", "a"), message("developer", "b"), USER, message("developer", "c")]
    assert build_messages(items) == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "hi"},
        {"role": "user", "content": "c"},
    ]
    assert build_messages([USER]) == [{"role": "user", "content": "hi"}]


def test_sequential_calls_stay_separate_turns() -> None:
    items: list[Item] = [
        FunctionCall("c1", "f", ""),
        FunctionCallOutput("c1", "1"),
        FunctionCall("c2", "f", "{}"),
        FunctionCallOutput("c2", "2"),
    ]
    roles = [entry["role"] for entry in build_messages(items)]
    assert roles == ["assistant", "tool", "assistant", "tool"]


def test_an_interrupted_call_gets_a_stand_in_and_a_lost_one_is_refused() -> None:
    entries = build_messages([FunctionCall("c1", "f", "{}"), USER])
    assert entries[1] == {"role": "tool", "tool_call_id": "c1", "content": NO_OUTPUT}
    with pytest.raises(ApiError) as caught:
        build_messages([USER, FunctionCallOutput("c9", "x")])
    assert caught.value.param == "input[1].call_id"


def test_reasoning_is_sent_back_only_on_request() -> None:
    items: list[Item] = [USER, Reasoning(("sum",), content=("raw",)), message("assistant", "a")]
    assert "reasoning_content" not in build_messages(items)[1]
    assert build_messages(items, include_reasoning=True)[1]["reasoning_content"] == "raw"
    assert len(build_messages([USER, Reasoning(("sum",))])) == 1


def test_images_are_carried_and_files_refused() -> None:
    image = part(b'{"type":"input_image","image_url":"data:x","detail":"low"}')
    items = [Message("user", (TextPart("input_text", "see"), image))]
    assert build_messages(items)[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
    ]
    for raw in (b'{"type":"input_file","file_id":"f"}', b'{"type":"input_image","file_id":"f"}'):
        with pytest.raises(ApiError) as caught:
            build_messages([Message("user", (part(raw),))])
        assert str(caught.value.param).startswith("input[0].content[0]")


def test_images_in_outputs_follow_all_outputs_of_the_turn() -> None:
    """A chat wants its tool messages next to their calls, and text in them."""
    image = part(b'{"type":"input_image","image_url":"data:x"}')
    items: list[Item] = [
        FunctionCall("c1", "look", "{}"),
        CustomToolCall("c2", "draw", "a line"),
        FunctionCallOutput("c1", "", parts=(image,)),
        CustomToolCallOutput("c2", "done", parts=(TextPart("input_text", "done"), image)),
    ]
    shown = {"type": "image_url", "image_url": {"url": "data:x"}}
    assert build_messages(items)[1:] == [
        {"role": "tool", "tool_call_id": "c1", "content": IMAGE_FOLLOWS},
        {"role": "tool", "tool_call_id": "c2", "content": "done"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Output of c1:"},
                shown,
                {"type": "text", "text": "Output of c2:"},
                shown,
            ],
        },
    ]


@pytest.mark.parametrize("role", ["developer", "assistant", "user"])
def test_parts_that_a_chat_has_no_place_for_are_refused(role: str) -> None:
    odd = Message(role, (part(b'{"type":"input_file","file_id":"f"}'),))
    with pytest.raises(ApiError, match="input_file") as refused:
        build_messages([odd])
    assert refused.value.param == "input[0].content[0].type"
    assert refused.value.code == "unsupported_content"


def test_an_odd_part_of_an_output_is_refused_with_its_place() -> None:
    output = FunctionCallOutput("c", "", parts=(part(b'{"type":"input_file","file_id":"f"}'),))
    with pytest.raises(ApiError) as refused:
        build_messages([FunctionCall("c", "look", "{}"), output])
    assert refused.value.param == "input[1].output[0].type"


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (OutputFormat("json_object"), {"type": "json_object"}),
        (
            OutputFormat("json_schema", {"type": "object"}, "thing", True),
            {
                "type": "json_schema",
                "json_schema": {"name": "thing", "schema": {"type": "object"}, "strict": True},
            },
        ),
        (
            OutputFormat("json_schema", {"type": "object"}, "thing"),
            {
                "type": "json_schema",
                "json_schema": {"name": "thing", "schema": {"type": "object"}},
            },
        ),
    ],
)
def test_the_output_format_is_passed_on(wanted: OutputFormat, sent: dict[str, Any]) -> None:
    body = build_request([], model="m", output_format=wanted, reasoning_effort="low")
    assert body["response_format"] == sent
    assert body["reasoning_effort"] == "low"


def test_a_grammar_becomes_a_note() -> None:
    tools = [CustomTool("a", grammar="G"), CustomTool("b", grammar="R", syntax="regex")]
    body = build_request([], tools=tools, model="m")
    notes = [tool["function"]["description"] for tool in body["tools"]]
    assert notes == [
        "The input follows this Lark grammar:\nG",
        "The input follows this regular expression:\nR",
    ]


def test_a_refusal_is_assistant_text_and_opaque_items_say_nothing() -> None:
    refusal = Message("assistant", (part(b'{"type":"refusal","refusal":"no"}'),))
    opaque = OpaqueItem("compaction", msgspec.Raw(b'{"type":"compaction"}'))
    assert build_messages([opaque, USER, refusal, opaque]) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "no"},
    ]


def test_tools_and_choices() -> None:
    tools: list[Tool] = [
        FunctionTool("f", "d", {"type": "object"}, strict=True),
        FunctionTool("g"),
        CustomTool("apply_patch", "Edit.", "start: /x/"),
        OpaqueTool("web_search", msgspec.Raw(b"{}")),
    ]
    body = build_request([USER], None, tools, model="m", tool_choice="apply_patch")
    f, g, patch = [tool["function"] for tool in body["tools"]]
    assert f == {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert g["parameters"] == {"type": "object", "properties": {}}
    assert patch["parameters"]["required"] == ["input"]
    assert patch["description"].startswith("Edit.")
    assert "start: /x/" in patch["description"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "apply_patch"}}
    assert custom_tool_names(tools) == {"apply_patch"}


def test_absent_settings_are_absent() -> None:
    assert build_request([USER], model="m", tool_choice="none") == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = build_request(
        [USER],
        tools=[FunctionTool("f")],
        model="m",
        temperature=0.0,
        top_p=0.5,
        seed=1,
        max_output_tokens=16,
        stop=["x"],
        parallel_tool_calls=False,
        stream=False,
    )
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.0, 16, ["x"])
    assert body["parallel_tool_calls"] is False
    assert "stream_options" not in body
