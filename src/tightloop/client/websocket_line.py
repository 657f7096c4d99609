"""One WebSocket that is open: what comes is read within the callback that brought it.

aiohttp opens the socket and writes its frames; it would also read them, into a queue that a task must be
woken for. So this takes its place as the transport's protocol and tells it only what writing needs: when
to wait, and that the connection is lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

import aiohttp

from tightloop.client.inbox import Switchboard
from tightloop.client.quiet import Quiet
from tightloop.client.reads import use_small_reads
from tightloop.client.reasons import reason_of
from tightloop.client.transport import TransportError
from tightloop.client.websocket_frames import CloseCode, Ending, FrameReader
from tightloop.protocol.prefill import CAPABILITIES_HEADER, capabilities_of

MAX_MESSAGE_BYTES: Final = 64 << 20
MAX_HINT_BYTES: Final = 512 << 10
"""Of hints that wait for the next step of the loop."""

PING_EVERY_S: Final = 60.0
"""After so long without a word the server is asked for one."""

PONG_TIMEOUT_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 10.0
"""How long the server has to say goodbye, too."""


class WebSocketLine(asyncio.Protocol):
    """A socket and its responses; replaced as a whole when it is lost.

    ``opening`` is the answer that opened ``socket``. ``catch_up`` is called once, before anything is asked.
    """

    def __init__(
        self,
        url: str,
        socket: aiohttp.ClientWebSocketResponse[bool],
        opening: aiohttp.ClientResponse,
    ) -> None:
        """Raises ``TransportError`` when the connection is gone already."""
        connection = opening.connection
        if connection is None or connection.transport is None:
            raise TransportError(f"{url} closed the connection as it opened")
        self.switchboard = Switchboard(url)
        self.capabilities = capabilities_of(opening.headers.get(CAPABILITIES_HEADER))
        self.transport = connection.transport
        self._url = url
        self._socket = socket
        self._frames = FrameReader(MAX_MESSAGE_BYTES)
        self._errands: deque[tuple[bytes, aiohttp.WSMsgType]] = deque()
        self._errand: asyncio.Task[None] | None = None
        self._hint_bytes = 0
        self._is_parting = False
        self._is_pinged = False
        self._lost = asyncio.Event()
        self._below = cast(asyncio.Protocol, self.transport.get_protocol())
        self.transport.set_protocol(self)
        use_small_reads(self.transport)
        self._quiet = Quiet(PING_EVERY_S, self._ping)

    async def catch_up(self) -> None:
        """Frames that came in one packet with ``opening`` are with aiohttp; it answers pings among them.

        No response can have been asked for so early, so events are of no interest. The rest of a frame
        that was cut there looks like a broken one: ASCII is no header that a server may send.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                while (await self._socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent, as far as is known here."""
        is_lost = self._is_parting or self.transport.is_closing()
        return not (is_lost or self.switchboard.is_broken)

    async def send(self, frame: bytes) -> None:
        """Write one text frame; raises ``TransportError`` when the socket is gone."""
        try:
            await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(
                f"the connection to {self._url} is gone: {reason_of(error)}"
            ) from error

    def hint(self, frame: bytes) -> bool:
        """Write one text frame if nothing else waits to be written; whether it goes out."""
        if not self.is_open or self._hint_bytes + len(frame) > MAX_HINT_BYTES:
            return False
        if self.transport.get_write_buffer_size():
            return False
        self._hint_bytes += len(frame)
        self._run_errand(frame, aiohttp.WSMsgType.TEXT)
        return True

    async def close(self) -> None:
        """Say goodbye, and wait for the server's. Responses that run end in ``TransportError``."""
        self._end(TransportError(f"the connection to {self._url} was closed"), CloseCode.NORMAL)
        try:
            await self._lost.wait()
        finally:
            self.transport.abort()
        if self._errand is not None:
            await asyncio.wait([self._errand])
        await self._socket.close()  # nothing goes out any more; it only forgets

    # ------------------------------------------------------------------ asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if not self._is_parting:
            self._heard()
        frames = self._frames
        texts = frames.feed(data)
        if texts and not self._is_parting:
            try:
                self.switchboard.receive_all(texts)
            except TransportError as broken:
                self._end(broken, CloseCode.NORMAL)
        if frames.ping is not None and not self._is_parting:
            self._run_errands_soon()
        if frames.ending is not None:
            self._part(frames.ending)

    def eof_received(self) -> None:
        """The server sends no more; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._quiet.stop()
        self._is_parting = True
        self.switchboard.lose(self._closed(CloseCode.ABNORMAL, repr(exc) if exc else ""))
        self._below.connection_lost(exc)
        self._lost.set()

    def pause_writing(self) -> None:
        self._below.pause_writing()

    def resume_writing(self) -> None:
        self._below.resume_writing()

    # ------------------------------------------------------------------ the end

    def _part(self, ending: Ending) -> None:
        """The server said goodbye, or what cannot be read on."""
        if self._is_parting and not ending.is_fault:  # it answers ours
            self.transport.close()
        elif not ending.is_fault:
            # A code that only stands for none cannot be sent back.
            code = CloseCode.NORMAL if ending.code == CloseCode.NONE_GIVEN else ending.code
            self._end(self._closed(ending.code, ending.reason), code)
        elif ending.code == CloseCode.UNSUPPORTED_DATA:
            self._end(TransportError(f"{self._url} {ending.reason}"), ending.code)
        else:
            text = f"{self._url} broke the WebSocket protocol: {ending.reason}"
            self._end(TransportError(text), ending.code)

    def _end(self, error: TransportError, code: int) -> None:
        """Every response ends in ``error``, and the server is told."""
        self.switchboard.lose(error)
        if not self._is_parting:
            self._is_parting = True
            self._watch(CLOSE_TIMEOUT_S, self.transport.abort)
            self._run_errand(code.to_bytes(2, "big"), aiohttp.WSMsgType.CLOSE)

    def _closed(self, code: int, detail: str) -> TransportError:
        text = f"{self._url} closed the connection (code {code}) {detail}"
        return TransportError(text.rstrip())

    # ------------------------------------------------------------------ signs of life

    def _heard(self) -> None:
        self._quiet.moved()
        if self._is_pinged:
            self._is_pinged = False
            self._watch(PING_EVERY_S, self._ping)

    def _ping(self) -> None:
        self._is_pinged = True
        self._run_errand(b"", aiohttp.WSMsgType.PING)
        self._watch(PONG_TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        detail = f"no answer to a ping for {PONG_TIMEOUT_S:g} s"
        self.switchboard.lose(self._closed(CloseCode.ABNORMAL, detail))
        self.transport.abort()

    def _watch(self, limit_s: float, on_quiet: Callable[[], None]) -> None:
        self._quiet.stop()
        self._quiet = Quiet(limit_s, on_quiet)

    # ------------------------------------------------------------------ frames that nobody waits for

    def _run_errand(self, payload: bytes, kind: aiohttp.WSMsgType) -> None:
        self._errands.append((payload, kind))
        self._run_errands_soon()

    def _run_errands_soon(self) -> None:
        if self._errand is None or self._errand.done():
            self._errand = asyncio.get_running_loop().create_task(self._run_errands())

    async def _run_errands(self) -> None:
        with suppress(aiohttp.ClientError, OSError):  # the loss is noticed elsewhere, too
            while (errand := self._next_errand()) is not None:
                payload, kind = errand
                await self._socket.send_frame(payload, kind)
                if kind is aiohttp.WSMsgType.CLOSE and self._frames.ending is not None:
                    self.transport.close()

    def _next_errand(self) -> tuple[bytes, aiohttp.WSMsgType] | None:
        """The newest ping comes first: of many that came while the buffer was full it is the one to answer."""
        ping, self._frames.ping = self._frames.ping, None
        if ping is not None:
            return ping, aiohttp.WSMsgType.PONG
        if not self._errands:
            return None
        payload, kind = self._errands.popleft()
        if kind is aiohttp.WSMsgType.TEXT:
            self._hint_bytes -= len(payload)
        return payload, kind
