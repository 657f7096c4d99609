from typing import Any

import msgspec
import pytest

from tightloop.protocol.chat_request import build_request, custom_tool_names
from tightloop.protocol.items import user_message
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool, OpaqueTool, Tool

USER = user_message("hi")


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
