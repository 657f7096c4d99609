"""One turn over HTTP, in any dialect: the whole answer as JSON, or its events as they come.

Events leave by ``transport.write`` from the engine's callback, with this module's own chunk
framing, once aiohttp has sent the headers and the first events: no coroutine and no queue stand
between a token and the socket. aiohttp writes the end of the body.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import HttpVersion11, web

from tightloop.protocol.errors import ApiError
from tightloop.protocol.requests import ResponseRequest
from tightloop.server.access import client_of
from tightloop.server.conversation_book import Hold
from tightloop.server.conversations import Record
from tightloop.server.dialect import Dialect
from tightloop.server.endpoint import Endpoint
from tightloop.server.timing import server_timing_header
from tightloop.server.turns import Manner, Turn
from tightloop.server.websocket import MAX_UNSENT_BYTES

TIMING_HEADER = "X-Tightloop-Timing"
"""A request with the value ``1`` gets the timing event, as with ``client_metadata``."""

EVENT_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy that collects tokens would undo all of this
}
FAILURE_STATUS = {
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "store_failed": 500,
    "upstream_error": 502,
    "invalid_api_key": 502,  # this server's key for the remote host: the caller's was checked
    "permission_denied": 502,
    "insufficient_quota": 502,
    "engine_unavailable": 503,
    "server_is_overloaded": 429,  # a 503 makes clients try again at once, and often
    "upstream_timeout": 504,
}
"""By error code of a failed response; with any other code the request was at fault: 400."""

RETRY_AFTER_S = 1.0


async def answer(
    request: web.Request,
    endpoint: Endpoint,
    asked: ResponseRequest,
    parent: Record | None,
    dialect: Dialect,
    receive_ns: int,
    hold: Hold | None = None,
) -> web.StreamResponse:
    """Make one response and send it as ``asked``. Raises ``ApiError`` before anything is sent.

    ``hold`` as in ``Turn.begin``.
    """
    if request.headers.get(TIMING_HEADER) == "1":
        asked = msgspec.structs.replace(asked, wants_timing=True)
    manner = Manner(
        dialect.make_stream,
        dialect.resumes,
        client=client_of(request.headers),
        resent=dialect.resent,
    )
    if asked.stream:
        return await _stream(request, endpoint, asked, parent, dialect, manner, receive_ns, hold)
    return await _whole(endpoint, asked, parent, manner, receive_ns, hold)


async def _whole(
    endpoint: Endpoint,
    asked: ResponseRequest,
    parent: Record | None,
    manner: Manner,
    receive_ns: int,
    hold: Hold | None,
) -> web.Response:
    over = asyncio.get_running_loop().create_future()
    turn = Turn(
        endpoint.backstage, asked, None, _settles(over), receive_ns=receive_ns, manner=manner
    )
    turn.begin(parent, hold)
    if asked.background:
        return json_response(turn.snapshot())
    try:
        await over
    except asyncio.CancelledError:
        turn.leave(is_goodbye=True)  # it had no id yet that its client could come back with
        raise
    if turn.failure is not None:
        raise failure(*turn.failure)
    response = json_response(turn.snapshot())
    if turn.figures is not None:
        response.headers["Server-Timing"] = server_timing_header(turn.figures, turn.route)
    return response


async def _stream(
    request: web.Request,
    endpoint: Endpoint,
    asked: ResponseRequest,
    parent: Record | None,
    dialect: Dialect,
    manner: Manner,
    receive_ns: int,
    hold: Hold | None,
) -> web.StreamResponse:
    over = asyncio.get_running_loop().create_future()
    events = EventStream(request, dialect)
    turn = Turn(
        endpoint.backstage,
        asked,
        events.write,
        _settles(over),
        receive_ns=receive_ns,
        manner=manner,
    )
    turn.begin(parent, hold)  # a refusal is still a plain HTTP error here
    try:
        return await events.send(over)
    finally:
        turn.leave(is_goodbye=False)


def _settles(over: "asyncio.Future[None]") -> Callable[[Turn], None]:
    def ended(_turn: Turn) -> None:
        if not over.done():
            over.set_result(None)

    return ended


class EventStream:
    """Server-sent events of one response: collected until the headers are out, then at once."""

    def __init__(self, request: web.Request, dialect: Dialect) -> None:
        self._request = request
        self._frame = dialect.frame
        self._done = dialect.done
        self._is_chunked = request.version >= HttpVersion11
        self._early: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    async def send(self, over: "asyncio.Future[None]") -> web.StreamResponse:
        """Headers, then whatever is written until ``over``, then the end of the stream."""
        response = web.StreamResponse(headers=EVENT_STREAM_HEADERS)
        try:
            await response.prepare(self._request)
            early = self._take()
            if early:
                await response.write(early)
            self._open()
            await over
            await response.write_eof(self._done)
        except OSError:
            pass  # the peer hung up; the caller leaves the turn
        return response

    def write(self, events: Sequence[bytes]) -> None:
        """Send one batch as one chunk."""
        frame = self._frame
        # A token has nothing to be joined with.
        data = frame(events[0]) if len(events) == 1 else b"".join(map(frame, events))
        transport = self._transport
        if transport is None:
            self._early.append(data)
        elif transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            transport.abort()
        elif not transport.is_closing():
            self._put(transport, data)

    def _put(self, transport: asyncio.Transport, data: bytes) -> None:
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def _take(self) -> bytes:
        early, self._early = self._early, []
        return b"".join(early)

    def _open(self) -> None:
        """From now on write to the transport, whose headers have been sent."""
        self._transport = self._request.transport
        rest = self._take()
        if rest and self._transport is not None:
            self._put(self._transport, rest)


def json_response(body: bytes) -> web.Response:
    """A 200 with a JSON body."""
    return web.Response(body=body, content_type="application/json")


def failure(code: str, message: str) -> ApiError:
    """A failed response as an HTTP error."""
    status = FAILURE_STATUS.get(code, 400)
    return ApiError(
        message,
        status=status,
        error_type=_error_type(status),
        code=code,
        retry_after_s=RETRY_AFTER_S if status in (429, 503) else None,
    )


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
