"""From engine deltas to the legal event sequence of one answer of the Anthropic Messages API.

The order on the wire::

    message_start
    ( content_block_start  content_block_delta*  content_block_stop )*      and ping anywhere
    message_delta  message_stop  |  error

Which order of deltas is legal is decided in ``response_states``, as for ``ResponseStream``; this is
another way to write the same steps. What ``ResponseStream`` promises of its methods holds here.
Source: Streaming page of the Messages API, 2026.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from tightloop.protocol.delta_machine import DeltaMachine
from tightloop.protocol.deltas import (
    ContextCompacted,
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import LocalProtocolError
from tightloop.protocol.items import Compaction
from tightloop.protocol.messages_errors import error_event
from tightloop.protocol.open_block import OpenBlock, TextBlock, ThinkingBlock, ToolUseBlock
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_states import Fate, Signal, State
from tightloop.protocol.response_stream import Cancellation, Timing

PING: Final = b'{"type":"ping"}'
MESSAGE_STOP: Final = b'{"type":"message_stop"}'

_encode = msgspec.json.Encoder().encode


class MessagesStream(DeltaMachine[OpenBlock]):
    """Makes the events of one answer; implements ``outgoing.OutgoingStream``.

    ``shows_thinking`` False leaves reasoning out of the answer; it is an output item all the same.
    ``new_id`` is called with ``msg``, ``rs``, ``fc`` or ``cmp``, as by ``ResponseStream``.
    """

    def __init__(
        self,
        response_id: str,
        request: ResponseRequest,
        *,
        created_at: int,
        new_id: Callable[[str], str],
        shows_thinking: bool = False,
    ) -> None:
        del created_at  # the message object has no place for it
        super().__init__(response_id)
        self.message_id = "msg_" + response_id.removeprefix("resp_")
        self._request = request
        self._new_id = new_id
        self._shows_thinking = shows_thinking
        self._num_blocks = 0
        self._content: list[bytes] = []
        self._stop: dict[str, str | None] = {"stop_reason": None, "stop_sequence": None}

    # ------------------------------------------------------------------ what can be asked

    def snapshot(self) -> bytes:
        """JSON of the message as it is now; ``stop_reason`` is null until it has ended well."""
        content = Raw(b"[" + b",".join(self._content) + b"]")
        return _encode(self._message(content))

    # ------------------------------------------------------------------ what can be done

    def start(self) -> list[bytes]:
        """``message_start``. Nothing is counted yet: the true usage comes with ``message_delta``."""
        self._step(Signal.START if self._request.generate else Signal.START_PREWARM, [])
        self.status = "in_progress"
        return [_encode({"type": "message_start", "message": self._message(Raw(b"[]"))})]

    def heartbeat(self) -> list[bytes]:
        """A ``ping``: legal anywhere in the stream, and every client ignores it."""
        self._step(Signal.HEARTBEAT, [])
        return [PING]

    def aside(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        """An event that the API does not have; its clients are told to ignore unknown ones."""
        return _encode({"type": kind, **fields})

    def finish(
        self,
        finished: Finished,
        timing: Timing | None = None,
        *,
        completed_at: int | None = None,
        cancellation: Cancellation = Cancellation.INTERRUPTED,
        extra: Mapping[str, Any] | None = None,
    ) -> list[bytes]:
        """The last events; a cancelled or failed answer ends in ``error``, never in a stop reason.

        ``timing``, ``completed_at`` and ``extra`` have no place in this dialect.
        """
        del timing, completed_at, extra
        match finished.reason:
            case FinishReason.STOP | FinishReason.TOOL_CALLS:
                events = self._end(Signal.END, "completed", finished.usage)
            case FinishReason.LENGTH:
                events = self._end(Signal.CUT, "incomplete", finished.usage)
            case FinishReason.CANCELLED:
                keeps = cancellation is not Cancellation.DISCARDED
                events = self._end(
                    Signal.CANCEL if keeps else Signal.INTERRUPT,
                    "cancelled" if cancellation is Cancellation.CANCELLED else "incomplete",
                    finished.usage,
                )
                return [*events, error_event("server_error", "the answer was cancelled")]
            case FinishReason.ERROR:
                message = finished.error_message or "generation failed"
                return self.fail(
                    finished.error_code or "server_error", message, usage=finished.usage
                )
        self._stop = {
            "stop_reason": self._stop_reason(finished),
            "stop_sequence": finished.stop_sequence,
        }
        last = {"type": "message_delta", "delta": self._stop, "usage": self._usage()}
        return [*events, _encode(last), MESSAGE_STOP]

    def fail(self, code: str, message: str, *, usage: Usage | None = None) -> list[bytes]:
        """End with ``error``. Legal at any time before the end; starts if need be."""
        events = self.start() if self._state is State.NEW else []
        return [*events, *self._end(Signal.FAIL, "failed", usage), error_event(code, message)]

    def take_back(self, code: str, message: str) -> bytes:
        """``error`` in place of a last event that was made but must not be sent."""
        if not self.is_finished:
            raise LocalProtocolError(f"message {self.message_id} has not ended yet")
        self.status = "failed"
        self._stop = {"stop_reason": None, "stop_sequence": None}
        return error_event(code, message)

    # ------------------------------------------------------------------ blocks

    def _apply(self, delta: Delta, events: list[bytes]) -> OpenBlock | None:
        if isinstance(delta, ToolCallStarted) and delta.is_custom:
            raise LocalProtocolError(
                f"the engine called {delta.name[:100]!r} with free text, which the Messages API"
                " does not have; its tools take JSON"
            )
        return super()._apply(delta, events)

    def _delta_event(self, item: OpenBlock, escaped: bytes) -> bytes | None:
        return item.delta_head + escaped + b"}}" if item.is_shown else None

    def _open_item(
        self, delta: TextDelta | ReasoningDelta | ToolCallStarted, events: list[bytes]
    ) -> OpenBlock:
        index = self._num_blocks
        block: OpenBlock
        if isinstance(delta, TextDelta):
            block = TextBlock(self._new_id("msg"), index)
        elif isinstance(delta, ReasoningDelta):
            block = ThinkingBlock(self._new_id("rs"), index, is_shown=self._shows_thinking)
        else:
            block = ToolUseBlock(self._new_id("fc"), index, delta)
        if block.is_shown:
            events.append(block.opening())
            self._num_blocks += 1
        return block

    def _close_item(self, item: OpenBlock, fate: Fate, events: list[bytes]) -> None:
        del fate  # a block that was cut looks like a whole one; the stop reason tells
        self._items.append(item.item())
        if item.is_shown:
            self._content.append(_encode(item.json()))
            events += item.closing()

    def _compact(self, delta: ContextCompacted, events: list[bytes]) -> None:
        del events  # nothing that clients of this dialect could be told
        self._items.append(Compaction(delta.encrypted_content, self._new_id("cmp")))

    # ------------------------------------------------------------------ what is written

    def _stop_reason(self, finished: Finished) -> str:
        if finished.reason is FinishReason.LENGTH or not self._request.generate:
            return "max_tokens"  # also of max_tokens 0, which only fills the cache
        if finished.stop_sequence is not None:
            return "stop_sequence"
        return "tool_use" if self._num_calls else "end_turn"

    def _message(self, content: Raw) -> dict[str, Any]:
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": content,
            **self._stop,
            "usage": self._usage(),
        }

    def _usage(self) -> dict[str, int]:
        """Input tokens that were in the cache are counted beside ``input_tokens``, not in it."""
        usage = self.usage or Usage()
        return {
            "input_tokens": max(0, usage.input_tokens - usage.cached_tokens),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
        }
