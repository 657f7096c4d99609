import json
from typing import Any

import msgspec
import pytest

from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import OpaqueItem
from tightloop.protocol.tools import (
    CustomTool,
    DecodedTools,
    FunctionTool,
    OpaqueTool,
    additional_tools,
    decode_tools,
    tool_key,
)

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "x": 1}
CUSTOM = {
    "type": "custom",
    "name": "apply_patch",
    "description": "d",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
}


def decode(tools: Any) -> DecodedTools:
    return decode_tools(json.dumps(tools).encode())


def test_each_kind_of_tool() -> None:
    decoded = decode([FUNCTION, CUSTOM, {"type": "web_search"}])
    assert decoded.tools == (
        FunctionTool("f", parameters={"type": "object"}),
        CustomTool("apply_patch", "d", "start: /x/"),
        OpaqueTool("web_search", msgspec.Raw(b'{"type":"web_search"}')),
    )
    keys = [("function", "f"), ("custom", "apply_patch"), ("web_search", "")]
    assert [tool_key(tool) for tool in decoded.tools] == keys


def test_the_echo_of_a_function_has_the_keys_strict_clients_want() -> None:
    echo = json.loads(bytes(decode([FUNCTION, CUSTOM]).echo))
    assert echo == [{**FUNCTION, "description": None, "strict": None}, CUSTOM]


def test_the_tools_of_a_namespace_know_it() -> None:
    tools = decode([{"type": "namespace", "name": "functions", "tools": [FUNCTION, CUSTOM]}]).tools
    names = [(tool.name, tool.namespace) for tool in tools if not isinstance(tool, OpaqueTool)]
    assert names == [("f", "functions"), ("apply_patch", "functions")]


def test_additional_tools_come_as_an_item() -> None:
    raw = json.dumps({"type": "additional_tools", "role": "developer", "tools": [FUNCTION]})
    item = OpaqueItem("additional_tools", msgspec.Raw(raw.encode()))
    assert additional_tools(item) == decode([FUNCTION]).tools
    assert additional_tools(OpaqueItem("compaction", msgspec.Raw(b"{}"))) == ()
    with pytest.raises(ApiError):
        additional_tools(OpaqueItem("additional_tools", msgspec.Raw(b"{}")))


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        (3, "tools"),
        ([3], "tools[0]"),
        ([{}], "tools[0].type"),
        ([FUNCTION, {"type": "function"}], "tools[1].name"),
        ([{"type": "function", "name": ""}], "tools[0].name"),
        ([{"type": "function", "name": "f", "parameters": 3}], "tools[0].parameters"),
        ([{"type": "custom", "name": 3}], "tools[0].name"),
        (
            [{"type": "custom", "name": "c", "format": {"definition": 3}}],
            "tools[0].format.definition",
        ),
        (
            [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}],
            "tools[0].tools[0].name",
        ),
    ],
)
def test_errors_name_the_field(tools: Any, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode(tools)
    assert caught.value.param == param
