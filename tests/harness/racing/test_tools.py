"""Candidates act in their fork, and nowhere else."""

from pathlib import Path
from typing import Any

from tightloop.agent.events import ThreadItem
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import Tool, ToolContext, ToolResult
from tightloop.agent.tools.update_plan import UpdatePlan
from tightloop.harness.racing.tools import candidate_tools


class Outside:
    """Acts with the user's own rights."""

    name = "send_mail"
    is_ordered = True
    leaves_sandbox = True
    num_sent = 0

    def describe(self, arguments: str) -> str:
        return arguments

    def definition(self) -> dict[str, Any]:
        return {"type": "function", "name": self.name}

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        self.num_sent += 1
        return ToolResult("sent", is_ok=True)


async def test_what_could_not_be_undone_is_withheld() -> None:
    """The model is told, and the list of tools is the same to the byte."""
    outside, plan, command = Outside(), UpdatePlan(), ExecCommand()
    tools: list[Tool] = [outside, plan, command]
    own = candidate_tools(tools)
    assert [tool.definition() for tool in own] == [tool.definition() for tool in tools]
    assert own[2] is command
    assert isinstance(own[1], UpdatePlan)
    assert own[1] is not plan
    context: Any = ToolContext(Path("/"), None)  # type: ignore[arg-type]
    result = await own[0].run("{}", context)
    assert not result.is_ok
    assert "send_mail acts outside of the workspace" in result.text
    assert (outside.num_sent, own[0].announce("{}", "item_0")) == (0, None)
