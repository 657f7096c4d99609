"""What a call comes to that was not allowed to run."""

from msgspec import structs

from tightloop.agent.events import (
    CommandExecution,
    ErrorBody,
    ErrorItem,
    FileChange,
    McpToolCall,
    ThreadItem,
)
from tightloop.agent.tools.interface import Tool, ToolResult


def declined(refusal: str, tool: Tool, shown: ThreadItem | None, item_id: str) -> ToolResult:
    """The result of a declined call: an output for the model, so that the conversation stays
    complete, and the final state of the item that was ``shown``, if one was."""
    text = f"{tool.name}: {refusal}"
    item: ThreadItem
    if isinstance(shown, CommandExecution):
        item = structs.replace(shown, aggregated_output=refusal, status="declined")
    elif isinstance(shown, McpToolCall):
        item = structs.replace(shown, error=ErrorBody(refusal), status="failed")
    elif tool.name == "apply_patch":
        item = FileChange(item_id, (), "failed", refusal)
    else:
        item = ErrorItem(item_id, text)
    return ToolResult(text, is_ok=False, item=item)
