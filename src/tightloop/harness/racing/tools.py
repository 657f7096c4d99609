"""The tools of a candidate: they look the same to its model, and act in its fork alone."""

from collections.abc import Sequence
from typing import Any

from tightloop.agent.events import ThreadItem
from tightloop.agent.tools.interface import OutsideTool, Tool, ToolContext, ToolResult
from tightloop.agent.tools.update_plan import UpdatePlan


class Withheld:
    """A tool that acts outside of the sandbox: what the losers did with it could not be undone."""

    is_ordered = False

    def __init__(self, tool: Tool) -> None:
        self.name = tool.name
        self._definition = tool.definition()

    def definition(self) -> dict[str, Any]:
        """That of the tool itself, so that what servers have cached of the conversation stays good."""
        return self._definition

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        """See ``Tool.announce``: nothing happens."""
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """See ``Tool.run``: it says why not."""
        text = (
            f"{self.name} acts outside of the workspace and is not available now: several attempts at "
            "this task are made, and what most of them do is thrown away. Go on without it."
        )
        return ToolResult(text, is_ok=False)


def candidate_tools(tools: Sequence[Tool]) -> list[Tool]:
    """The tools for one more candidate; those with a memory of their own anew."""
    return [_own(tool) for tool in tools]


def _own(tool: Tool) -> Tool:
    if isinstance(tool, OutsideTool):
        return Withheld(tool)
    return UpdatePlan() if isinstance(tool, UpdatePlan) else tool
