"""A WebSocket server that writes whatever bytes a test wants."""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.frames import Frame, Opcode

CREATED = {"type": "response.created", "response": {"id": "r"}}
DONE = {"type": "response.completed", "response": {"id": "r"}}
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, is_last: bool = True) -> bytes:
    return Frame(opcode, payload, fin=is_last).serialize(mask=False)


def events(*said: dict[str, Any]) -> bytes:
    return b"".join(frame(orjson.dumps(event)) for event in said)


def delta(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text}


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def open(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        (key,) = (
            line.split(b": ", 1)[1]
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
        upgrade = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.writer.write(upgrade + b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept)

    async def hear(self) -> tuple[int, bytes]:
        """The next frame: what kind, and what is in it."""
        first, size = await self.reader.readexactly(2)
        assert size & 0x80, "a client masks what it sends"
        size &= 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(size)
        return first & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))

    async def hears_no_more(self) -> None:
        assert await self.reader.read(1) == b""


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The URL of a server that runs ``script`` for each connection; what it asserts is the test's."""
    faults: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        try:
            await peer.open()
            await script(peer)
        except AssertionError as fault:
            faults.append(fault)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1"
    assert faults == []
