"""One tool of an MCP server, as a tool of the agent."""

from typing import Any

import msgspec

from tightloop.agent.events import ErrorBody, McpResult, McpToolCall, ThreadItem
from tightloop.agent.tools.arguments import ArgumentsError, read_object
from tightloop.agent.tools.interface import ToolContext, ToolResult
from tightloop.agent.tools.mcp.content import Answer, for_events, for_model
from tightloop.agent.tools.mcp.naming import clean_description, clean_schema, tool_name
from tightloop.agent.tools.mcp.server import Listed, McpError, McpServer
from tightloop.trace.spans import Span

MAX_SHOWN_CHARS = 300


class McpTool:
    """``sees`` says whether the model can be shown images. Not for calls of other servers' tools.

    Whether calls keep their order is the server's own word: at worst, two calls of one response that
    were said to only read run at the same time.
    """

    def __init__(self, server: McpServer, listed: Listed, *, sees: bool = False) -> None:
        self.name = tool_name(server.name, listed.name)
        self.is_ordered = not listed.is_reading
        self.leaves_sandbox = not server.table.trusted
        self.num_bytes = len(msgspec.json.encode(listed.schema)) + len(listed.description)
        self._server = server
        self._listed = listed
        self._sees = sees

    def definition(self) -> dict[str, Any]:
        """See ``Tool.definition``."""
        return {
            "type": "function",
            "name": self.name,
            "description": clean_description(self._listed.description),
            "strict": False,
            "parameters": clean_schema(self._listed.schema),
        }

    def describe(self, arguments: str) -> str:
        """See ``OutsideTool.describe``."""
        line = " ".join(arguments.split())
        if len(line) > MAX_SHOWN_CHARS:
            line = f"{line[: MAX_SHOWN_CHARS - 4]} ..."
        return f"mcp {self._server.name} {self._listed.name} {line}".rstrip()

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        """See ``Tool.announce``; None for bad arguments."""
        try:
            fields = read_object(arguments, self.name, "{}")
        except ArgumentsError:
            return None
        return McpToolCall(item_id, self._server.name, self._listed.name, fields)

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """See ``Tool.run``."""
        try:
            fields = read_object(arguments, self.name, "a JSON object that fits its schema")
        except ArgumentsError as error:
            return ToolResult(str(error), is_ok=False)
        item = McpToolCall(context.item_id, self._server.name, self._listed.name, fields)
        start_ns = context.clock.now_ns()
        try:
            answer = await self._server.call(self._listed.name, fields)
        except McpError as error:
            said = context.redact(str(error))
            failed = msgspec.structs.replace(item, error=ErrorBody(said), status="failed")
            return ToolResult(
                f"{self.name}: {said}", False, (self._span(start_ns, context),), failed
            )
        text, parts = for_model(answer, sees=self._sees, redact=context.redact)
        shown = msgspec.structs.replace(
            item,
            result=McpResult(for_events(answer.blocks, context.redact), _structured(answer)),
            status="failed" if answer.is_error else "completed",
        )
        span = self._span(start_ns, context)
        return ToolResult(text, not answer.is_error, (span,), shown, parts)

    def _span(self, start_ns: int, context: ToolContext) -> Span:
        name = f"mcp {self._server.name} {self._listed.name}"
        return Span("tool", start_ns, context.clock.now_ns(), name)


def _structured(answer: Answer) -> Any:
    """For the events; a large value is already in the text."""
    if len(msgspec.json.encode(answer.structured)) > 1 << 14:
        return None
    return answer.structured
