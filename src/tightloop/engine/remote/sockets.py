"""Asking a host over its Responses WebSocket: a turn sends its new items, the host knows the rest.

The host keeps the latest response of a socket, so each conversation has a socket of its own, found by the
node that was made on it last. What was made there is compared with what the conversation holds now:
when they differ, or the host has forgotten, the whole context is sent once. A socket lost before any
output is replaced once, by the same means.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tightloop.client.session import LOST_CONTEXT
from tightloop.client.transport import TransportError
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.interface import EngineError, GenerationRequest, Node
from tightloop.engine.remote.call import Call
from tightloop.engine.remote.chat import ChatApi, new_id
from tightloop.engine.remote.errors import refusal
from tightloop.engine.remote.host import Host
from tightloop.engine.remote.responses import (
    RequestFields,
    as_frame_fields,
    conclude,
    fragment,
    needs_chat,
)
from tightloop.engine.remote.upstream import SILENCE_TIMEOUT_S, UpstreamError, open_socket
from tightloop.protocol.deltas import Delta, Finished, FinishReason, Usage
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import Item
from tightloop.protocol.response_reader import ResponseReader, Signature, output_signature
from tightloop.protocol.response_request import encode_input, hides_earlier

OLD_SOCKET: Final = "websocket_connection_limit_reached"

MAX_STEPS_BACK: Final = 8
"""Nodes that may lie between a request and what a socket knows, e.g. answered by another host."""


@dataclass(frozen=True, slots=True)
class _Made:
    """The response that a socket's host knows: which node it should be, and its id there."""

    node_id: str
    parent_id: str | None
    items: tuple[Item, ...]
    signature: Signature
    upstream_id: str

    def is_of(self, node: Node) -> bool:
        """Whether the conversation holds what was made: servers drop what was interrupted."""
        num = len(self.items)
        return (
            self.node_id == node.id
            and self.parent_id == (node.parent.id if node.parent else None)
            and len(node.items) >= num
            and all(a is b or a == b for a, b in zip(self.items, node.items, strict=False))
            and self.signature == output_signature(node.items[num:])
        )


class _Line:
    """One socket, and what its host knows."""

    def __init__(self, transport: WebSocketTransport) -> None:
        self.transport = transport
        self.made: _Made | None = None
        self.timer: asyncio.TimerHandle | None = None


class ResponsesSockets:
    """See ``api.Api``. ``num_whole`` counts requests that sent the whole context."""

    def __init__(
        self, host: Host, chat: ChatApi, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.num_whole = 0
        self.num_incremental = 0
        self._host = host
        self._chat = chat
        self._ssl = ssl_context
        self._fields = RequestFields()
        self._idle: OrderedDict[str, _Line] = OrderedDict()
        """By the id of the node made last, the oldest first."""
        self._spare: _Line | None = None
        self._filling: asyncio.Task[None] | None = None  # the task that makes the next spare one
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def num_idle(self) -> int:
        """Sockets that wait for their conversation's next turn."""
        return len(self._idle)

    async def open_spare(self) -> None:
        """A socket is connected for the next new conversation.

        Raises ``TransportError`` or ``ApiError`` when the host opens none.
        """
        if self._has_enough():
            return
        line = self._new_line()
        try:
            await line.transport.connect()
            if not self._has_enough():  # or another one came first
                self._spare = line
        finally:
            if self._spare is not line:
                self._aside(line.transport.close())

    async def converse(self, request: GenerationRequest, model: str, call: Call) -> None:
        """See ``api.Api``."""
        host = self._host
        if needs_chat(request, host.kind):
            return await self._chat.converse(request, model, call)
        fields = self._fields.of(request, model, host.kind, host.keys.of(request))
        line, newer = self._take(request)
        is_kept = False
        try:
            is_kept = await self._ask(line, request, as_frame_fields(fields), newer, call)
        except ApiError as error:
            # The host has read and refused: the socket is as good as new.
            is_kept = True
            raise refusal(error, call.who, host.key_env) from error
        except TransportError as error:
            raise UpstreamError(str(error)) from error
        finally:
            # After a cancel the host may go on, so the socket is given up; a new one is made ready.
            self._put_back(line) if is_kept else self._aside(line.transport.close())
        return None

    async def close(self) -> None:
        """See ``api.Api``."""
        self._is_closed = True
        if self._filling is not None:
            self._filling.cancel()
        lines, self._idle = list(self._idle.values()), OrderedDict()
        if self._spare is not None:
            lines.append(self._spare)
            self._spare = None
        for line in lines:
            if line.timer is not None:
                line.timer.cancel()
            self._aside(line.transport.close())
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    # ------------------------------------------------------------------ sockets

    def _has_enough(self) -> bool:
        return self._is_closed or self._spare is not None

    def _new_line(self) -> _Line:
        host = self._host
        return _Line(
            WebSocketTransport(
                host.base_url,
                host.api_key(),
                ssl_context=self._ssl,
                socket_factory=lambda address: open_socket(address, host.options.congestion),
            )
        )

    def _take(self, request: GenerationRequest) -> tuple[_Line, list[Item] | None]:
        """The conversation's socket with the items that its host lacks, or any other and None."""
        newer = [request.items]
        node = request.parent
        for _ in range(MAX_STEPS_BACK):
            if node is None or any(map(hides_earlier, newer)):
                break
            line = self._idle.get(node.id)
            if line is not None and line.made is not None and line.made.is_of(node):
                del self._idle[node.id]
                self._stop_timer(line)
                if hides_earlier(node.items[len(line.made.items) :]):
                    return line, None
                return line, [item for items in reversed(newer) for item in items]
            newer.append(node.items)
            node = node.parent
        line, self._spare = self._spare or self._new_line(), None
        if self._filling is None or self._filling.done():
            self._filling = self._aside(self._replace_spare())
        return line, None

    def _put_back(self, line: _Line) -> None:
        if self._is_closed:
            self._aside(line.transport.close())
        elif line.made is None:
            if self._spare is None:
                self._spare = line
            else:
                self._aside(line.transport.close())
        else:
            self._idle[line.made.node_id] = line
            loop = asyncio.get_running_loop()
            line.timer = loop.call_later(self._host.options.idle_s, self._expire, line)
            if len(self._idle) > self._host.options.max_sockets:
                self._expire(next(iter(self._idle.values())))

    def _expire(self, line: _Line) -> None:
        self._stop_timer(line)
        if line.made is not None and self._idle.get(line.made.node_id) is line:
            del self._idle[line.made.node_id]
        self._aside(line.transport.close())

    def _stop_timer(self, line: _Line) -> None:
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None

    async def _replace_spare(self) -> None:
        with suppress(TransportError, ApiError, EngineError):  # whoever needs it says what is wrong
            await self.open_spare()

    def _aside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------------ one response

    async def _ask(
        self,
        line: _Line,
        request: GenerationRequest,
        fields: dict[str, Any],
        newer: Sequence[Item] | None,
        call: Call,
    ) -> bool:
        """The answer is with ``call``; whether the socket can be used on."""
        made, line.made = line.made, None
        if newer is not None and made is not None:
            try:
                self.num_incremental += 1
                sent = {**fields, "previous_response_id": made.upstream_id}
                return await self._stream(line, request, sent, newer, call)
            except (ApiError, TransportError) as error:
                if call.has_output or not _is_lost(error):
                    raise
                if not isinstance(error, ApiError) or error.code == OLD_SOCKET:
                    await line.transport.close()  # it opens a new one by itself
        try:
            return await self._whole(line, request, fields, call)
        except TransportError:
            if call.has_output or newer is not None:
                raise
        return await self._whole(line, request, fields, call)

    async def _whole(
        self, line: _Line, request: GenerationRequest, fields: dict[str, Any], call: Call
    ) -> bool:
        self.num_whole += 1
        parent = request.parent.context() if request.parent else ()
        return await self._stream(line, request, fields, [*parent, *request.items], call)

    async def _stream(
        self,
        line: _Line,
        request: GenerationRequest,
        fields: dict[str, Any],
        items: Sequence[Item],
        call: Call,
    ) -> bool:
        plain = self._host.kind.plain_reasoning
        body = {
            **fields,
            "input": fragment(b"[" + encode_input(items, plain_reasoning=plain) + b"]"),
        }
        reader = ResponseReader(new_id=new_id)
        finished: Finished | None = None

        def take(events: list[dict[str, Any]]) -> bool:
            nonlocal finished
            deltas: list[Delta] = []
            try:
                for event in events:
                    deltas += reader.feed(event)
            finally:  # what came before a fault is part of the answer
                if deltas and isinstance(deltas[-1], Finished):
                    finished = deltas[-1]
                    del deltas[-1]
                conclude(deltas, call, reader)
            return reader.is_finished

        await line.transport.pour(body, take, silence_s=SILENCE_TIMEOUT_S)
        if finished is None:
            message = "the upstream's stream ended before its response did"
            finished = Finished(FinishReason.ERROR, Usage(), None, "upstream_error", message)
        # Only now: who hears of the end may ask on, and the socket must be found then.
        conclude([finished], call, reader)
        if not reader.is_finished:
            return False
        if finished.reason is not FinishReason.ERROR and reader.response_id:
            parent_id = request.parent.id if request.parent else None
            line.made = _Made(
                request.response_id, parent_id, request.items, reader.signature, reader.response_id
            )
        return True


def _is_lost(error: ApiError | TransportError) -> bool:
    return isinstance(error, TransportError) or error.code in LOST_CONTEXT
