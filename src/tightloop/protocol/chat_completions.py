"""Chat Completions as an upstream dialect: requests to it, and its stream as engine deltas.

The stream of a chat does not say when a tool call is complete. This parser says it as early as it
can be known, when the arguments' JSON object closes, so that a tool can start before the
upstream's last chunk.

Hosts differ in what they send: ``chat_chunk`` reads the shapes, this module judges what they say.
A call is never made complete by a stream that broke off, since clients start the tool then.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from tightloop.protocol.chat_chunk import (
    Choice,
    Chunk,
    Function,
    ToolCall,
    complaint,
    host_error,
    read_odd_chunk,
    read_usage,
    usage_beside,
)
from tightloop.protocol.chat_messages import CUSTOM_INPUT
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
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.partial_json import PartialObject, StringGrew

_FINISH_REASONS: Final = {
    **dict.fromkeys(("stop", "eos", "end_turn"), FinishReason.STOP),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call"), FinishReason.TOOL_CALLS),
    **dict.fromkeys(
        ("length", "max_tokens", "model_length", "max_output_tokens"), FinishReason.LENGTH
    ),
    "model_context_window_exceeded": FinishReason.LENGTH,
}
"""In lower case. Any other that does not speak of a failure is a stop."""

_NO_REASON: Final = frozenset(("null", "none"))
"""How some hosts write that there is none yet."""

_FILTERED: Final = re.compile("filter|safety|sensitive|recitation|refusal|blocklist|prohibited")
_FAILED: Final = re.compile("error|abort|fail|cancel|time_?out|exception|malformed|insufficient")
"""Words in the finish reasons of vLLM, SGLang, OpenRouter, DeepSeek, GLM and Gemini."""


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
        self._latest: _Call | None = None  # which the latest piece of arguments was for
        self._early_ids: dict[int | None, str] = {}  # of calls whose name has not come
        self._usage = Usage()
        self._reason: FinishReason | None = None
        self._failure = ("", "")  # code and message, when the reason is ERROR
        self._complaint: str | None = None  # perhaps why the stream will break off
        self._is_finished = False

    @property
    def is_finished(self) -> bool:
        """Whether the ``Finished`` was given out."""
        return self._is_finished

    @property
    def goes_on(self) -> bool:
        """Whether nothing has said yet that the answer is near its end."""
        return self._reason is None and not self._is_finished

    @property
    def is_plain(self) -> bool:
        """Whether more text or reasoning would be one delta, and would change nothing here."""
        return self._open is None and self.goes_on

    def feed(self, chunk: dict[str, Any]) -> list[Delta]:
        """The deltas of one decoded chunk.

        Raises ``RemoteProtocolError`` when part of the answer is in a shape that cannot be read,
        and when the JSON that wraps a custom tool's input is malformed.
        """
        if self._is_finished:
            return []  # some servers repeat the usage
        try:
            wire = msgspec.convert(chunk, Chunk)
        except (msgspec.ValidationError, RecursionError):
            wire = read_odd_chunk(chunk)
        if wire.usage is not None:
            self._usage = read_usage(wire.usage) or self._usage
        elif "x_groq" in chunk:
            self._usage = usage_beside(chunk) or self._usage
        if not wire.choices or wire.error is not None:
            return self._without_choices(wire, chunk)
        return self.feed_usual(wire)

    def feed_usual(self, wire: Chunk) -> list[Delta]:
        """The deltas of a chunk of which nothing but its choices matters (``Chunk.is_usual``).

        Raises as ``feed`` does.
        """
        deltas: list[Delta] = []
        if self._is_finished:
            return deltas
        for choice in wire.choices or ():
            if choice.error:
                deltas.extend(self.fail({"error": choice.error}))
                break
            if not choice.index and self._reason is not FinishReason.ERROR:
                self._choice(choice, deltas)
        return deltas

    def feed_whole(self, body: object) -> list[Delta]:
        """The deltas of an answer that came at once, as from hosts that do not stream; all of them.

        Anything else is taken as the host's error. Raises as ``feed`` does.
        """
        if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
            return self.fail(body)
        choices = [
            {**choice, "delta": choice.get("message")} if isinstance(choice, dict) else choice
            for choice in body["choices"]
        ]
        deltas = self.feed({**body, "choices": choices})
        return deltas + self.end()

    def fail(self, payload: object) -> list[Delta]:
        """The end, because the host said in ``payload`` that it failed: any decoded JSON."""
        if self._is_finished:
            return []
        error = host_error(payload, status=502)
        self._set_failure(error.code or "upstream_error", error.message)
        self._complaint = None  # this says it better
        return self.end()

    def end(self) -> list[Delta]:
        """The last deltas; nothing if they were given out already."""
        if self._is_finished:
            return []
        self._is_finished = True
        if self._reason is None:
            message = "the upstream's stream ended without a finish reason"
            self._set_failure("upstream_error", message)
        elif self._reason in (FinishReason.STOP, FinishReason.TOOL_CALLS):
            # What the reason says of calls is not always so.
            self._reason = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
            if self._open is not None:  # it began after the finish reason
                message = "the upstream's stream ended in the middle of a tool call"
                self._set_failure("upstream_error", message)
        assert self._reason is not None
        if self._reason is not FinishReason.ERROR:
            return [Finished(self._reason, self._usage)]
        code, message = self._failure
        if self._complaint:
            message = f"{message}: {self._complaint}"
        return [Finished(self._reason, self._usage, error_code=code, error_message=message)]

    def _set_failure(self, code: str, message: str) -> None:
        self._reason = FinishReason.ERROR
        self._failure = (code, message)

    def _without_choices(self, wire: Chunk, chunk: dict[str, Any]) -> list[Delta]:
        """A chunk that adds nothing to the answer: usage, an error, or something else."""
        is_error = "error" in (chunk.get("object"), chunk.get("type"))
        if wire.error or is_error or (wire.error is not None and "choices" not in chunk):
            return self.fail(chunk)
        if wire.choices:  # beside an error that is empty
            return self.feed({**chunk, "error": None})
        if wire.usage is None:
            self._complaint = complaint(chunk) or self._complaint
        elif self._reason is not None:
            return self.end()
        return []

    def _choice(self, choice: Choice, deltas: list[Delta]) -> None:
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
            self._finish_reason(choice.finish_reason, deltas)

    def _finish_reason(self, name: str, deltas: list[Delta]) -> None:
        word = name.lower()
        if word in _NO_REASON:
            return
        reason = _FINISH_REASONS.get(word)
        if reason is None and _FILTERED.search(word):
            message = "the upstream's content filter stopped the answer"
            self._set_failure("content_filter", f"{message} (finish reason {name!r})")
        elif reason is None and _FAILED.search(word):
            message = f"the upstream gave up the answer (finish reason {name!r})"
            self._set_failure("upstream_error", message)
        else:
            self._reason = reason or FinishReason.STOP
            if self._reason is not FinishReason.LENGTH:
                self._close_all(deltas)  # after the others, a call that was cut must stay open

    def _tool_call(self, wire: ToolCall, deltas: list[Delta]) -> None:
        call = self._find(wire)
        function = wire.function or Function()
        if call is None:
            if not function.name:
                if function.arguments:
                    raise RemoteProtocolError(f"tool call {wire.index} begins without a name")
                if wire.id:
                    self._early_ids[wire.index] = wire.id
                return
            call = self._new_call(wire, function.name)
            if self._open is None:
                self._start(call, deltas)
        arguments = function.arguments
        if isinstance(arguments, dict):  # complete calls from servers that do not stream them
            arguments = _json_text(arguments)
        if arguments:
            self._latest = call
            self.more_arguments(arguments, deltas)

    def more_arguments(self, arguments: str, deltas: list[Delta]) -> None:
        """Add the deltas of another piece for the call that the latest piece was for.

        As if by a chunk that differs from the latest in nothing but the arguments; raises as ``feed``.
        """
        call = self._latest
        if call is None or call is not self._open:
            if call is not None and not call.is_done:
                call.waiting.append(arguments)
            return
        deltas.extend(call.take(arguments))
        self._start_next(deltas)

    def _find(self, wire: ToolCall) -> _Call | None:
        """The call a piece belongs to; None when the piece begins a new one."""
        index = wire.index
        if index is None:
            if wire.id and (named := self._by_id(wire.id)) is not None:
                return named
            index = max(self._calls, default=-1)
        call = self._calls.get(index)
        if call is None or not (function := wire.function) or not function.name:
            return call
        # Servers that do not stream calls give each the index 0, or none.
        if wire.id and wire.id != call.id:
            return self._by_id(wire.id)
        if not wire.id and call.is_done and _begins_object(function.arguments):
            return None
        return call

    def _by_id(self, call_id: str) -> _Call | None:
        return next((call for call in self._calls.values() if call.id == call_id), None)

    def _new_call(self, wire: ToolCall, name: str) -> _Call:
        index = wire.index
        if index is None or index in self._calls:
            index = max(self._calls, default=-1) + 1
        call_id = wire.id or self._early_ids.pop(wire.index, None)
        if not call_id or self._by_id(call_id) is not None:
            call_id = self._new_id("call")
        call = _Call(call_id, name, name in self._custom_tools)
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


def _begins_object(arguments: str | dict[str, Any] | None) -> bool:
    return isinstance(arguments, dict) or (arguments or "").lstrip().startswith("{")


def _json_text(arguments: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(arguments).decode()
    except (ValueError, TypeError, RecursionError) as error:
        raise RemoteProtocolError(f"a tool call's arguments are unreadable: {error}") from error
