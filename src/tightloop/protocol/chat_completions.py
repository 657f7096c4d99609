"""Chat Completions as an upstream dialect: requests to it, and its stream as engine deltas.

The stream of a chat does not say when a tool call is complete. This parser says it as early as it
can be known, when the arguments' JSON object closes, so that a tool can start before the
upstream's last chunk.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from tightloop.protocol.chat_request import (
    CUSTOM_INPUT,
    build_messages,
    build_request,
    custom_tool_names,
)
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import RemoteProtocolError, api_error_from_wire
from tightloop.protocol.partial_json import PartialObject, StringGrew

__all__ = ["ChatStreamParser", "build_messages", "build_request", "custom_tool_names"]


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_FINISH_REASONS: Final = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.ERROR,
}


class _Call:
    """One tool call of the stream."""

    def __init__(self, call_id: str, name: str, is_custom: bool) -> None:
        self.id = call_id
        self.name = name
        self.is_custom = is_custom
        self.is_done = False
        self.waiting: list[str] = []  # arguments held back while another call is open
        self._reader: PartialObject | None = PartialObject()
        self._num_chars = 0
        self._has_begun = False  # something other than white space came

    def started(self) -> Delta:
        return ToolCallStarted(self.id, self.name, self.is_custom)

    def take(self, text: str) -> list[Delta]:
        """The deltas for more arguments, with the end if they are now complete.

        What comes after the end is dropped: the call may be running already. Raises
        ``RemoteProtocolError`` when the JSON around a custom tool's input is broken: the text
        would be silently incomplete.
        """
        if self.is_done or not text:
            return []
        if self.is_custom:
            deltas = self._take_custom(text)
        else:
            deltas = [ToolCallDelta(text)]
            self._follow(text)
        self._num_chars += len(text)
        if self._reader is not None and self._reader.is_complete:
            self.is_done = True
            deltas.append(ToolCallDone())
        return deltas

    def finish(self) -> list[Delta]:
        """The end of an open call whose arguments will not be continued.

        Raises ``RemoteProtocolError`` for half of a custom tool's input; half of a function's
        arguments are passed on, as whoever parses them will see it.
        """
        if self.is_custom and self._has_begun and self._reader is not None:
            raise RemoteProtocolError(f"the input of {self.name} ended before its JSON did")
        self.is_done = True
        # No arguments at all is how some servers write the empty object.
        empty: list[Delta] = [] if self.is_custom or self._num_chars else [ToolCallDelta("{}")]
        return [*empty, ToolCallDone()]

    def _take_custom(self, text: str) -> list[Delta]:
        if not self._has_begun and text.strip():
            self._has_begun = True
            if not text.lstrip().startswith("{"):
                self._reader = None  # the model left the JSON wrapping out
        if self._reader is None:
            return [ToolCallDelta(text)]
        return [
            ToolCallDelta(change.text)
            for change in self._reader.feed(text)
            if isinstance(change, StringGrew) and change.key == CUSTOM_INPUT
        ]

    def _follow(self, text: str) -> None:
        """Watch for the end of a function's JSON; when it is none, the finish reason tells."""
        if self._reader is None:
            return
        try:
            self._reader.feed(text)
        except RemoteProtocolError:
            self._reader = None


class ChatStreamParser:
    """Turns the chunks of one streamed chat completion into engine deltas.

    ``custom_tools`` are the names that ``build_request`` turned into functions. ``new_id`` makes
    a call id (prefix ``call``) where the upstream gives none. Feed every chunk, then call ``end``
    at ``[DONE]`` or at the end of the stream; the last delta is a ``Finished`` without timing.
    """

    def __init__(self, custom_tools: Iterable[str] = (), *, new_id: Callable[[str], str]) -> None:
        self._custom_tools = frozenset(custom_tools)
        self._new_id = new_id
        self._calls: dict[int, _Call] = {}
        self._open: _Call | None = None
        self._usage = Usage()
        self._finish_reason: str | None = None
        self._is_finished = False

    @property
    def is_finished(self) -> bool:
        """Whether the ``Finished`` was given out."""
        return self._is_finished

    def feed(self, chunk: dict[str, Any]) -> list[Delta]:
        """The deltas of one decoded chunk.

        Raises ``RemoteProtocolError`` when the chunk has not the shape of one, and when the JSON
        that wraps a custom tool's input is malformed.
        """
        if self._is_finished:
            return []  # some servers repeat the usage
        try:
            wire = msgspec.convert(chunk, _Chunk)
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"not a chat completion chunk: {error}") from error
        if wire.error is not None:
            return self._fail(chunk)
        deltas: list[Delta] = []
        if wire.usage is not None:
            self._usage = _usage(wire.usage)
        for choice in wire.choices:
            if choice.index == 0:
                self._choice(choice, deltas)
        if wire.usage is not None and not wire.choices and self._finish_reason is not None:
            deltas.extend(self.end())
        return deltas

    def end(self) -> list[Delta]:
        """The last deltas; nothing if they were given out already."""
        if self._is_finished:
            return []
        self._is_finished = True
        if self._finish_reason is None:
            message = "the upstream's stream ended without a finish reason"
            return [self._finished(FinishReason.ERROR, "upstream_error", message)]
        reason = _FINISH_REASONS.get(self._finish_reason, FinishReason.STOP)
        if reason is FinishReason.ERROR:
            message = "the upstream's content filter stopped the answer"
            return [self._finished(reason, "content_filter", message)]
        if reason is FinishReason.STOP and self._calls:
            reason = FinishReason.TOOL_CALLS
        return [self._finished(reason)]

    def _finished(
        self, reason: FinishReason, code: str | None = None, message: str | None = None
    ) -> Finished:
        return Finished(reason, self._usage, error_code=code, error_message=message)

    def _fail(self, chunk: dict[str, Any]) -> list[Delta]:
        self._is_finished = True
        error = api_error_from_wire(chunk, status=502)
        return [self._finished(FinishReason.ERROR, error.code or "upstream_error", error.message)]

    def _choice(self, choice: _Choice, deltas: list[Delta]) -> None:
        delta = choice.delta
        if delta is not None:
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                self._close_all(deltas)  # a call before text cannot be continued
                deltas.append(ReasoningDelta(reasoning))
            text = delta.content or delta.refusal
            # White space between calls is layout that some servers let through.
            if text and (self._open is None or text.strip()):
                self._close_all(deltas)  # a call before text cannot be continued
                deltas.append(TextDelta(text))
            for call in delta.tool_calls or ():
                self._tool_call(call, deltas)
        if choice.finish_reason:
            self._finish_reason = choice.finish_reason
            if choice.finish_reason != "length":  # a call that was cut must stay open
                self._close_all(deltas)

    def _tool_call(self, wire: _ToolCall, deltas: list[Delta]) -> None:
        call = self._find(wire)
        function = wire.function or _Function()
        if call is None:
            if not function.name:
                raise RemoteProtocolError(f"tool call {wire.index} begins without a name")
            call = self._new_call(wire, function.name)
            if self._open is None:
                self._start(call, deltas)
        arguments = function.arguments
        if isinstance(arguments, dict):  # complete calls from servers that do not stream them
            arguments = msgspec.json.encode(arguments).decode()
        if not arguments:
            return
        if call is not self._open:
            if not call.is_done:
                call.waiting.append(arguments)
            return
        deltas.extend(call.take(arguments))
        self._start_next(deltas)

    def _find(self, wire: _ToolCall) -> _Call | None:
        """The call a piece belongs to; None when the piece begins a new one."""
        index = wire.index
        if index is None:
            index = max(self._calls, default=-1)
        call = self._calls.get(index)
        if call is not None and wire.id and wire.id != call.id and _name(wire):
            # Servers that do not stream calls give each the index 0, or none.
            return next((other for other in self._calls.values() if other.id == wire.id), None)
        return call

    def _new_call(self, wire: _ToolCall, name: str) -> _Call:
        index = wire.index
        if index is None or index in self._calls:
            index = max(self._calls, default=-1) + 1
        call = _Call(wire.id or self._new_id("call"), name, name in self._custom_tools)
        self._calls[index] = call
        return call

    def _start(self, call: _Call, deltas: list[Delta]) -> None:
        """Make ``call`` the open one and give out what was held back."""
        self._open = call
        deltas.append(call.started())
        for text in call.waiting:
            deltas.extend(call.take(text))
        call.waiting.clear()

    def _start_next(self, deltas: list[Delta]) -> None:
        """When the open call is complete, go on with one that waits."""
        while self._open is not None and self._open.is_done:
            self._open = None
            waiting = [call for call in self._calls.values() if not call.is_done]
            if waiting:
                self._start(waiting[0], deltas)

    def _close_all(self, deltas: list[Delta]) -> None:
        """No more pieces will come: end the open call and those that waited for it."""
        while self._open is not None:
            deltas.extend(self._open.finish())
            self._start_next(deltas)


def _name(wire: _ToolCall) -> str | None:
    return wire.function.name if wire.function else None


def _usage(wire: _Usage) -> Usage:
    prompt = wire.prompt_tokens_details
    completion = wire.completion_tokens_details
    return Usage(
        input_tokens=wire.prompt_tokens or 0,
        cached_tokens=(prompt.cached_tokens if prompt else None) or 0,
        output_tokens=wire.completion_tokens or 0,
        reasoning_tokens=(completion.reasoning_tokens if completion else None) or 0,
    )
