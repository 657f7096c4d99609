"""The Responses API over one persistent WebSocket.

A reader task lives as long as the socket: it answers the server's pings while a long tool runs,
notices a lost connection at once, and files every frame that one wake-up brought before the
consumer runs. Frames are not compressed: deltas are small and a compressor costs more than it saves.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from tightloop.client.inbox import Switchboard
from tightloop.client.reads import use_small_reads
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.errors import ApiError
from tightloop.protocol.prefill import CAPABILITIES_HEADER, capabilities_of

MAX_MESSAGE_BYTES = 64 << 20
MAX_HINT_BYTES = 512 << 10
"""Of hints that wait for the next step of the loop."""

PING_EVERY_S = 60.0
CONNECT_TIMEOUT_S = 15.0


class WebSocketTransport:
    """``Transport`` over ``GET {url}/responses`` with Upgrade.

    ``url`` is the API root as clients write it, e.g. ``http://127.0.0.1:8099/v1`` (``ws`` and
    ``wss`` are understood too).
    """

    supports_continuation = True

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._line: _Line | None = None
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
            self._line = _Line(self.url, await self._open())

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``."""
        await self.connect()
        line = self._line
        if line is None:
            raise TransportError(f"{self.url}: the transport was closed while it connected")
        inbox, frame = line.switchboard.open(request)
        try:
            await line.send(frame)
            while (event := await inbox.get()) is not None:
                yield event
        finally:
            farewell = line.switchboard.leave(inbox)
            if farewell is not None:
                with suppress(TransportError):  # a lost connection cancels by itself
                    await line.send(farewell)

    @property
    def capabilities(self) -> frozenset[str]:
        """See ``HintingTransport.capabilities``."""
        return self._line.capabilities if self._line is not None else frozenset()

    def hint(self, event: Event) -> bool:
        """See ``HintingTransport.hint``."""
        return self._line is not None and self._line.hint(orjson.dumps(event))

    async def close(self) -> None:
        """Close the socket; responses still running end in ``TransportError``."""
        async with self._connecting:
            await self._drop()
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    async def _open(self) -> aiohttp.ClientWebSocketResponse[bool]:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse_redirect)
            self._session = aiohttp.ClientSession(headers=self._headers, trace_configs=[trace])
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._session.ws_connect(
                    f"{self.url}/responses",
                    heartbeat=PING_EVERY_S,
                    max_msg_size=MAX_MESSAGE_BYTES,
                    compress=0,
                    decode_text=False,
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
            raise TransportError(f"cannot connect to {self.url}: {error!r}") from error

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


class _Line:
    """One socket with its reader; replaced as a whole when it is lost."""

    def __init__(self, url: str, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self.switchboard = Switchboard(url)
        self._url = url
        self._socket = socket
        self._hints: deque[bytes] = deque()
        self._hint_bytes = 0
        self._hinting: asyncio.Task[None] | None = None
        # aiohttp offers no public way to the headers of the answer that opened a socket.
        opening = getattr(socket, "_response", None)
        headers = opening.headers if opening is not None else {}
        self.capabilities = capabilities_of(headers.get(CAPABILITIES_HEADER))
        # aiohttp offers no public way to the transport of a client's socket.
        self._transport = getattr(getattr(socket, "_conn", None), "transport", None)
        use_small_reads(self._transport)
        self._reader = asyncio.get_running_loop().create_task(self._read())

    @property
    def is_open(self) -> bool:
        return not self._socket.closed and not self._reader.done()

    async def send(self, frame: bytes) -> None:
        """Write one text frame; raises ``TransportError`` when the socket is gone."""
        try:
            await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"the connection to {self._url} is gone: {error!r}") from error

    def hint(self, frame: bytes) -> bool:
        """Write one text frame if nothing else waits to be written; whether it goes out."""
        if not self.is_open or self._hint_bytes + len(frame) > MAX_HINT_BYTES:
            return False
        if self._transport is None or self._transport.get_write_buffer_size():
            return False
        self._hint_bytes += len(frame)
        self._hints.append(frame)
        if self._hinting is None or self._hinting.done():
            self._hinting = asyncio.get_running_loop().create_task(self._send_hints())
        return True

    async def _send_hints(self) -> None:
        with suppress(TransportError):  # the reader notices the loss, too
            while self._hints:
                frame = self._hints.popleft()
                self._hint_bytes -= len(frame)
                await self.send(frame)

    async def close(self) -> None:
        await self._socket.close()
        await asyncio.wait([task for task in (self._reader, self._hinting) if task is not None])

    async def _read(self) -> None:
        error = TransportError(f"the connection to {self._url} was closed")
        try:
            while True:
                message = await self._socket.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                self.switchboard.receive(message.data)
            error = self._reason(message.type, message.extra)
        except TransportError as broken:
            error = broken
        finally:
            self.switchboard.lose(error)
        await self._socket.close()

    def _reason(self, kind: aiohttp.WSMsgType, extra: object) -> TransportError:
        """Why the socket ended, in words."""
        if kind is aiohttp.WSMsgType.BINARY:
            return TransportError(f"{self._url} sent a binary frame; events are text frames")
        code = self._socket.close_code
        detail = self._socket.exception() or extra or ""
        return TransportError(f"{self._url} closed the connection (code {code}) {detail}".rstrip())
