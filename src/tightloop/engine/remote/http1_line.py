"""One connection of HTTP/1.1 to a host, as an ``asyncio.Protocol`` over the parser ``httptools``.

What the kernel gave in one read goes to the reader of the answer within the callback that brought it:
between a packet of the host and the sink stand no task, no queue and no turn of the event loop.

A connection answers one request at a time, and is free for the next once an answer was read to its end.
It is given up when that end cannot be known: a cancelled answer, broken framing, bytes nobody asked for.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from tightloop.engine.remote.answer import Answer
from tightloop.engine.remote.upstream import UpstreamError

MAX_HEAD_BYTES: Final = 64 << 10
"""Most bytes in a row that are no body: a head, trailers, interim answers, extensions of chunks."""

PART_BYTES: Final = 256 << 10
"""A larger body is written in parts of this size, as fast as the host takes them."""

_BODILESS: Final = frozenset({204, 304})


class UnansweredError(UpstreamError):
    """The connection was lost before any byte of an answer."""


class _BrokenFramingError(Exception):
    """What the host sends is no answer to what it was asked."""


class Line(asyncio.Protocol):
    """A connection. ``on_free`` is called when it can be asked again, ``on_lost`` once at its end.

    ``silence_s`` is how long an answer may be quiet, ``keep_alive_s`` how long a free line is kept.
    """

    def __init__(
        self,
        on_free: "Callable[[Line], None]",
        on_lost: "Callable[[Line], None]",
        *,
        silence_s: float,
        keep_alive_s: float,
    ) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._silence_s = silence_s
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._now_s = self._loop.time
        self._moved_s = self._now_s()  # when something last came, or was asked
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._room: asyncio.Future[None] | None = (
            None  # pending while the transport's buffer is full
        )
        self._head = _Head(self.resume_writing)
        self._parser = self._head.parser
        self._reply: Http1Reply | None = None
        self._num_bodiless = 0
        self.lost = asyncio.Event()

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked, as far as is known here."""
        return (
            self._reply is None
            and self._transport is not None
            and not self._transport.is_closing()
            and not self.lost.is_set()
        )

    async def ask(self, head: bytes, body: bytes) -> "Http1Reply":
        """The answer, its head read. ``head`` ends in an empty line.

        Raises ``UnansweredError``, ``UpstreamError``, ``TimeoutError``.
        """
        reply = self._reply = Http1Reply(self)
        self._head.begin(reply)
        self._num_bodiless = 0
        self._moved_s = self._now_s()
        try:
            await self._send(head, body, reply)
            await reply.head()
        except BaseException:
            reply.close()
            raise
        return reply

    def abort(self) -> None:
        """End it now, without a word."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self._watch(self._silence_s)

    def data_received(self, data: bytes) -> None:
        self._moved_s = self._now_s()
        reply = self._reply
        if reply is None:  # nothing was asked
            self.abort()
            return
        reply.is_heard = True
        fault: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            fault = error
        parts = self._head.parts
        if parts:
            self._num_bodiless = 0
            piece = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            reply.take(piece)
        else:
            self._num_bodiless += len(data)
        if self._head.is_complete:
            self._complete(is_clean=fault is None)
        elif fault is not None:
            self._fail(UpstreamError(f"the host broke HTTP/1.1: {fault.__context__ or fault}"))
        elif self._num_bodiless > MAX_HEAD_BYTES:
            self._fail(UpstreamError(f"more than {MAX_HEAD_BYTES} bytes came that are no body"))

    def eof_received(self) -> None:
        if self._reply is not None and self._head.ends_with_connection:
            self._complete(is_clean=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.lost.set()
        self.resume_writing()
        reply = self._reply
        if reply is not None and exc is None and self._head.ends_with_connection:
            self._complete(is_clean=False)
        elif reply is not None:
            text = f"the host closed it: {exc!r}" if exc else "the host closed it"
            self._fail(UpstreamError(text) if reply.is_heard else UnansweredError(text))
        self._head.release()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # ------------------------------------------------------------------ for the reply

    def give_up(self, reply: "Http1Reply") -> None:
        """Nobody reads the rest of ``reply``."""
        if self._reply is reply:
            self._reply = None
            self.abort()

    def pause_reading(self, is_paused: bool) -> None:
        """Let the kernel hold what comes, or read on."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if is_paused:
            transport.pause_reading()
        else:
            self._moved_s = self._now_s()
            transport.resume_reading()

    # ------------------------------------------------------------------ inside

    async def _send(self, head: bytes, body: bytes, reply: "Http1Reply") -> None:
        """Send as fast as the host takes it; stops when the host has answered, or is gone."""
        transport = self._transport
        if transport is None or self.lost.is_set():
            raise UnansweredError("the connection was lost")
        view = memoryview(body)
        transport.write(b"".join((head, view[:PART_BYTES])))
        view = view[PART_BYTES:]
        while view and not reply.has_begun:
            if self._room is not None:
                await self._room
                continue
            transport.write(view[:PART_BYTES])
            view = view[PART_BYTES:]
        reply.is_sent = not view

    def _complete(self, *, is_clean: bool) -> None:
        """The answer came whole."""
        reply, self._reply = self._reply, None
        if reply is None:  # given up meanwhile
            return
        reply.end(None)
        if is_clean and reply.is_sent and self._head.is_kept_alive and self.is_usable:
            self._on_free(self)
        else:
            self.abort()

    def _fail(self, error: Exception) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.end(error)
        self.abort()

    def _watch(self, limit_s: float) -> None:
        # What it is used for can change meanwhile, and the other limit be the shorter one.
        after_s = min(limit_s, self._silence_s, self._keep_alive_s)
        self._timer = self._loop.call_later(after_s, self._look)

    def _look(self) -> None:
        """The one timer: it is not set anew with every read, but looks when the last one was."""
        reply = self._reply
        if reply is not None and reply.is_paused:
            self._moved_s = self._now_s()  # the quiet is ours
        limit_s = self._keep_alive_s if reply is None else self._silence_s
        quiet_s = self._now_s() - self._moved_s
        if quiet_s < limit_s:
            self._watch(limit_s - quiet_s)
        elif reply is None:
            self.abort()
        else:
            self._fail(TimeoutError(f"nothing came for {limit_s:g} s"))


class _Head:
    """What the parser tells: it looks its callbacks up by their names. One answer at a time."""

    def __init__(self, stop_sending: Callable[[], None]) -> None:
        """``stop_sending`` is called when an answer begins."""
        self._stop_sending = stop_sending
        self._reply: Http1Reply | None = None
        self._fields: dict[str, str] = {}
        self.parts: list[bytes] = []
        """Of the body, as one read brought them."""
        self.is_complete = False
        self.is_kept_alive = False
        self.ends_with_connection = False
        # Bound to the list: a piece of the body costs no call of Python's.
        self.on_body = self.parts.append
        self.parser = httptools.HttpResponseParser(self)
        # As aiohttp reads answers: hosts are a mixed lot, and nothing is passed on as it came.
        self.parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )

    def begin(self, reply: "Http1Reply") -> None:
        """The next answer is ``reply``."""
        self._reply = reply
        self._fields = {}
        self.parts.clear()
        self.is_complete = self.is_kept_alive = self.ends_with_connection = False

    def release(self) -> None:
        """Nothing more is parsed. The parser refers to this object, so both would wait for the collector."""
        self._reply = None
        self._stop_sending = _nobody
        del self.parser

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise _BrokenFramingError("a second answer came to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reply is not None and not self._reply.status:  # else a trailer
            self._fields[name.decode("latin-1").lower()] = value.decode("utf-8", "replace")

    def on_headers_complete(self) -> None:
        status, fields = self.parser.get_status_code(), self._fields
        if status < 200:
            self._fields = {}
            if status == 101:
                raise _BrokenFramingError("the host changed the protocol unasked")
            return
        coding = fields.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise _BrokenFramingError(f"a {coding} answer (status {status}) was not asked for")
        codings = fields.get("transfer-encoding")
        self.is_kept_alive = self.parser.should_keep_alive()
        self.ends_with_connection = status not in _BODILESS and (
            "content-length" not in fields
            if codings is None
            else not codings.strip().lower().endswith("chunked")
        )
        assert self._reply is not None
        self._reply.begin(status, fields)
        self._stop_sending()  # a sender that waits for room would wait for a host that reads no more

    def on_message_complete(self) -> None:
        if self._reply is not None and self._reply.status:
            self.is_complete = True


def _nobody() -> None:
    """Who is told after the end."""


class Http1Reply(Answer):
    """The answer to the one request of a line."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.is_heard = False
        """Whether any byte came since the request."""
        self.line = line

    def give_up(self) -> None:
        """See ``Answer.give_up``: nothing else can come on this line."""
        self.line.give_up(self)

    def pause_reading(self, is_paused: bool) -> None:
        """See ``Answer.pause_reading``."""
        self.line.pause_reading(is_paused)
