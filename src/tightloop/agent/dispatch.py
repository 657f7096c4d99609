"""From a tool call in the event stream to its output item: prepared early, started at once.

A call is opened when its item is announced, fed while its arguments stream, and started when its
item is done, which is before the response is completed. Calls of ordered tools (anything that can
write) run one after the other in the order in which the model made them; others run at once.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from msgspec import structs

from tightloop.agent.declined import declined
from tightloop.agent.events import (
    CommandExecution,
    ErrorBody,
    ErrorItem,
    FileChange,
    ItemCompleted,
    ItemStarted,
    ItemUpdated,
    Listener,
    McpToolCall,
)
from tightloop.agent.tools.interface import (
    Gate,
    Hopeless,
    PreparedCall,
    StreamingTool,
    Tool,
    ToolContext,
    ToolResult,
)
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Part,
)
from tightloop.sandbox.interface import SandboxError
from tightloop.trace.spans import Span

_log = logging.getLogger(__name__)

Call = FunctionCall | CustomToolCall
Output = FunctionCallOutput | CustomToolCallOutput

ARGUMENT_DELTAS = frozenset(
    {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)


class Foreteller(Protocol):
    """Whoever wants to know outputs before they are sent: ``client.session.Session`` is one."""

    def prefill(self, call_id: str, piece: str, keep: int | None = None) -> None:
        """A call's output goes on with ``piece``, after its first ``keep`` characters."""

    def prefill_whole(self, call_id: str, output: str) -> None:
        """A call's output is ``output``."""


CANCELLED_TEXT = '{"status": "cancelled"}'


@dataclass(slots=True)
class _Open:
    """A call whose arguments are arriving."""

    call_id: str
    name: str
    is_custom: bool
    prepared: PreparedCall
    context: ToolContext
    hopeless: Hopeless | None = None


class Dispatcher:
    """Runs the calls of one response at a time; reused for all responses of a conversation.

    ``outputs`` holds the output item of every call that ended, by call id; ``spans`` what ran.
    ``cut`` are the calls that were given up half-way, as far as they came; they have outputs too.
    ``foreteller`` is told outputs while the calls run, ``keep`` when they have ended; also calls given up.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        context: ToolContext,
        listener: Listener,
        next_item_id: Callable[[], str],
        foreteller: Foreteller | None = None,
        keep: Callable[[Item], None] = lambda _item: None,
    ) -> None:
        self.outputs: dict[str, Output] = {}
        self.spans: list[Span] = []
        self.cut: list[Call] = []
        self._tools = {tool.name: tool for tool in tools}
        self._context = context
        self._listener = listener
        self._next_item_id = next_item_id
        self._foreteller = foreteller
        self._keep = keep
        self._running: set[asyncio.Task[None]] = set()
        self._in_order = asyncio.Lock()  # wakes its waiters first come, first served
        self._open: dict[int, _Open] = {}
        self._told: dict[str, int] = {}  # see ToolContext.remark

    def begin(self) -> None:
        """Another response is asked for."""
        self.outputs.clear()
        self.cut.clear()

    def announce(self, event: Mapping[str, Any]) -> bool:
        """An output item was added: get ready if it is a call of a tool that can use that.

        Whether it is a call at all.
        """
        item = event.get("item")
        if not isinstance(item, dict) or item.get("type") not in _CALL_TYPES:
            return False
        tool = self._tools.get(item.get("name", ""))
        if isinstance(tool, StreamingTool):
            context = self._shown_patch(self._own_context())
            is_custom = item["type"] == "custom_tool_call"
            with suppress(OSError):  # said again, in words for the model, when the call runs
                prepared = tool.prepare(context, is_custom=is_custom)
                call_id = str(item.get("call_id") or "")
                opened = _Open(call_id, tool.name, is_custom, prepared, context)
                self._open[event.get("output_index", -1)] = opened
        return True

    def feed(self, event: Mapping[str, Any]) -> Hopeless | None:
        """More arguments of an open call.

        When that shows that the call cannot succeed, why; once. Not while other calls run, because
        they may change what it needs.
        """
        opened = self._open.get(event.get("output_index", -1))
        delta = event.get("delta")
        if opened is None or not isinstance(delta, str):
            return None
        opened.prepared.feed(delta)
        if opened.hopeless is not None or self._running or not opened.call_id:
            return None
        opened.hopeless = opened.prepared.hopeless()
        return opened.hopeless

    def start(self, call: Call, output_index: int, group: asyncio.TaskGroup) -> None:
        """The call is complete: run it in ``group``."""
        opened = self._open.pop(output_index, None)
        prepared = None if opened is None else opened.prepared
        context = self._own_context() if opened is None else opened.context
        run = group.create_task(self._run(call, prepared, context))
        self._running.add(run)
        run.add_done_callback(self._running.discard)

    def abandon(self) -> None:
        """The response is over; calls that were never completed are forgotten.

        One that could not have succeeded is answered with the reason, as if it had been run.
        """
        for opened in self._open.values():
            if opened.hopeless is not None:
                self._give_up(opened, opened.hopeless)
            opened.prepared.close()
        self._open.clear()

    def _give_up(self, opened: _Open, hopeless: Hopeless) -> None:
        call: Call
        if opened.is_custom:
            call = CustomToolCall(opened.call_id, opened.name, hopeless.arguments)
        else:
            call = FunctionCall(opened.call_id, opened.name, hopeless.arguments)
        self.cut.append(call)
        self._keep(call)
        result = self._redacted(hopeless.result)
        self.outputs[call.call_id] = _output(call, result.text)
        self._keep(self.outputs[call.call_id])
        item = result.item or ErrorItem(opened.context.item_id, result.text)
        self._listener(ItemCompleted(item))

    def take_outputs(self, calls: Sequence[Call]) -> list[Output]:
        """The outputs of ``calls`` in their order; a call without one was cancelled."""
        return [self.outputs.pop(call.call_id, _output(call, CANCELLED_TEXT)) for call in calls]

    async def _run(self, call: Call, prepared: PreparedCall | None, context: ToolContext) -> None:
        tool = self._tools.get(call.name)
        arguments = call.input if isinstance(call, CustomToolCall) else call.arguments
        if self._foreteller is not None:
            context = replace(context, on_text=partial(self._foretell, call.call_id))
        try:
            if tool is None:
                known = ", ".join(self._tools)
                result = ToolResult(f"there is no tool {call.name!r}; there are: {known}", False)
            elif tool.is_ordered:
                async with self._in_order:
                    result = await self._run_tool(tool, arguments, prepared, context)
            else:
                result = await self._run_tool(tool, arguments, prepared, context)
        finally:
            if prepared is not None:
                prepared.close()
        if not result.parts and (remark := self._context.remark(arguments, self._told)):
            result = replace(result, text=result.text + remark)
        result = self._redacted(result)
        if self._foreteller is not None and len(self._running) > 1:
            self._foreteller.prefill_whole(call.call_id, result.text)
        self.spans += result.spans
        self.outputs[call.call_id] = _output(call, result.text, result.parts)
        self._keep(self.outputs[call.call_id])
        item = result.item or ErrorItem(context.item_id, result.text)
        if not result.is_ongoing:
            self._listener(ItemCompleted(item))
        elif result.item is not None:
            self._listener(ItemUpdated(item))

    async def _run_tool(
        self, tool: Tool, arguments: str, prepared: PreparedCall | None, context: ToolContext
    ) -> ToolResult:
        shown = tool.announce(arguments, context.item_id)
        if shown is not None:
            self._listener(ItemStarted(shown))
        if isinstance(shown, CommandExecution):
            context = replace(
                context, on_output=lambda text: self._listener(ItemUpdated(shown, None, text))
            )
        start_ns = context.clock.now_ns()
        try:
            if context.gate is not None and not context.gate.is_open_for(tool):
                refusal = await self._admitted(context.gate, tool, arguments, context)
                if refusal is not None:
                    return declined(refusal, tool, shown, context.item_id)
                start_ns = context.clock.now_ns()
            if prepared is not None:
                result = await prepared.run(arguments)
            else:
                result = await tool.run(arguments, context)
            if context.gate is not None:
                context.gate.finished(tool, arguments, result, context)
            return result
        except asyncio.CancelledError:
            self.spans.append(Span("tool", start_ns, context.clock.now_ns(), f"{tool.name} (cut)"))
            if isinstance(shown, CommandExecution):
                message = "interrupted"
                failed = CommandExecution(shown.id, shown.command, message, None, "failed")
                self._listener(ItemCompleted(failed))
            elif isinstance(shown, McpToolCall):
                body = ErrorBody("interrupted")
                cut = structs.replace(shown, error=body, status="failed")
                self._listener(ItemCompleted(cut))
            raise
        except (OSError, SandboxError) as error:  # the workspace is gone, descriptors ran out, ...
            return ToolResult(f"{tool.name}: {error}", is_ok=False)
        except Exception as error:  # noqa: BLE001 - a tool's own fault ends its call, not the turn
            _log.exception("the tool %s failed", tool.name)
            text = f"{tool.name}: internal error: {type(error).__name__}: {error}"
            return ToolResult(text, is_ok=False)

    async def _admitted(
        self, gate: Gate, tool: Tool, arguments: str, context: ToolContext
    ) -> str | None:
        """Why the call may not run, if so; what a person took to answer is nobody's work."""
        start_ns, waited_s = context.clock.now_ns(), gate.waited_s
        try:
            return await gate.admit(tool, arguments, context)
        finally:
            if gate.waited_s > waited_s:
                span = Span("waiting", start_ns, context.clock.now_ns(), f"{tool.name}: asked")
                self.spans.append(span)

    def _redacted(self, result: ToolResult) -> ToolResult:
        redact, item = self._context.redact, result.item
        if isinstance(item, FileChange) and item.message is not None:
            item = structs.replace(item, message=redact(item.message))
        return replace(result, text=redact(result.text), item=item)

    def _foretell(self, call_id: str, piece: str, keep: int) -> None:
        if self._foreteller is not None:
            self._foreteller.prefill(call_id, piece, keep)

    def _shown_patch(self, context: ToolContext) -> ToolContext:
        """Whoever listens sees a patch while it is written."""
        item = FileChange(context.item_id, status="in_progress")
        tell = self._listener
        return replace(
            context, on_patch_text=lambda text: tell(ItemUpdated(item, patch_delta=text))
        )

    def _own_context(self) -> ToolContext:
        return replace(self._context, item_id=self._next_item_id())


_CALL_TYPES = ("function_call", "custom_tool_call")


def _output(call: Call, text: str, parts: tuple[Part, ...] = ()) -> Output:
    if isinstance(call, CustomToolCall):
        return CustomToolCallOutput(call.call_id, text, parts=parts)
    return FunctionCallOutput(call.call_id, text, parts=parts)
