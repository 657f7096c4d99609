"""From engine deltas to the chunks of one Chat Completions answer.

The order on the wire, each line a chunk whose ``choices`` has one element unless said otherwise::

    delta {"role": "assistant", "content": ""}
    ( delta {"reasoning_content"} | delta {"content"}
    | delta {"tool_calls": [index, id, type, name]}  delta {"tool_calls": [index, arguments]}* )*
    delta {} with finish_reason
    [ usage, choices empty ]                           only if the request asked for it

A failure is one ``{"error": {...}}`` in place of whatever would have come, and the last event. Which order of
deltas is legal is decided in ``response_states``, as for every dialect; what the table calls the
open item is here only where the text goes: chunks have no done events.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from tightloop.protocol.delta_machine import DeltaMachine
from tightloop.protocol.deltas import (
    ContextCompacted,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import LocalProtocolError, shorten
from tightloop.protocol.items import (
    Compaction,
    CustomToolCall,
    FunctionCall,
    Item,
    Message,
    Reasoning,
    TextPart,
)
from tightloop.protocol.outgoing import MakeStream
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_states import Fate, Signal, State
from tightloop.protocol.response_stream import Cancellation, Timing

_encode: Final = msgspec.json.Encoder().encode

_END_SIGNALS: Final[Mapping[FinishReason, Signal]] = {
    FinishReason.STOP: Signal.END,
    FinishReason.TOOL_CALLS: Signal.END,
    FinishReason.LENGTH: Signal.CUT,
    FinishReason.CANCELLED: Signal.CANCEL,
}

_FAULTS_OF_REQUEST: Final = frozenset(
    {"context_length_exceeded", "invalid_request", "unsupported_content"}
)
"""What an engine can find wrong with a request after its stream has begun."""


CONTEXT_FULL: Final = (
    "context length exceeded: this model's maximum context length is too small for this chat"
)
"""Clients know a full context, which they then sum up, by words rather than by the code: litellm
(and so aider) by some of these, others by "context length exceeded"."""


def failure_message(code: str, message: str) -> str:
    """The message of a failure as clients of this dialect understand it."""
    return f"{CONTEXT_FULL}: {message}" if code == "context_length_exceeded" else message


def chat_streams(*, include_usage: bool) -> MakeStream:
    """What a turn makes its ``ChatStream`` with."""
    return partial(ChatStream, include_usage=include_usage)


class _Open:
    """What is being said: ``head``, the escaped text and ``tail`` make a chunk."""

    __slots__ = ("delta_type", "head", "pieces", "started", "tail")

    def __init__(
        self, delta_type: type[Any], head: bytes, tail: bytes, started: ToolCallStarted | None
    ) -> None:
        self.delta_type = delta_type
        self.head = head
        self.tail = tail
        self.started = started
        self.pieces: list[str] = []

    def item(self) -> Item:
        """The item that was said."""
        text = "".join(self.pieces)
        started = self.started
        if started is not None:
            kind = CustomToolCall if started.is_custom else FunctionCall
            return kind(started.call_id, started.name, text)
        if self.delta_type is ReasoningDelta:
            return Reasoning((text,))
        return Message("assistant", (TextPart("output_text", text),))


class ChatStream(DeltaMachine[_Open]):
    """Makes the chunks of one answer; an ``OutgoingStream``. No I/O, no clock.

    ``new_id`` is not called: in this dialect only the answer and its tool calls have ids. An item of
    ``output_items`` is equal to what ``chat_history`` makes of it when the client sends it back.
    """

    def __init__(
        self,
        response_id: str,
        request: ResponseRequest,
        *,
        created_at: int,
        new_id: Callable[[str], str],
        include_usage: bool = False,
    ) -> None:
        super().__init__(response_id)
        self._include_usage = include_usage
        self._is_prewarm = not request.generate
        self._identity = {
            "id": f"chatcmpl-{response_id.removeprefix('resp_')}",
            "created": created_at,
            "model": request.model,
        }
        chunk = _encode({"object": "chat.completion.chunk", **self._identity})[:-1]
        self._chunk = chunk
        self._head = chunk + b',"choices":[{"index":0,"delta":{'
        self._tail = b'},"finish_reason":null}]}'
        self._finish_reason: str | None = None
        self._tier: dict[str, str] = {}
        self._error = b""

    # ------------------------------------------------------------------ what can be asked

    def snapshot(self) -> bytes:
        """JSON of the ``chat.completion``; of the error if it failed.

        Before the end it holds the items closed so far, and its ``finish_reason`` is null.
        """
        if self._error:
            return self._error
        choice = {
            "index": 0,
            "message": _message(self._items),
            "logprobs": None,
            "finish_reason": self._finish_reason,
        }
        completion: dict[str, Any] = {
            "object": "chat.completion",
            **self._identity,
            **self._tier,
            "choices": [choice],
            "usage": None if self.usage is None else encode_chat_usage(self.usage),
        }
        return _encode(completion)

    # ------------------------------------------------------------------ what can be done

    def start(self) -> list[bytes]:
        """The chunk that says who speaks."""
        self._step(Signal.START_PREWARM if self._is_prewarm else Signal.START, [])
        self.status = "in_progress"
        return [self._delta(b'"role":"assistant","content":""')]

    def heartbeat(self) -> list[bytes]:
        """A chunk with an empty delta, which says nothing and every known client accepts."""
        self._step(Signal.HEARTBEAT, [])
        return [self._delta(b"")]

    def finish(
        self,
        finished: Finished,
        timing: Timing | None = None,
        *,
        completed_at: int | None = None,
        cancellation: Cancellation = Cancellation.INTERRUPTED,
        extra: Mapping[str, Any] | None = None,
    ) -> list[bytes]:
        """The chunk with the finish reason, then the usage if it was asked for.

        An answer that somebody cancelled ends with ``length``: of the reasons that clients know it
        is the only one that does not call the answer whole.
        """
        if finished.reason is FinishReason.ERROR:
            message = finished.error_message or "generation failed"
            return self.fail(finished.error_code or "server_error", message, usage=finished.usage)
        signal = _END_SIGNALS[finished.reason]
        if signal is Signal.CANCEL and cancellation is Cancellation.DISCARDED:
            signal = Signal.INTERRUPT
        status, self._finish_reason = self._ending(signal, cancellation)
        chunks = self._end(signal, status, finished.usage)
        reason = self._finish_reason.encode()
        head = self._chunk
        if extra and "service_tier" in extra:  # what was used is known at the end only
            self._tier = {"service_tier": extra["service_tier"]}
            head = b'%b,"service_tier":%b' % (head, _encode(extra["service_tier"]))
        chunks.append(
            b'%b,"choices":[{"index":0,"delta":{},"finish_reason":"%b"}]}' % (head, reason)
        )
        if self._include_usage:
            usage = _encode(encode_chat_usage(finished.usage))
            chunks.append(b'%b,"choices":[],"usage":%b}' % (head, usage))
        return chunks

    def fail(self, code: str, message: str, *, usage: Usage | None = None) -> list[bytes]:
        """End with the error alone, which SDKs raise. Legal at any time before the end."""
        if self._state is State.NEW:
            self.start()  # for the table; who says nothing needs no role
        chunks = self._end(Signal.FAIL, "failed", usage)
        return [*chunks, self._failure(code, message)]

    def take_back(self, code: str, message: str) -> bytes:
        """The error in place of a last chunk that was made but must not be sent."""
        if not self.is_finished:
            raise LocalProtocolError(f"response {self.response_id} has not ended yet")
        return self._failure(code, message)

    def aside(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        """Raises ``LocalProtocolError``: every chunk is part of the answer here."""
        raise LocalProtocolError(f"a chat completion has no place for {kind}")

    # ------------------------------------------------------------------ items

    def _delta_event(self, item: _Open, escaped: bytes) -> bytes:
        return b"".join((item.head, escaped, item.tail))

    def _open_item(
        self, delta: TextDelta | ReasoningDelta | ToolCallStarted, events: list[bytes]
    ) -> _Open:
        if isinstance(delta, TextDelta):
            return self._speech(TextDelta, b'"content":')
        if isinstance(delta, ReasoningDelta):
            return self._speech(ReasoningDelta, b'"reasoning_content":')
        return self._call(delta, events)

    def _close_item(self, item: _Open, fate: Fate, events: list[bytes]) -> None:
        del fate, events  # the finish reason tells
        self._items.append(item.item())

    def _compact(self, delta: ContextCompacted, events: list[bytes]) -> None:
        del events  # nothing that clients of this dialect could be told
        self._items.append(Compaction(delta.encrypted_content))

    def _speech(self, delta_type: type[Any], key: bytes) -> _Open:
        return _Open(delta_type, self._head + key, self._tail, None)

    def _call(self, started: ToolCallStarted, chunks: list[bytes]) -> _Open:
        """A chunk names the call; its arguments follow by index alone."""
        index = self._num_calls - 1
        kind, field = ("custom", "input") if started.is_custom else ("function", "arguments")
        begun = {
            "index": index,
            "id": started.call_id,
            "type": kind,
            kind: {"name": started.name, field: ""},
        }
        chunks.append(self._delta(b'"tool_calls":[%b]' % _encode(begun)))
        place = f'"tool_calls":[{{"index":{index},"{kind}":{{"{field}":'.encode()
        return _Open(ToolCallDelta, self._head + place, b"}}]" + self._tail, started)

    def _delta(self, fields: bytes) -> bytes:
        return b"".join((self._head, fields, self._tail))

    def _break(self, chunks: list[bytes]) -> None:
        """After a refused delta: keep what was made before it for ``fail``."""
        if State.NEW < self._state < State.BROKEN:
            self._unsent += chunks
            self._state = State.BROKEN
            self._open = None  # nothing can continue it

    def _ending(self, signal: Signal, cancellation: Cancellation) -> tuple[str, str]:
        """Status and finish reason."""
        if signal is Signal.END:
            return "completed", "tool_calls" if self._num_calls else "stop"
        is_cancelled = signal is Signal.CANCEL and cancellation is Cancellation.CANCELLED
        return "cancelled" if is_cancelled else "incomplete", "length"

    def _failure(self, code: str, message: str) -> bytes:
        text = shorten(failure_message(code, message)).encode("utf-8", "replace").decode()
        self.status = "failed"
        kind = "invalid_request_error" if code in _FAULTS_OF_REQUEST else "server_error"
        error = {"message": text, "type": kind, "code": code, "param": None}
        self._error = _encode({"error": error})
        return self._error


def encode_chat_usage(usage: Usage) -> dict[str, Any]:
    """Usage as this API writes it; both detail objects are always there."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "accepted_prediction_tokens": usage.accepted_prediction_tokens,
            "rejected_prediction_tokens": usage.rejected_prediction_tokens,
        },
    }


def _message(items: Iterable[Item]) -> dict[str, Any]:
    """The one message that says everything: what a reader of the chunks would have collected."""
    texts: list[str] = []
    reasonings: list[str] = []
    calls: list[dict[str, Any]] = []
    for item in items:
        match item:
            case Message():
                texts.append(item.text)
            case Reasoning():
                reasonings.extend(item.summary)
            case FunctionCall():
                function = {"name": item.name, "arguments": item.arguments}
                calls.append({"id": item.call_id, "type": "function", "function": function})
            case CustomToolCall():
                custom = {"name": item.name, "input": item.input}
                calls.append({"id": item.call_id, "type": "custom", "custom": custom})
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": None,
    }
    if reasonings:
        message["reasoning_content"] = "".join(reasonings)
    if calls:
        message["tool_calls"] = calls
    return message
