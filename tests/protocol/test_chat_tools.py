from typing import Any

import msgspec
import pytest

from tightloop.protocol.chat_tools import apply_chat_choice, decode_chat_tools
from tightloop.protocol.errors import ApiError
from tightloop.protocol.tools import CustomTool, FunctionTool, OpaqueTool, Tool

SCHEMA = {"type": "object", "properties": {"cmd": {"type": "string"}}}
LS = FunctionTool("ls")
PATCH = CustomTool("patch")
TOOLS: tuple[Tool, ...] = (LS, PATCH)


def tools(*fields: dict[str, Any]) -> tuple[Tool, ...]:
    return decode_chat_tools(msgspec.json.encode(list(fields)))


def named(kind: str, name: str = "") -> dict[str, Any]:
    return {"type": kind, kind: {"name": name}}


def test_a_function() -> None:
    function = {"name": "sh", "description": "run", "parameters": SCHEMA, "strict": True}
    expected = (FunctionTool("sh", "run", SCHEMA, strict=True),)
    assert expected == tools({"type": "function", "function": function})


def test_a_function_with_nothing_but_a_name() -> None:
    assert tools(named("function", "ls")) == (LS,)


def test_a_custom_tool_with_and_without_a_grammar() -> None:
    grammar = {"definition": "start: /a/", "syntax": "lark"}
    custom = {"name": "patch", "format": {"type": "grammar", "grammar": grammar}}
    expected = (CustomTool("patch", grammar="start: /a/"),)
    assert expected == tools({"type": "custom", "custom": custom})
    free = {"name": "patch", "description": "d", "format": {"type": "text"}}
    assert (CustomTool("patch", "d"),) == tools({"type": "custom", "custom": free})


def test_a_regex_grammar() -> None:
    grammar = {"definition": "[a-z]+", "syntax": "regex"}
    custom = {"name": "word", "format": {"type": "grammar", "grammar": grammar}}
    expected = (CustomTool("word", grammar="[a-z]+", syntax="regex"),)
    assert expected == tools({"type": "custom", "custom": custom})


def test_other_types_are_kept_for_nobody() -> None:
    """They are not refused: a client lists what some other host of the same model could do."""
    [tool] = tools({"type": "web_search", "web_search": {}})
    assert isinstance(tool, OpaqueTool)
    assert tool.type == "web_search"


def test_no_tools() -> None:
    assert () == decode_chat_tools(b"null") == tools()


@pytest.mark.parametrize(
    ("param", "tool"),
    [
        ("tools[1].function", {"type": "function"}),
        ("tools[1].custom", {"type": "custom"}),
        ("tools[1].function.name", {"type": "function", "function": {}}),
        ("tools[1].function.name", named("function")),
        ("tools[1].custom.name", {"type": "custom", "custom": {"name": 1}}),
        ("tools[1].function.parameters", {"function": {"name": "a", "parameters": []}}),
        (
            "tools[1].custom.format.grammar",
            {"type": "custom", "custom": {"name": "a", "format": {"type": "grammar"}}},
        ),
        (
            "tools[1].custom.format.grammar.syntax",
            {
                "type": "custom",
                "custom": {
                    "name": "a",
                    "format": {"type": "grammar", "grammar": {"definition": "", "syntax": "x"}},
                },
            },
        ),
        ("tools[1].type", {"type": 1}),
    ],
)
def test_what_is_wrong_with_a_tool_is_named(param: str, tool: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        tools(named("function", "ls"), tool)
    assert param == caught.value.param


def test_tools_that_are_no_list() -> None:
    with pytest.raises(ApiError) as caught:
        decode_chat_tools(b'{"type":"function"}')
    assert caught.value.param == "tools"


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_choice_in_one_word(choice: str) -> None:
    assert (TOOLS, choice) == apply_chat_choice(choice, TOOLS)


def test_no_choice_is_auto() -> None:
    assert apply_chat_choice(None, TOOLS) == (TOOLS, "auto")


def test_one_tool_can_be_forced() -> None:
    assert apply_chat_choice(named("function", "ls"), TOOLS) == (TOOLS, "ls")
    assert apply_chat_choice(named("custom", "patch"), TOOLS) == (TOOLS, "patch")


def test_allowed_tools_hide_the_others() -> None:
    allowed = {"mode": "required", "tools": [named("function", "ls")]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    assert apply_chat_choice(choice, TOOLS) == ((LS,), "required")


@pytest.mark.parametrize(
    ("param", "choice"),
    [
        ("tool_choice", "always"),
        ("tool_choice.type", {}),
        ("tool_choice.type", {"type": "hosted"}),
        ("tool_choice.function.name", {"type": "function", "name": "ls"}),
        ("tool_choice.function.name", named("function", "patch")),
        ("tool_choice.custom.name", named("custom", "rm")),
        ("tool_choice.allowed_tools", {"type": "allowed_tools"}),
        ("tool_choice.allowed_tools.tools", {"type": "allowed_tools", "allowed_tools": {}}),
        (
            "tool_choice.allowed_tools.mode",
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
        ),
        (
            "tool_choice.allowed_tools.mode",  # nothing is left that could be required
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
        ),
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(param: str, choice: Any) -> None:
    with pytest.raises(ApiError) as caught:
        apply_chat_choice(choice, TOOLS)
    assert param == caught.value.param


def test_a_call_cannot_be_required_without_tools() -> None:
    with pytest.raises(ApiError, match="no tools"):
        apply_chat_choice("required", ())
