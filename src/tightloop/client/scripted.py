"""A transport that answers from a script: deterministic, without server or engine. A shipped fake.

Each answer is a sequence of deltas, turned into the same legal event sequence that a server makes,
or an error to raise instead of answering. It honours the ``Transport`` contract and passes the same
tests as the real ones, so sessions and agents can be driven through every corner with it.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import orjson

from tightloop.client.transport import Event, TransportError
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import ApiError
from tightloop.protocol.requests import decode_request
from tightloop.protocol.response_stream import ResponseStream

Reply = Sequence[Delta] | ApiError | TransportError
"""Deltas, a last ``Finished`` being optional, or what to raise instead."""

Script = Callable[[dict[str, Any]], Reply]


def text_reply(text: str) -> list[Delta]:
    """One assistant message."""
    return [TextDelta(text)]


def call_reply(name: str, arguments: object, call_id: str = "call_1") -> list[Delta]:
    """One tool call; a str as arguments makes it a custom (free-form) one."""
    is_custom = isinstance(arguments, str)
    body = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return [ToolCallStarted(call_id, name, is_custom), ToolCallDelta(body), ToolCallDone()]


class ScriptedTransport:
    """Gives the replies one after the other; ``requests`` keeps what was asked, in order."""

    supports_continuation = True

    def __init__(self, replies: Sequence[Reply] | Script) -> None:
        self.requests: list[dict[str, Any]] = []
        self.num_connects = 0
        self.is_closed = False
        self._replies = replies
        self._is_connected = False

    async def connect(self) -> None:
        """Count the connection; free when there is one."""
        if not self._is_connected:
            self._is_connected = True
            self.num_connects += 1

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``. A ``TransportError`` in the script loses the connection."""
        await self.connect()
        self.requests.append(request)
        reply = self._reply(request)
        if isinstance(reply, Exception):
            self._is_connected = not isinstance(reply, TransportError)
            raise reply
        for event in _events(request, reply, len(self.requests)):
            yield event

    async def close(self) -> None:
        """Remember that it was closed."""
        self._is_connected = False
        self.is_closed = True

    def _reply(self, request: dict[str, Any]) -> Reply:
        if callable(self._replies):
            return self._replies(request)
        number = len(self.requests) - 1
        return self._replies[number] if number < len(self._replies) else text_reply("(the end)")


def _events(request: dict[str, Any], reply: Sequence[Delta], number: int) -> list[Event]:
    items = iter(range(1 << 20))
    stream = ResponseStream(
        f"resp_{number}",
        decode_request(orjson.dumps(request), websocket=True),
        created_at=0,
        new_id=lambda prefix: f"{prefix}_{number}_{next(items)}",
    )
    frames = stream.start()
    deltas = list(reply)
    finished = Finished(FinishReason.STOP, Usage())
    if deltas and isinstance(deltas[-1], Finished):
        finished = deltas.pop()  # type: ignore[assignment]
    if request.get("generate", True):
        frames += stream.feed(deltas)
    frames += stream.finish(finished)
    return [orjson.loads(frame) for frame in frames]
