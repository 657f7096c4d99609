"""The measuring client: a blocking socket with TCP_NODELAY, so that it adds microseconds."""

import base64
import os
import socket
from typing import TypeVar

from benchmarks.peers.reply import (
    BadReply,
    HttpReply,
    Reply,
    Token,
    WebSocketReply,
    failure,
    tokens,
)
from benchmarks.peers.stub import unmasked
from tightloop.trace.clock import now_ns

LIMIT_S = 60.0
READ_BYTES = 1 << 18

CLOSED = "the connection was closed before the answer was over"

AnyReply = TypeVar("AnyReply", bound=Reply)


class Closed(BadReply):
    """The connection was closed before a single byte of the answer."""


def connect(port: int) -> socket.socket:
    """A connection to this machine, without Nagle's algorithm."""
    connected = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def post(path: str, port: int, body: bytes, key: str = "") -> bytes:
    """A whole HTTP request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    head += f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def upgrade(path: str, port: int, key: str = "") -> bytes:
    """The request that asks for a WebSocket."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    head += (
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n"
    )
    return head.encode()


def text_frame(payload: bytes) -> bytes:
    """A client's text frame; masked here, so that it is ready when the clock starts."""
    size, mask = len(payload), os.urandom(4)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 1 << 16:
        head = b"\x81\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + size.to_bytes(8, "big")
    return head + mask + unmasked(payload, mask)


def exchange(line: socket.socket, request: bytes, reply: AnyReply) -> tuple[int, AnyReply]:
    """Send, and read to the end; also when the sending began, in ns. Raises ``BadReply``."""
    is_begun = False
    sent_ns = now_ns()
    line.sendall(request)
    try:
        while True:
            data = line.recv(READ_BYTES)
            if not data:
                raise BadReply(CLOSED) if is_begun else Closed(CLOSED)
            is_begun = True
            if reply.feed(data, now_ns()):
                return sent_ns, reply
            if isinstance(reply, WebSocketReply) and reply.pongs:
                line.sendall(pong(reply.pongs.pop()))
    except TimeoutError as error:
        raise BadReply(f"no end of the answer in {LIMIT_S:.0f} s") from error


def pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    mask = os.urandom(4)
    return bytes((0x8A, 0x80 | len(payload))) + mask + unmasked(payload, mask)


def checked(reply: HttpReply | WebSocketReply, num_tokens: int) -> list[Token]:
    """The tokens of a whole answer. Raises ``BadReply`` for any other."""
    if isinstance(reply, HttpReply) and reply.status != 200:
        raise BadReply(f"status {reply.status}: {reply.text()}")
    if isinstance(reply, WebSocketReply) and reply.is_closed:
        raise BadReply(f"the WebSocket was closed; last words {reply.text()!r}")
    if text := failure(reply):
        raise BadReply(text)
    found = tokens(reply)
    if len(found) != num_tokens:
        end = reply.text()[-300:]
        raise BadReply(f"{len(found)} of {num_tokens} tokens came; the answer ends {end!r}")
    return found


class HttpClient:
    """Requests in turn, on one kept connection or a new one each."""

    def __init__(self, port: int, path: str, key: str = "", *, is_kept: bool = True) -> None:
        self._port, self._path, self._key, self._is_kept = port, path, key, is_kept
        self._line: socket.socket | None = None
        self.num_reconnected = 0

    def ready(self, body: bytes) -> bytes:
        """The bytes that ``ask`` wants; made before the clock starts."""
        return post(self._path, self._port, body, self._key)

    def ask(self, request: bytes) -> tuple[int, HttpReply]:
        """One answer. Raises ``BadReply``.

        A new connection's handshake is within the time, and so is finding out that a kept one
        was closed meanwhile; ``num_reconnected`` counts those.
        """
        began_ns = now_ns()
        try:
            return began_ns, self._ask(request)
        except (BadReply, OSError) as error:
            self.close()
            raise BadReply(str(error)) from error
        finally:
            if not self._is_kept:
                self.close()

    def _ask(self, request: bytes) -> HttpReply:
        if self._line is not None:
            try:
                return exchange(self._line, request, HttpReply())[1]
            except (Closed, ConnectionError):
                self.close()
                self.num_reconnected += 1
        self._line = connect(self._port)
        return exchange(self._line, request, HttpReply())[1]

    def close(self) -> None:
        """The next request connects anew."""
        if self._line is not None:
            self._line.close()
            self._line = None


class WebSocketClient:
    """Responses in turn on one WebSocket."""

    def __init__(self, port: int, path: str, key: str = "") -> None:
        self.line = connect(port)
        reply = HttpReply()
        self.line.sendall(upgrade(path, port, key))
        while not reply.status:
            data = self.line.recv(READ_BYTES)
            if not data:
                raise BadReply("the connection was closed instead of upgraded")
            reply.feed(data, 0)
        if reply.status != 101:
            self.line.close()
            raise BadReply(f"no WebSocket: status {reply.status}")

    @staticmethod
    def ready(body: bytes) -> bytes:
        """See ``HttpClient.ready``."""
        return text_frame(body)

    def ask(self, request: bytes) -> tuple[int, WebSocketReply]:
        """One answer. Raises ``BadReply``."""
        try:
            return exchange(self.line, request, WebSocketReply())
        except OSError as error:
            raise BadReply(str(error)) from error

    def close(self) -> None:
        """End the connection."""
        self.line.close()


def num_reconnected(client: HttpClient | WebSocketClient) -> int:
    """How often it found its kept connection closed; a WebSocket never connects anew."""
    return client.num_reconnected if isinstance(client, HttpClient) else 0
