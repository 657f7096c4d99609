"""From engine deltas to the legal event sequence of one response.

The order on the wire::

    response.created  response.in_progress
    ( response.output_item.added  parts and deltas  response.output_item.done )*
    [ tightloop:timing ]  [ responsesapi.websocket_timing ]
    response.completed | response.incomplete | response.failed

Which order is legal is decided in ``response_states`` alone. How a server uses it::

    stream = ResponseStream(response_id, request, created_at=now, new_id=new_id)
    write(stream.start())
    write(stream.feed(batch))                      # any number of times; no Finished in it
    write(stream.finish(finished, timing))         # the batch's last delta was a Finished

Each element of what these return is the JSON of one event: a WebSocket text frame as it is, an
SSE frame after ``sse.frame``. All events of one call belong into one write.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from tightloop.protocol.delta_machine import DeltaMachine
from tightloop.protocol.deltas import (
    ContextCompacted,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import LocalProtocolError, shorten
from tightloop.protocol.items import Compaction
from tightloop.protocol.open_item import OpenCall, OpenItem, OpenMessage, OpenReasoning, literally
from tightloop.protocol.requests import OpaqueTool, ResponseRequest
from tightloop.protocol.response import ResponseEcho
from tightloop.protocol.response_states import Fate, Signal


class Cancellation(Enum):
    """Why a response was ended before its time, and so how it ends on the wire."""

    INTERRUPTED = "interrupted"
    """The open item is closed with status ``incomplete``."""

    DISCARDED = "discarded"
    """As above, but only whole items stay (``response.interrupt``)."""

    STEERED = "steered"
    """A successor with the user's new input follows by itself."""

    CANCELLED = "cancelled"
    """``POST /responses/{id}/cancel``: the status is ``cancelled``."""


class _Ending(NamedTuple):
    """How a response ends: the signal, the status, and what the Response object says about it."""

    signal: Signal
    status: str
    error: tuple[str, str] | None = None
    incomplete_reason: str | None = None


_CANCELLED: Final[Mapping[Cancellation, _Ending]] = {
    Cancellation.INTERRUPTED: _Ending(Signal.CANCEL, "incomplete", None, "interrupted"),
    Cancellation.DISCARDED: _Ending(Signal.INTERRUPT, "incomplete", None, "interrupted"),
    Cancellation.STEERED: _Ending(Signal.CANCEL, "incomplete", None, "steered"),
    Cancellation.CANCELLED: _Ending(Signal.CANCEL, "cancelled"),
}


def _ending(finished: Finished, cancellation: Cancellation) -> _Ending:
    match finished.reason:
        case FinishReason.STOP | FinishReason.TOOL_CALLS:
            return _Ending(Signal.END, "completed")
        case FinishReason.LENGTH:
            return _Ending(Signal.CUT, "incomplete", None, "max_output_tokens")
        case FinishReason.CANCELLED:
            return _CANCELLED[cancellation]
        case FinishReason.ERROR:
            message = _presentable(finished.error_message or "generation failed")
            return _Ending(Signal.FAIL, "failed", (finished.error_code or "server_error", message))


def _presentable(message: str) -> str:
    """Short, and encodable whatever an engine put into it."""
    return shorten(message).encode("utf-8", "replace").decode()


_encode = msgspec.json.Encoder().encode

Timing = Iterable[tuple[str, Mapping[str, Any]]]
"""Events with figures, sent just before the terminal event: their types and fields."""


class ResponseStream(DeltaMachine[OpenItem]):
    """Makes the events of one response. No I/O, no clock; see the module's text for the order.

    ``new_id`` is called with ``msg``, ``rs``, ``fc``, ``ctc`` or ``cmp`` and returns a new item id that
    starts with it.
    """

    def __init__(
        self,
        response_id: str,
        request: ResponseRequest,
        *,
        created_at: int,
        new_id: Callable[[str], str],
    ) -> None:
        super().__init__(response_id)
        self._request = request
        self._echo = ResponseEcho(response_id, request, created_at=created_at)
        self._in_progress = b""
        self._final = b""
        self._new_id = new_id
        self._sequence = 0
        self._num_opened = 0
        self._items_json: list[bytes] = []
        stream_id = request.stream_id
        self._lane = {} if stream_id is None else {"stream_id": stream_id}
        self._tail = b"}" if stream_id is None else b"," + _encode(self._lane)[1:]
        self._namespaces = {
            tool.name: tool.namespace
            for tool in request.tools
            if not isinstance(tool, OpaqueTool) and tool.namespace is not None
        }

    # ------------------------------------------------------------------ what can be asked

    def snapshot(self) -> bytes:
        """JSON of the Response object as it is now: final after the end."""
        if self.is_finished:
            return self._final
        return self._echo.render(self.status, output=self._items_json)

    def final_response(self) -> bytes:
        """JSON of the finished Response object, as in the terminal event."""
        if not self.is_finished:
            raise LocalProtocolError(f"response {self.response_id} has not ended yet")
        return self._final

    # ------------------------------------------------------------------ what can be done

    def start(self) -> list[bytes]:
        """``response.created`` and ``response.in_progress``."""
        self._step(Signal.START if self._request.generate else Signal.START_PREWARM, [])
        self.status = "in_progress"
        self._in_progress = self._echo.render("in_progress")
        return [
            self._response_event("response.created", self._in_progress),
            self._response_event("response.in_progress", self._in_progress),
        ]

    def heartbeat(self) -> list[bytes]:
        """Another ``response.in_progress``: the one beat that every known client accepts."""
        self._step(Signal.HEARTBEAT, [])
        return [self._response_event("response.in_progress", self._in_progress)]

    def aside(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        """An event beside the order above, numbered with the others; legal at any time."""
        return self._event(kind, fields)

    def finish(
        self,
        finished: Finished,
        timing: Timing | None = None,
        *,
        completed_at: int | None = None,
        cancellation: Cancellation = Cancellation.INTERRUPTED,
        extra: Mapping[str, Any] | None = None,
    ) -> list[bytes]:
        """The last events: the open item's end, the timing if there is one, the terminal event.

        ``completed_at`` is in seconds since the epoch. ``cancellation`` says how a cancelled
        response ends. ``extra`` are further fields of the Response object.
        """
        ending = _ending(finished, cancellation)
        return self._finish(ending, finished.usage, timing, completed_at, extra)

    def fail(self, code: str, message: str, *, usage: Usage | None = None) -> list[bytes]:
        """End with ``response.failed``. Legal at any time before the end; starts if need be."""
        events = [] if self.is_started else self.start()
        error = (code, _presentable(message))
        return events + self._finish(_Ending(Signal.FAIL, "failed", error), usage)

    def take_back(self, code: str, message: str) -> bytes:
        """``response.failed`` in place of a terminal event that was made but must not be sent."""
        if not self.is_finished:
            raise LocalProtocolError(f"response {self.response_id} has not ended yet")
        self._sequence -= 1
        self.status = "failed"
        self._final = self._echo.render(
            "failed",
            output=self._items_json,
            usage=self.usage,
            error=(code, _presentable(message)),
        )
        return self._response_event("response.failed", self._final)

    # ------------------------------------------------------------------ items

    def _delta_event(self, item: OpenItem, escaped: bytes) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        return item.delta_template % (number, escaped)

    def _open_item(
        self, delta: TextDelta | ReasoningDelta | ToolCallStarted, events: list[bytes]
    ) -> OpenItem:
        index = self._num_opened
        item: OpenItem
        if isinstance(delta, TextDelta):
            item = OpenMessage(self._new_id("msg"), index)
        elif isinstance(delta, ReasoningDelta):
            item = OpenReasoning(self._new_id("rs"), index)
        else:
            item_id = self._new_id("ctc" if delta.is_custom else "fc")
            item = OpenCall(item_id, index, delta, self._namespaces.get(delta.name))
        item.delta_template += literally(self._tail)
        self._num_opened += 1
        events.extend(self._event(kind, fields) for kind, fields in item.opening())
        return item

    def _compact(self, delta: ContextCompacted, events: list[bytes]) -> None:
        item = Compaction(delta.encrypted_content, self._new_id("cmp"))
        json = _encode(item)
        fields = {"output_index": self._num_opened, "item": Raw(json)}
        events.append(self._event("response.output_item.added", fields))
        events.append(self._event("response.output_item.done", fields))
        self._num_opened += 1
        self._items.append(item)
        self._items_json.append(json)

    def _close_item(self, item: OpenItem, fate: Fate, events: list[bytes]) -> None:
        closed = item.close("completed" if fate is Fate.COMPLETE else "incomplete")
        events.extend(self._event(kind, fields) for kind, fields in closed.events)
        json = _encode(closed.json)
        done = {"output_index": item.index, "item": Raw(json)}
        events.append(self._event("response.output_item.done", done))
        self._items.append(closed.item)
        self._items_json.append(json)

    def _finish(
        self,
        ending: _Ending,
        usage: Usage | None,
        timing: Timing | None = None,
        completed_at: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> list[bytes]:
        events = self._end(ending.signal, ending.status, usage)
        if timing is not None:
            events += [self._event(kind, fields) for kind, fields in timing]
        self._final = self._echo.render(
            ending.status,
            output=self._items_json,
            usage=usage,
            completed_at=completed_at,
            error=ending.error,
            incomplete_reason=ending.incomplete_reason,
            extra=extra,
        )
        # There is no terminal event of a cancelled response but this one.
        kind = "incomplete" if ending.status == "cancelled" else ending.status
        events.append(self._response_event(f"response.{kind}", self._final))
        return events

    # ------------------------------------------------------------------ events

    def _event(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        number = self._sequence
        event = _encode({"type": kind, "sequence_number": number, **fields, **self._lane})
        self._sequence = number + 1  # not before: a number must not be lost when encoding fails
        return event

    def _response_event(self, kind: str, response: bytes) -> bytes:
        number = self._sequence
        self._sequence += 1
        return b'{"type":"%b","sequence_number":%d,"response":%b%b' % (
            kind.encode(),
            number,
            response,
            self._tail,
        )
