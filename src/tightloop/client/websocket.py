"""The Responses API over one persistent WebSocket.

Frames are read as they come, whoever waits: the server's pings are answered while a long tool runs, and
a lost connection is noticed at once. What one read brought is filed before the consumer runs, or handed
to a callback within that read. Frames are not compressed: deltas are small and a compressor costs more
than it saves.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from tightloop.client.inbox import Inbox, Take
from tightloop.client.quiet import Quiet
from tightloop.client.reasons import reason_of
from tightloop.client.resuming import resumed_events
from tightloop.client.transport import Event, TransportError
from tightloop.client.websocket_line import WebSocketLine
from tightloop.protocol.errors import ApiError

CONNECT_TIMEOUT_S = 15.0

SocketFactory = Callable[[tuple[Any, ...]], socket.socket]
"""Makes a socket for an address, as ``getaddrinfo`` gives it."""


class WebSocketTransport:
    """``Transport`` over ``GET {url}/responses`` with Upgrade.

    ``url`` is the API root as clients write it, e.g. ``http://127.0.0.1:8099/v1`` (``ws`` and
    ``wss`` are understood too).
    """

    supports_continuation = True

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        socket_factory: SocketFactory | None = None,
    ) -> None:
        """``ssl_context`` replaces the system's trust, ``socket_factory`` aiohttp's way to make a socket."""
        self.url = url.rstrip("/")
        self._ssl = ssl_context
        self._socket_factory = socket_factory
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._line: WebSocketLine | None = None
        self._opening: aiohttp.ClientResponse | None = None  # what opened the newest socket
        self._connecting = asyncio.Lock()

    async def connect(self) -> None:
        """Be connected; opens a new socket when the last one was lost.

        Raises ``ApiError`` when the server refuses the upgrade with a status, e.g. 401.
        """
        if self._line is not None and self._line.is_open:
            return
        async with self._connecting:
            if self._line is not None and self._line.is_open:
                return
            await self._drop()
            self._line = await self._open()
            await self._line.catch_up()

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``."""
        line = await self._connected()
        inbox, frame = line.switchboard.open(request)
        try:
            await line.send(frame)
            while (event := await inbox.get()) is not None:
                yield event
        finally:
            await self._leave(line, inbox)

    def resume(self, response_id: str, after: int) -> AsyncGenerator[Event, None]:
        """See ``ResumingTransport.resume``: over HTTP, as the socket that had it is gone."""
        return resumed_events(self._http_again, self.url, response_id, after, ssl=self._trust)

    async def pour(self, request: dict[str, Any], take: Take, *, silence_s: float) -> None:
        """As ``stream``, for a callback: called within the read that brought the events.

        Ends when ``take`` has enough, or the response is over; raises what ``take`` raises, and
        ``TimeoutError`` when nothing comes for ``silence_s``. Cancelling it cancels the response.
        """
        line = await self._connected()

        def heard(events: list[Event]) -> bool:
            quiet.moved()
            return take(events)

        tap, frame = line.switchboard.tap(request, heard)
        silence = TimeoutError(f"{self.url} said nothing for {silence_s:g} s")
        quiet = Quiet(silence_s, lambda: tap.give_up(silence))
        try:
            async with asyncio.timeout(silence_s):
                await line.send(frame)
            await tap.wait()
        finally:
            quiet.stop()
            await self._leave(line, tap)

    @property
    def capabilities(self) -> frozenset[str]:
        """See ``HintingTransport.capabilities``."""
        return self._line.capabilities if self._line is not None else frozenset()

    def hint(self, event: Event) -> bool:
        """See ``HintingTransport.hint``."""
        return self._line is not None and self._line.hint(orjson.dumps(event))

    def sibling(self) -> "WebSocketTransport":
        """Another connection to the same server with the same key, not open yet."""
        other = WebSocketTransport(
            self.url, ssl_context=self._ssl, socket_factory=self._socket_factory
        )
        other._headers = self._headers
        return other

    async def close(self) -> None:
        """Close the socket; responses still running end in ``TransportError``."""
        async with self._connecting:
            await self._drop()
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    async def _connected(self) -> WebSocketLine:
        await self.connect()
        if self._line is None:
            raise TransportError(f"{self.url}: the transport was closed while it connected")
        return self._line

    async def _leave(self, line: WebSocketLine, inbox: Inbox) -> None:
        farewell = line.switchboard.leave(inbox)
        if farewell is not None:
            with suppress(TransportError):  # a lost connection cancels by itself
                await line.send(farewell)

    @property
    def _trust(self) -> ssl.SSLContext | bool:
        return self._ssl if self._ssl is not None else True

    def _http_again(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise TransportError(f"{self.url}: the transport was closed")
        return self._session

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse_redirect)
            trace.on_request_end.append(self._note_opening)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=self._socket_factory),
                headers=self._headers,
                trace_configs=[trace],
            )
        return self._session

    async def _open(self) -> WebSocketLine:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                opened = await self._http().ws_connect(
                    f"{self.url}/responses",
                    compress=0,
                    decode_text=False,
                    ssl=self._trust,
                )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (101, 426):
                raise TransportError(
                    f"{self.url} does not speak WebSocket mode: {error}"
                ) from error
            raise ApiError(
                f"{self.url} refused the WebSocket with status {error.status}: {error.message}",
                status=error.status,
                code="invalid_api_key" if error.status == 401 else None,
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise TransportError(f"cannot connect to {self.url}: {reason_of(error)}") from error
        opening, self._opening = self._opening, None
        if opening is None:
            raise TransportError(f"{self.url} opened no WebSocket")
        return WebSocketLine(self.url, opened, opening)

    async def _note_opening(
        self, _session: aiohttp.ClientSession, _context: object, seen: aiohttp.TraceRequestEndParams
    ) -> None:
        self._opening = seen.response

    async def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, seen: aiohttp.TraceRequestRedirectParams
) -> None:
    """A conversation and its key go where they were sent, and nowhere else."""
    place = seen.response.headers.get("Location", "")
    raise TransportError(f"{seen.url} redirects to {place[:200]!r}; give the address meant")
