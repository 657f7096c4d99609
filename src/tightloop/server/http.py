"""The HTTP endpoints: one response as JSON or as server-sent events, and what was stored.

Events leave by ``transport.write`` from the engine's callback, with this module's own chunk
framing, once aiohttp has sent the headers and the first events: no coroutine and no queue stand
between a token and the socket. aiohttp writes the end of the body.
"""

import asyncio
from collections.abc import Sequence

import msgspec
import orjson
from aiohttp import HttpVersion11, web

from tightloop.client.reads import use_small_reads
from tightloop.protocol import sse
from tightloop.protocol.errors import ApiError, WireError
from tightloop.protocol.requests import ResponseRequest, decode_request
from tightloop.server.conversations import Record, not_found
from tightloop.server.endpoint import Endpoint
from tightloop.server.turns import Turn, Write
from tightloop.server.websocket import MAX_UNSENT_BYTES, Sockets

EVENT_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy that collects tokens would undo all of this
}


TERMINAL_STARTS = tuple(
    b'{"type":"response.%b"' % status for status in (b"completed", b"incomplete", b"failed")
)
FAILURE_STATUS = {
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "store_failed": 500,
    "upstream_error": 502,
    "invalid_api_key": 502,  # this server's key for the remote host: the caller's was checked
    "permission_denied": 502,
    "insufficient_quota": 502,
    "engine_unavailable": 503,
    "server_is_overloaded": 503,
    "upstream_timeout": 504,
}
"""By error code of a failed response; with any other code the request was at fault: 400."""

RETRY_AFTER_S = 1.0


class _Failed(msgspec.Struct):
    error: WireError


_failed = msgspec.json.Decoder(_Failed)


class HttpApi:
    """Handlers of one server's routes. They raise ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, endpoint: Endpoint, sockets: Sockets) -> None:
        self._endpoint = endpoint
        self._sockets = sockets

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``."""
        use_small_reads(request.transport)
        body = await request.read()
        receive_ns = self._endpoint.backstage.now_ns()
        asked = decode_request(body)
        parent = await self._parent(asked)
        if asked.stream:
            return await self._stream(request, asked, parent, receive_ns)
        return await self._whole(asked, parent, receive_ns)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/responses``: a WebSocket, or a hint that there is one."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise ApiError(
                "GET /v1/responses is the WebSocket mode and needs an upgrade; use POST for HTTP",
                code="websocket_upgrade_required",
            )
        return await self._sockets.serve(request)

    async def retrieve(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}``."""
        response_id = request.match_info["id"]
        body = await self._endpoint.conversations.body(response_id)
        if body is None:
            raise _no_response(response_id)
        return _json(body)

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/responses/{id}``."""
        response_id = request.match_info["id"]
        if not await self._endpoint.conversations.delete(response_id):
            raise _no_response(response_id)
        deleted = {"id": response_id, "object": "response.deleted", "deleted": True}
        return _json(orjson.dumps(deleted))

    async def health(self, _request: web.Request) -> web.Response:
        """``GET /health``: the server answers, so its model is loaded."""
        return _json(b'{"status":"ok"}')

    async def _parent(self, asked: ResponseRequest) -> Record | None:
        if asked.previous_response_id is None:
            return None
        parent = await self._endpoint.conversations.load(asked.previous_response_id)
        if parent is None:
            raise not_found(asked.previous_response_id)
        return parent

    async def _whole(
        self, asked: ResponseRequest, parent: Record | None, receive_ns: int
    ) -> web.Response:
        over = asyncio.get_running_loop().create_future()
        turn = self._turn(asked, _unread, over, receive_ns)
        turn.begin(parent)
        try:
            await over
        except asyncio.CancelledError:
            turn.abandon()
            raise
        if turn.record is None:
            raise _failure(turn.final_response)
        return _json(turn.final_response)

    async def _stream(
        self,
        request: web.Request,
        asked: ResponseRequest,
        parent: Record | None,
        receive_ns: int,
    ) -> web.StreamResponse:
        over = asyncio.get_running_loop().create_future()
        events = EventStream(is_chunked=request.version >= HttpVersion11)
        turn = self._turn(asked, events.write, over, receive_ns)
        turn.begin(parent)  # a refusal is still a plain HTTP error here
        response = web.StreamResponse(headers=EVENT_STREAM_HEADERS)
        try:
            await response.prepare(request)
            await response.write(events.take())
            events.open(request.transport)
            await over
            await response.write_eof()
        except OSError:  # the peer hung up
            turn.abandon()
        except asyncio.CancelledError:
            turn.abandon()
            raise
        return response

    def _turn(
        self,
        asked: ResponseRequest,
        write: Write,
        over: "asyncio.Future[None]",
        receive_ns: int,
    ) -> Turn:
        def ended(_turn: Turn) -> None:
            if not over.done():
                over.set_result(None)

        return Turn(self._endpoint.backstage, asked, write, ended, receive_ns=receive_ns)


class EventStream:
    """Server-sent events of one response: collected until ``open``, then written at once."""

    def __init__(self, *, is_chunked: bool) -> None:
        self._is_chunked = is_chunked
        self._early: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def write(self, events: Sequence[bytes]) -> None:
        """Send one batch as one chunk."""
        frames = [sse.frame(event) for event in events]
        if events[-1].startswith(TERMINAL_STARTS):
            frames.append(sse.DONE)
        data = b"".join(frames)
        transport = self._transport
        if transport is None:
            self._early.append(data)
        elif transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            transport.abort()
        elif not transport.is_closing():
            self._put(transport, data)

    def _put(self, transport: asyncio.Transport, data: bytes) -> None:
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def take(self) -> bytes:
        """What was collected so far."""
        early, self._early = self._early, []
        return b"".join(early)

    def open(self, transport: asyncio.Transport | None) -> None:
        """From now on write to ``transport``, whose headers have been sent."""
        self._transport = transport
        rest = self.take()
        if rest and transport is not None:
            self._put(transport, rest)


def _unread(_events: Sequence[bytes]) -> None:
    """Only the final object is wanted."""


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _no_response(response_id: str) -> ApiError:
    return ApiError(
        f"no stored response with id {response_id[:200]!r}",
        status=404,
        code="response_not_found",
        param="id",
    )


def _failure(final_response: bytes) -> ApiError:
    """A failed response as an HTTP error."""
    error = _failed.decode(final_response).error
    status = FAILURE_STATUS.get(error.code or "", 400)
    return ApiError(
        error.message,
        status=status,
        error_type="server_error" if status >= 500 else "invalid_request_error",
        code=error.code,
        retry_after_s=RETRY_AFTER_S if status in (429, 503) else None,
    )
