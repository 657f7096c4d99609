"""HTTP/2 to a host, over one TLS connection, by the sans-I/O library ``h2`` (the extra ``http2``).

Every request is a stream of that connection, so none waits for a handshake and all share one
congestion window. A lost connection is replaced at the next request.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tightloop.client.quiet import Quiet
from tightloop.client.reads import use_small_reads
from tightloop.engine.interface import EngineError
from tightloop.engine.remote.answer import Answer
from tightloop.engine.remote.upstream import (
    CONNECT_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    Reply,
    UpstreamError,
    dial,
    open_socket,
)

WINDOW_BYTES: Final = 16 << 20
"""What a host may send before we acknowledge it: an answer must never wait for us. Of one that nobody reads
no more than this comes beyond ``MAX_HELD_BYTES``."""

_CALM_CODES: Final = frozenset({h2.errors.ErrorCodes.REFUSED_STREAM, h2.errors.ErrorCodes.NO_ERROR})


class _NotProcessed(UpstreamError):
    """The host says, or shows, that it has not looked at the request: it may be asked again."""


class Http2Upstream:
    """See ``upstream.Upstream``; ``base_url`` is https."""

    def __init__(
        self,
        base_url: str,
        headers: Callable[[], Mapping[str, str]],
        *,
        ssl_context: ssl.SSLContext | None = None,
        congestion: str = "",
    ) -> None:
        parts = urlsplit(base_url)
        self._authority = parts.netloc
        self._host = parts.hostname or ""
        self._port = parts.port or 443
        self._root = parts.path
        self._headers = headers
        self._ssl = ssl_context or ssl.create_default_context()
        self._ssl.set_alpn_protocols(["h2", "http/1.1"])
        self._congestion = congestion
        self._line: _Line | None = None
        self._lines: set[_Line] = set()  # with those that finish their streams and take no more
        self._connecting = asyncio.Lock()
        self._is_closed = False

    def sockets(self) -> list[Any]:
        """The socket of the connection, as a transport shows it; empty when there is none."""
        return [self._line.socket] if self._line is not None and self._line.is_usable else []

    async def is_offered(self) -> bool:
        """Whether the host speaks HTTP/2; the connection that was made to ask is kept."""
        try:
            await self._connected()
        except (UpstreamError, TimeoutError):
            return False
        return True

    async def warm(self, num: int, path: str) -> list[Reply]:
        """See ``Upstream.warm``; one connection is all there is."""
        try:
            return [await self.get(path, {})] if num else []
        except (UpstreamError, TimeoutError, EngineError):
            return []

    async def get(self, path: str, headers: Mapping[str, str]) -> "Http2Reply":
        """See ``Upstream.get``."""
        return await self._ask("GET", path, b"", headers)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> "Http2Reply":
        """See ``Upstream.post``. Also a stream that was refused, or cut by a GOAWAY, is repeated."""
        return await self._ask("POST", path, body, {"content-type": "application/json", **headers})

    async def close(self) -> None:
        """See ``Upstream.close``."""
        self._is_closed = True
        self._line = None
        lines, self._lines = self._lines, set()
        for line in lines:
            line.close()
        for line in lines:
            await line.lost.wait()

    async def _ask(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> "Http2Reply":
        fields = [
            (":method", method),
            (":authority", self._authority),
            (":scheme", "https"),
            (":path", f"{self._root}{path}"),
            *((name.lower(), value) for name, value in {**self._headers(), **headers}.items()),
        ]
        try:
            return await (await self._connected()).ask(fields, body)
        except _NotProcessed:
            return await (await self._connected()).ask(fields, body)

    async def _connected(self) -> "_Line":
        if self._is_closed:
            raise EngineError("the engine has been closed", code="engine_unavailable")
        async with self._connecting:
            if self._line is None or not self._line.is_usable:
                self._line = await self._connect()
                self._lines = {line for line in self._lines if not line.lost.is_set()}
                self._lines.add(self._line)
                if self._is_closed:  # meanwhile
                    await self.close()
                    raise EngineError("the engine has been closed", code="engine_unavailable")
            return self._line

    async def _connect(self) -> "_Line":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                made = await dial(
                    self._host, self._port, lambda address: open_socket(address, self._congestion)
                )
                transport, line = await loop.create_connection(
                    _Line, sock=made, ssl=self._ssl, server_hostname=self._host
                )
        except OSError as failed:
            if isinstance(failed, TimeoutError):
                raise
            raise UpstreamError(repr(failed)) from failed
        tls = transport.get_extra_info("ssl_object")
        if tls is None or tls.selected_alpn_protocol() != "h2":
            transport.abort()
            raise UpstreamError(f"{self._authority} does not offer HTTP/2")
        use_small_reads(transport)
        return line


class _Connection(h2.connection.H2Connection):
    """``h2`` drops every stream at a GOAWAY; hosts that close gently still finish theirs.

    Source: RFC 9113, section 6.8. Only the state is put back: no new stream is opened here.
    """

    def _receive_goaway_frame(self, frame: Any) -> Any:
        before = self.state_machine.state
        result = super()._receive_goaway_frame(frame)
        self.state_machine.state = before
        return result


class _Line(asyncio.Protocol):
    """One connection. All methods run on the event loop's thread."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._h2 = _Connection(config)
        self._replies: dict[int, Http2Reply] = {}
        self._filled: list[Http2Reply] = []  # by the read that is being taken in
        self._transport: asyncio.Transport | None = None
        self._window = asyncio.Event()  # set when the host has granted more
        self._is_going = False
        self.lost = asyncio.Event()

    @property
    def is_usable(self) -> bool:
        """Whether a new stream can be opened."""
        return not self._is_going and not self.lost.is_set()

    @property
    def socket(self) -> Any:
        """The connection's ``asyncio.TransportSocket``."""
        return self._transport.get_extra_info("socket") if self._transport else None

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self._h2.initiate_connection()
        self._h2.update_settings(  # what is set before goes into force here, but is not sent
            {
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            }
        )
        self._h2.increment_flow_control_window(WINDOW_BYTES)
        self.write()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            broken = UpstreamError(f"the host broke HTTP/2: {error!r}")
            self._end_all(broken, broken)
            self.write()
            self.close()
            return
        for event in events:
            self._take(event)
        filled, self._filled = self._filled, []
        for reply in filled:
            reply.deliver()
        self.write()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._window.set()
        text = f"the connection was lost: {exc!r}"
        self._end_all(UpstreamError(text), _NotProcessed(text))

    # ------------------------------------------------------------------ for the upstream

    async def ask(self, fields: list[tuple[str, str]], body: bytes) -> "Http2Reply":
        """The reply's head. Raises ``_NotProcessed`` where asking again does no harm."""
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, fields, end_stream=not body)
        except h2.exceptions.ProtocolError as error:
            self._is_going = True
            raise _NotProcessed(repr(error)) from error
        reply = self._replies[stream_id] = Http2Reply(self, stream_id)
        try:
            async with asyncio.timeout(SILENCE_TIMEOUT_S):
                await self._send(stream_id, body, reply)
                await reply.head()
        except BaseException:
            reply.close()
            raise
        return reply

    def reset(self, stream_id: int) -> None:
        """Tell the host that nobody reads this stream any more."""
        self._replies.pop(stream_id, None)
        with suppress(h2.exceptions.ProtocolError):  # it has ended
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        self.write()
        self._close_if_done()

    def grant(self, stream_id: int, num_bytes: int) -> None:
        """Let the host send more on this stream."""
        if num_bytes and stream_id in self._replies:
            with suppress(h2.exceptions.ProtocolError):  # the connection is over
                self._h2.increment_flow_control_window(num_bytes, stream_id)
            self.write()

    def write(self) -> None:
        """Hand to the socket what there is."""
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """End the connection, with a word to the host."""
        self._is_going = True
        if self._transport is not None and not self._transport.is_closing():
            with suppress(h2.exceptions.ProtocolError):  # it is over already
                self._h2.close_connection()
            self.write()
            self._transport.close()

    async def _send(self, stream_id: int, body: bytes, reply: "Http2Reply") -> None:
        """Send the body as fast as the host's windows allow; stops when the host has answered."""
        view = memoryview(body)
        while view and not reply.has_begun:
            room = min(
                self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size
            )
            if room <= 0:
                self.write()
                self._window.clear()
                await self._window.wait()
                continue
            part, view = view[:room], view[room:]
            self._h2.send_data(stream_id, part.tobytes(), end_stream=not view)
        reply.is_sent = not view
        self.write()

    # ------------------------------------------------------------------ events

    def _take(self, event: Any) -> None:
        reply = self._replies.get(getattr(event, "stream_id", None) or 0)
        match event:
            case h2.events.DataReceived():
                self._acknowledge(event, reply)
                if reply is not None and reply.add(event.data or b""):
                    self._filled.append(reply)
            case h2.events.ResponseReceived() if reply is not None:
                fields = dict(_pairs(event.headers))
                status = fields.get(":status", "")
                reply.begin(int(status) if status.isdecimal() else 500, fields)
                self._window.set()  # whoever still sends the body need not go on
            case h2.events.StreamEnded() if reply is not None:
                if not reply.is_sent:  # the rest of the body stays here
                    self.reset(reply.stream_id)
                self._replies.pop(reply.stream_id, None)
                reply.end(None)
                self._close_if_done()
            case h2.events.StreamReset() if reply is not None:
                self._replies.pop(reply.stream_id, None)
                self._window.set()
                text = f"the host reset the stream (error {event.error_code})"
                is_calm = event.error_code in _CALM_CODES and not reply.has_begun
                reply.end(_NotProcessed(text) if is_calm else UpstreamError(text))
                self._close_if_done()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.set()
            case h2.events.ConnectionTerminated():
                self._go_away(event)

    def _acknowledge(self, event: Any, reply: "Http2Reply | None") -> None:
        size = event.flow_controlled_length or 0
        if reply is None or not reply.is_paused:
            self._h2.acknowledge_received_data(size, event.stream_id or 0)
        elif size:  # the other streams get their room back, this one when somebody reads it
            self._h2.increment_flow_control_window(size)
            reply.num_owed_bytes += size

    def _go_away(self, event: Any) -> None:
        """Streams above the last one that the host will answer can be asked again elsewhere."""
        self._is_going = True
        self._window.set()
        for stream_id, reply in list(self._replies.items()):
            if stream_id > (event.last_stream_id or 0):
                del self._replies[stream_id]
                reply.end(_NotProcessed("the host is closing the connection"))
        self._close_if_done()

    def _close_if_done(self) -> None:
        """A connection that takes no more streams ends with its last one."""
        if self._is_going and not self._replies:
            self.close()

    def _end_all(self, error: UpstreamError, unanswered: UpstreamError) -> None:
        self._is_going = True
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            reply.end(error if reply.has_begun else unanswered)


def _pairs(headers: Any) -> list[tuple[str, str]]:
    return [(_str(name), _str(value)) for name, value in headers or ()]


def _str(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


class Http2Reply(Answer):
    """The answer on one stream."""

    def __init__(self, line: _Line, stream_id: int) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.num_owed_bytes = 0
        """Of the stream's window: they came while it was paused."""
        self._line = line
        self._parts: list[bytes] = []
        self._quiet: Quiet | None = None  # until the head comes, ``ask`` has a limit of its own

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """See ``Answer.begin``."""
        self._watch()
        super().begin(status, headers)

    def add(self, data: bytes) -> bool:
        """Keep the data of one frame until the read is through; whether it is the first of the read."""
        self._parts.append(data)
        return len(self._parts) == 1

    def deliver(self) -> None:
        """Hand on what one read brought."""
        parts = self._parts
        if parts:
            if self._quiet is not None:
                self._quiet.moved()
            piece = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self.take(piece)

    def end(self, error: Exception | None) -> None:
        """See ``Answer.end``."""
        self.deliver()
        super().end(error)
        self._stop_watching()

    def give_up(self) -> None:
        """See ``Answer.give_up``: the connection goes on."""
        self._stop_watching()
        self._line.reset(self.stream_id)

    def pause_reading(self, is_paused: bool) -> None:
        """See ``Answer.pause_reading``. The other streams of the connection do not wait for this one."""
        if is_paused:
            self._stop_watching()  # the quiet is ours
        elif not self._is_ended:
            self._watch()
            owed, self.num_owed_bytes = self.num_owed_bytes, 0
            self._line.grant(self.stream_id, owed)

    def _too_quiet(self) -> None:
        self.end(TimeoutError(f"nothing came for {SILENCE_TIMEOUT_S:g} s"))
        self._line.reset(self.stream_id)

    def _watch(self) -> None:
        self._quiet = Quiet(SILENCE_TIMEOUT_S, self._too_quiet)

    def _stop_watching(self) -> None:
        if self._quiet is not None:
            self._quiet.stop()
