"""What is refused before the engine is asked."""

from typing import Any

import pytest

from tests.server.wire import Wire
from tightloop.engine.scripted import ScriptedEngine
from tightloop.server.endpoint import Endpoint

SHELL = {"type": "function", "name": "shell", "parameters": {"type": "object"}}
SEARCH = {"type": "web_search"}


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], "required"),
        ([SEARCH], "required"),
        ([], {"type": "function", "name": "shell"}),
        ([SHELL], {"type": "allowed_tools", "mode": "required", "tools": []}),
    ],
)
async def test_a_call_that_cannot_be_made_is_not_demanded(tools: Any, choice: Any) -> None:
    """Plain text instead would be taken for an answer."""
    wire = Wire(Endpoint(ScriptedEngine()))
    wire.create(tools=tools, tool_choice=choice)
    end = await wire.end()
    assert end["error"]["param"].startswith("tool_choice")


async def test_tools_of_the_context_count() -> None:
    """Clients that send their tools once demand calls of them later."""
    wire = Wire(Endpoint(ScriptedEngine()))
    tools = {"type": "additional_tools", "role": "developer", "tools": [SHELL]}
    wire.create(input=[tools], store=False)
    parent = (await wire.end())["response"]["id"]
    wire.create(previous_response_id=parent, store=False, tool_choice="required")
    assert (await wire.end(2))["type"] == "response.completed"
