"""Each name means one tool."""

import pytest
from msgspec import Raw

from tests.engine.collecting import request
from tightloop.engine.interface import EngineError
from tightloop.engine.tool_names import distinct, offered
from tightloop.protocol.requests import CustomTool, FunctionTool, OpaqueTool, Tool


def test_a_tool_told_again_is_as_it_was_told_last_and_opaque_ones_cannot_be_called() -> None:
    old, new = FunctionTool("run", "old", namespace="a"), FunctionTool("run", "new", namespace="a")
    other = CustomTool("patch")
    opaque = OpaqueTool("web_search", Raw(b"{}"))
    assert distinct([old, opaque, other, new]) == (new, other)
    assert distinct([]) == ()


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("a", "b", "one in the namespace 'a' and one in the namespace 'b'"),
        (None, "b", "one outside any namespace and one in the namespace 'b'"),
    ],
)
def test_one_name_in_two_namespaces_is_refused(
    first: str | None, second: str | None, words: str
) -> None:
    tools: list[Tool] = [
        FunctionTool("find", namespace=first),
        CustomTool("find", namespace=second),
    ]
    with pytest.raises(EngineError, match=f"called 'find', {words}") as refused:
        distinct(tools)
    assert refused.value.code == "invalid_value"


OPAQUE = OpaqueTool("web_search", Raw(b"{}"))


@pytest.mark.parametrize("choice", ["required", "run"])
@pytest.mark.parametrize("tools", [(), (OPAQUE,)])
def test_a_call_that_cannot_be_made_cannot_be_demanded(
    choice: str, tools: tuple[Tool, ...]
) -> None:
    with pytest.raises(EngineError, match="no function or custom tool is offered") as refused:
        offered(request(tools=tools, tool_choice=choice))
    assert refused.value.code == "invalid_value"
    assert offered(request(tools=tools)) == ()


def test_a_demanded_tool_is_among_those_offered() -> None:
    tools = (FunctionTool("run"), OPAQUE)
    assert offered(request(tools=tools, tool_choice="run")) == tools[:1]
    with pytest.raises(EngineError, match="'walk', which is not among"):
        offered(request(tools=tools, tool_choice="walk"))
