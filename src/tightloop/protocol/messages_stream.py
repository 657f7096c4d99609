"""From engine deltas to the legal event sequence of one answer of the Anthropic Messages API.

The order on the wire::

    message_start
    ( content_block_start  content_block_delta*  content_block_stop )*      and ping anywhere
    message_delta  message_stop  |  error

Which order of deltas is legal is decided in ``response_states``, as for ``ResponseStream``; this is
another way to write the same steps. What ``ResponseStream`` promises of its methods holds here.
Source: Streaming page of the Messages API, 2026.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

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
from tightloop.protocol.items import Compaction, Item
from tightloop.protocol.messages_errors import error_event
from tightloop.protocol.open_block import OpenBlock, TextBlock, ThinkingBlock, ToolUseBlock
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_states import SIGNAL_OF, TRANSITIONS, Fate, Signal, State
from tightloop.protocol.response_stream import Cancellation, Timing

PING: Final = b'{"type":"ping"}'
MESSAGE_STOP: Final = b'{"type":"message_stop"}'

_encode = msgspec.json.Encoder().encode


class MessagesStream:
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
        self.response_id = response_id
        self.usage: Usage | None = None
        self.status = "queued"
        self.message_id = "msg_" + response_id.removeprefix("resp_")
        self._request = request
        self._new_id = new_id
        self._shows_thinking = shows_thinking
        self._state = State.NEW
        self._num_blocks = 0
        self._num_calls = 0
        self._open: OpenBlock | None = None
        self._items: list[Item] = []
        self._content: list[bytes] = []
        self._stop: dict[str, str | None] = {"stop_reason": None, "stop_sequence": None}
        self._unsent: list[bytes] = []

    # ------------------------------------------------------------------ what can be asked

    @property
    def output_items(self) -> tuple[Item, ...]:
        """The items closed so far, thinking that is not shown included."""
        return tuple(self._items)

    @property
    def is_finished(self) -> bool:
        """Whether the last event was made."""
        return self._state is State.ENDED

    @property
    def num_calls(self) -> int:
        """Tool calls put out so far, an open one included."""
        return self._num_calls

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

    def feed(self, deltas: Iterable[Delta]) -> list[bytes]:
        """The events of a batch without ``Finished``; LocalProtocolError for a wrong order."""
        events: list[bytes] = []
        try:
            for delta in deltas:
                block = self._open
                # The hot path is the rows whose fate is KEEP: text for the block that is open.
                if block is None or type(delta) is not block.delta_type:
                    block = self._apply(delta, events)
                    if block is None:
                        continue
                text = delta.text  # type: ignore[union-attr]
                if text:
                    escaped = _encode(text)
                    block.pieces.append(text)
                    if block.is_shown:
                        events.append(block.delta_head + escaped + b"}}")
        except UnicodeEncodeError as error:
            self._break(events)
            raise LocalProtocolError(f"a delta holds half a character: {error}") from error
        except LocalProtocolError:
            self._break(events)
            raise
        return events

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

    # ------------------------------------------------------------------ the machine

    def _step(self, signal: Signal, events: list[bytes]) -> None:
        """Take the row for ``signal``: end the open block as it says, and change state."""
        step = TRANSITIONS[self._state].get(signal)
        if step is None:
            raise LocalProtocolError(
                f"{signal.name} is not allowed in state {self._state.name} "
                f"of message {self.message_id}"
            )
        block = self._open
        if block is not None and step.fate is not Fate.KEEP:
            self._open = None
            if step.fate is not Fate.DROP:
                self._items.append(block.item())
                if block.is_shown:
                    self._content.append(_encode(block.json()))
                    events += block.closing()
        self._state = step.state

    def _apply(self, delta: Delta, events: list[bytes]) -> OpenBlock | None:
        """Any delta that does not simply continue the open block.

        Returns the block just opened if the delta's text is to go into it.
        """
        signal = SIGNAL_OF.get(type(delta))
        if signal is None:
            raise LocalProtocolError(f"{type(delta).__name__} cannot be fed; see finish()")
        is_empty = isinstance(delta, TextDelta | ReasoningDelta) and not delta.text
        if is_empty and signal in TRANSITIONS[self._state]:
            return None  # an empty delta opens no block
        if isinstance(delta, ToolCallStarted) and delta.is_custom:
            raise LocalProtocolError(
                f"the engine called {delta.name[:100]!r} with free text, which the Messages API"
                " does not have; its tools take JSON"
            )
        self._step(signal, events)
        if isinstance(delta, TextDelta | ReasoningDelta | ToolCallStarted):
            self._open_block(delta, events)
        elif isinstance(delta, ContextCompacted):
            self._items.append(Compaction(delta.encrypted_content, self._new_id("cmp")))
        return None if isinstance(delta, ToolCallStarted) else self._open

    def _open_block(
        self, delta: TextDelta | ReasoningDelta | ToolCallStarted, events: list[bytes]
    ) -> None:
        index = self._num_blocks
        block: OpenBlock
        if isinstance(delta, TextDelta):
            block = TextBlock(self._new_id("msg"), index)
        elif isinstance(delta, ReasoningDelta):
            block = ThinkingBlock(self._new_id("rs"), index, is_shown=self._shows_thinking)
        else:
            block = ToolUseBlock(self._new_id("fc"), index, delta)
            self._num_calls += 1
        if block.is_shown:
            events.append(block.opening())
            self._num_blocks += 1
        self._open = block

    def _break(self, events: list[bytes]) -> None:
        """After a refused delta: keep what was made before it for ``fail``."""
        if State.NEW < self._state < State.BROKEN:
            self._unsent += events
            self._state = State.BROKEN
            self._open = None  # it will be dropped, and no text may go into it meanwhile

    def _end(self, signal: Signal, status: str, usage: Usage | None) -> list[bytes]:
        events = self._unsent.copy()
        self._step(signal, events)
        self._unsent.clear()
        self.status = status
        self.usage = usage
        return events

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
