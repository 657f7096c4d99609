"""A WebSocket around a ``lanes.Session``: frames in and out, nothing else.

The reader runs beside generation, because creates, cancels and pings arrive while tokens leave.
Batches of events are framed and written to the transport directly: one write a batch.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from aiohttp import WSCloseCode, WSMsgType, web

from tightloop.client.reads import use_small_reads
from tightloop.protocol.prefill import CAPABILITIES_HEADER
from tightloop.protocol.websocket_mode import binary_frame_error
from tightloop.server.access import client_of
from tightloop.server.endpoint import Endpoint
from tightloop.server.frames import text_frames
from tightloop.server.lanes import MAX_CONNECTION_S
from tightloop.server.prefilling import capabilities
from tightloop.server.turns import Manner

MAX_MESSAGE_BYTES = 64 << 20
MAX_UNSENT_BYTES = 64 << 20
"""A peer that has left this much unread is cut off: its tokens would fill the memory. Looked at
before a write, because one legitimate batch can be large: a response repeats its text five times."""

GOODBYES = (WSCloseCode.OK, WSCloseCode.GOING_AWAY)
"""Close codes by which a client says that it left. Any other end may be a lost connection."""

PING_EVERY_S = 60.0
CLOSE_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class Sockets:
    """The open WebSockets of one server."""

    def __init__(
        self,
        endpoint: Endpoint,
        max_unsent_bytes: int = MAX_UNSENT_BYTES,
        max_connection_s: float = MAX_CONNECTION_S,
    ) -> None:
        self._endpoint = endpoint
        self._max_unsent_bytes = max_unsent_bytes
        self._max_connection_s = max_connection_s
        self._open: set[web.WebSocketResponse[bool]] = set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Upgrade, and stay until the connection ends. The caller has checked the key."""
        socket = web.WebSocketResponse(
            timeout=CLOSE_TIMEOUT_S,
            heartbeat=PING_EVERY_S,
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES,
            decode_text=False,
        )
        if names := capabilities(self._endpoint.engine):
            socket.headers[CAPABILITIES_HEADER] = ", ".join(sorted(names))
        await socket.prepare(request)
        transport = request.transport
        use_small_reads(transport)

        def write(events: Sequence[bytes]) -> None:
            if transport is None or transport.is_closing() or socket.closed:
                return
            if transport.get_write_buffer_size() > self._max_unsent_bytes:
                transport.abort()
                return
            transport.write(text_frames(events))

        manner = Manner(codex_timing=_is_codex(request.headers), client=client_of(request.headers))
        session = self._endpoint.open(write, manner)
        loop = asyncio.get_running_loop()
        over_age = asyncio.Event()
        expiry = loop.call_later(self._max_connection_s, session.expire, over_age.set)
        farewell = loop.create_task(_say_goodbye(socket, over_age))
        self._open.add(socket)
        _log.info("socket opened by %s", request.headers.get("User-Agent", "an unnamed client"))
        is_goodbye = False
        try:
            while True:
                message = await socket.receive()
                if message.type is WSMsgType.TEXT:
                    session.send(message.data)
                elif message.type is WSMsgType.BINARY:
                    session.refuse(binary_frame_error())
                else:
                    is_goodbye = message.type is WSMsgType.CLOSE and message.data in GOODBYES
                    break
        finally:
            expiry.cancel()
            farewell.cancel()
            self._open.discard(socket)
            session.close(is_goodbye=is_goodbye)
            _log.info("socket closed with code %s", socket.close_code)
        return socket

    async def close(self) -> None:
        """Close every socket with 1001, which clients take as a reason to reconnect.

        Waits for no peer: each socket's reader is in ``receive``, which gives up at once.
        """
        for socket in list(self._open):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server is shutting down")


async def _say_goodbye(socket: "web.WebSocketResponse[bool]", over_age: asyncio.Event) -> None:
    """Close a connection that has reached its age, with a code that clients reconnect after."""
    await over_age.wait()
    await socket.close(code=WSCloseCode.GOING_AWAY, message=b"connection limit reached")


def _is_codex(headers: Mapping[str, str]) -> bool:
    """Whether the peer makes metrics of ``responsesapi.websocket_timing``; nobody else knows it."""
    return any(
        headers.get(name, "").lower().startswith("codex") for name in ("originator", "User-Agent")
    )
