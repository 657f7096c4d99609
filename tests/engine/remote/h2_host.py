"""A small HTTP/2 host, made of ``h2`` alone, for tests of a client that was made of it too.

It can misbehave on demand, which is what it is for.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
from hyperframe.frame import GoAwayFrame

from tests.engine.remote.conftest import Tls


class Stream:
    """One request, and what can be answered to it."""

    def __init__(self, line: "Line", stream_id: int, headers: dict[str, str]) -> None:
        self.headers = headers
        self.body = b""
        self.unsent = b""
        """Of what ``flood`` says: it waits for the client to grant more."""
        self.line = line
        self._id = stream_id

    def begin(self, status: int = 200, **headers: str) -> None:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.line.h2.send_headers(self._id, [(":status", str(status)), *fields])
        self.line.write()

    def say(self, data: bytes) -> None:
        self.line.h2.send_data(self._id, data)
        self.line.write()

    def flood(self, data: bytes) -> None:
        """Say as much as the client lets in, and the rest when it lets in more; then end."""
        self.unsent = data
        self.flood_on()

    def flood_on(self) -> None:
        while self.unsent:
            room = self.line.h2.local_flow_control_window(self._id)
            size = min(room, self.line.h2.max_outbound_frame_size)
            if size <= 0:
                return
            part, self.unsent = self.unsent[:size], self.unsent[size:]
            self.line.h2.send_data(self._id, part, end_stream=not self.unsent)
            self.line.write()

    def end(self) -> None:
        self.line.h2.end_stream(self._id)
        self.line.write()

    def reset(self, code: h2.errors.ErrorCodes) -> None:
        self.line.h2.reset_stream(self._id, code)
        self.line.write()

    def go_away(self, last_stream_id: int) -> None:
        self.line.h2.close_connection(last_stream_id=last_stream_id)
        self.line.write()

    def drain(self) -> None:
        """Announce that this is the last stream, and stay to finish it."""
        assert self.line.transport is not None
        self.line.transport.write(GoAwayFrame(0, last_stream_id=self._id).serialize())

    def abort(self) -> None:
        assert self.line.transport is not None
        self.line.transport.abort()

    def hang_up(self) -> None:
        """End the connection without a word, after what was said."""
        assert self.line.transport is not None
        self.line.transport.close()

    def answer(self, *pieces: bytes, content_type: str = "text/event-stream") -> None:
        """A whole answer."""
        self.begin(content_type=content_type)
        for piece in pieces:
            self.say(piece)
        self.end()


Reply = Callable[[Stream], None]
"""Called when a request has come whole."""


class Host:
    """What was asked, over how many connections, and which streams the client cancelled."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.refuses_early = False
        """Answers 413 to the head of a POST and never reads the body."""
        self.streams: list[Stream] = []
        self.num_connections = 0
        self.lines: set[Line] = set()
        self.cancelled = asyncio.Event()

    @property
    def posts(self) -> list[Stream]:
        return [stream for stream in self.streams if stream.headers[":method"] == "POST"]


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, host: Host) -> None:
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.transport: asyncio.Transport | None = None
        self._host = host
        self._streams: dict[int, Stream] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self._host.num_connections += 1
        self._host.lines.add(self)
        self.h2.initiate_connection()
        self.write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.lines.discard(self)

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._take(event)
        self.write()

    def write(self) -> None:
        assert self.transport is not None
        self.transport.write(self.h2.data_to_send())

    def _take(self, event: Any) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=stream_id, headers=headers):
                assert stream_id is not None
                assert headers is not None
                fields = {str(name): str(value) for name, value in headers}
                stream = self._streams[stream_id] = Stream(self, stream_id, fields)
                if self._host.refuses_early and fields[":method"] == "POST":
                    stream.begin(413)
                    stream.say(b'{"error": {"message": "far too much"}}')
                    stream.end()
            case h2.events.DataReceived(stream_id=stream_id):
                assert stream_id is not None
                if self._host.refuses_early:
                    return
                self._streams[stream_id].body += event.data or b""
                length = event.flow_controlled_length or 0
                self.h2.acknowledge_received_data(length, stream_id)
            case h2.events.StreamEnded(stream_id=stream_id):
                assert stream_id is not None
                stream = self._streams[stream_id]
                self._host.streams.append(stream)
                self._host.reply(stream)
            case h2.events.StreamReset():
                self._host.cancelled.set()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for stream in self._streams.values():
                    stream.flood_on()


@asynccontextmanager
async def serving(reply: Reply, tls: Tls) -> AsyncIterator[tuple[Host, str]]:
    """The host and its base URL."""
    host = Host(reply)
    context: ssl.SSLContext = tls.server
    server = await asyncio.get_running_loop().create_server(
        lambda: Line(host), "127.0.0.1", 0, ssl=context
    )
    port = server.sockets[0].getsockname()[1]
    try:
        yield host, f"https://127.0.0.1:{port}/v1"
    finally:
        server.close()
        for line in list(host.lines):
            if line.transport is not None:
                line.transport.abort()
        await server.wait_closed()
