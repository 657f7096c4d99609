"""Asking a host over Chat Completions: the whole conversation each time, answered by a stream."""

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.remote.bodies import ChatBodies
from tightloop.engine.remote.call import Call, host_times
from tightloop.engine.remote.host import Host, said
from tightloop.engine.remote.hosts import affinity_fields
from tightloop.engine.remote.upstream import Reply, read_whole
from tightloop.protocol.chat_chunk import Chunk
from tightloop.protocol.chat_completions import ChatStreamParser
from tightloop.protocol.chat_request import custom_tool_names
from tightloop.protocol.chat_stencil import Stencil, stencil_of
from tightloop.protocol.deltas import Delta, ToolCallDelta
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.sse import DONE_DATA, EVENT_ENDS, SseDecoder, SseEvent

PATH: Final = "/chat/completions"

MAX_WHOLE_BYTES: Final = 16 * 1024 * 1024
"""Largest answer taken from a host that sends one JSON document instead of a stream."""

MAX_VAIN_STENCILS: Final = 8
"""After so many that fitted nothing, the chunks of an answer are taken to differ in more than a text."""


class ChatApi:
    """Chat Completions of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bodies = ChatBodies(include_reasoning=host.options.sends_reasoning)

    async def converse(self, request: GenerationRequest, model: str, call: Call) -> None:
        """The answer goes to ``call``. Raises what asking a host can raise; see ``RemoteEngine``."""
        host = self._host
        key = host.keys.of(request)
        extra = affinity_fields(host.kind, request, key)
        body = self._bodies.body(request, model, host.kind, extra)
        reply = await host.ask(PATH, body, key, call.who)
        try:
            parser = ChatStreamParser(custom_tool_names(request.tools), new_id=new_id)
            await _read(reply, call, parser)
        finally:
            reply.close()

    async def close(self) -> None:
        """Nothing of its own to close."""


_decode: Final = msgspec.json.Decoder(Chunk).decode


def new_id(prefix: str) -> str:
    """A new id for what a host gave none."""
    return f"{prefix}_{secrets.token_hex(12)}"


async def _read(reply: Reply, call: Call, parser: ChatStreamParser) -> None:
    if "json" in reply.headers.get("content-type", ""):
        # An error with status 200, or an answer from a host that does not stream.
        body = said(await read_whole(reply, MAX_WHOLE_BYTES))
        call.times = host_times(body) if isinstance(body, dict) else None
        call.say(parser.feed_whole(body))
        return
    stream = StreamReader(call, parser)
    await reply.pour(stream.take)
    stream.end()
    await reply.finish()


class StreamReader:
    """The way of one stream's bytes to the sink, in one call for all that one read brought."""

    def __init__(self, call: Call, parser: ChatStreamParser) -> None:
        self._call = call
        self._parser = parser
        self._feed = SseDecoder().feed
        self._stencil: Stencil | None = None
        self._cut = b""  # the beginning of an event, while there is a stencil
        self._num_vain = 0  # stencils in a row that fitted nothing
        self._has_begun = False  # the piece before had text too

    def take(self, piece: bytes) -> bool:
        """Whether the answer is complete. Raises ``RemoteProtocolError``."""
        stencil = self._stencil
        if stencil is not None:
            # While there is one, the decoder is in the middle of nothing, and the parser where it was.
            if self._cut:
                piece, self._cut = self._cut + piece, b""
            deltas = stencil.read(piece)
            if deltas is None:
                deltas = self._read_all_but_the_end(stencil, piece)
            if deltas is not None:
                self._num_vain = 0
                if stencil.kind is ToolCallDelta:
                    self._say_arguments(deltas)
                else:
                    self._call.say_more(deltas)
                return False
            self._stencil = None
        return self._take_in_full(piece)

    def _read_all_but_the_end(self, stencil: Stencil, piece: bytes) -> list[Delta] | None:
        """The deltas of ``piece`` but for an event at its end that was cut, which is kept.

        A full buffer ends anywhere. What is kept is less than was read, so it cannot grow.
        """
        size = piece.rfind(stencil.end) + len(stencil.end)
        deltas = stencil.read(piece[:size]) if len(stencil.end) <= size < len(piece) else None
        if deltas is not None:
            self._cut = piece[size:]
        return deltas

    def _take_in_full(self, piece: bytes) -> bool:
        call, deltas = self._call, list[Delta]()
        events = self._feed(piece)
        try:
            is_done = _take(events, call, self._parser, deltas)
        finally:  # what came before a fault is part of the answer
            call.say(deltas)
        if is_done or self._parser.is_finished:
            self.end()
            return True
        if events and deltas and self._parser.goes_on:
            self._learn(piece, events[-1])
        else:
            self._has_begun = False
        return False

    def _learn(self, piece: bytes, event: SseEvent) -> None:
        """Have a stencil for the texts to come if ``event``, which ends ``piece``, gives one.

        Not from the first text, in whose chunk many hosts say who speaks: it is like no other.
        """
        has_begun, self._has_begun = self._has_begun, not self._has_begun
        end = next((end for end in EVENT_ENDS if piece.endswith(end)), None)
        if not has_begun or end is None or self._num_vain >= MAX_VAIN_STENCILS:
            return
        if event.event != "message":
            return
        stencil = stencil_of(event.data, end)
        self._num_vain += 1
        if self._parser.is_plain or (stencil is not None and stencil.kind is ToolCallDelta):
            self._stencil = stencil

    def _say_arguments(self, pieces: Sequence[Delta]) -> None:
        deltas: list[Delta] = []
        try:
            for piece in pieces:
                if isinstance(piece, ToolCallDelta):
                    self._parser.more_arguments(piece.text, deltas)
        finally:  # what came before a fault is part of the answer
            self._call.say_more(deltas)

    def end(self) -> None:
        """The stream has ended, or said that it has. The second time says nothing."""
        self._call.say(self._parser.end())


def _take(
    events: list[SseEvent], call: Call, parser: ChatStreamParser, deltas: list[Delta]
) -> bool:
    """The events' deltas are added; whether ``[DONE]`` came. Raises ``RemoteProtocolError``."""
    for event, data in events:
        if event == "error":
            deltas.extend(parser.fail(said(data)))
            continue
        try:
            wire = _decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # an end, an odd chunk, or none: the way below tells
        else:
            if wire.is_usual:
                deltas.extend(parser.feed_usual(wire))
                continue
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            text = data.strip()
            if text == DONE_DATA:
                return True
            if text:  # else a sign of life
                raise RemoteProtocolError(f"{data[:80]!r} is not JSON") from error
            continue
        if not isinstance(chunk, dict):
            raise RemoteProtocolError(f"{data[:80]!r} is not a JSON object")
        call.times = host_times(chunk) or call.times
        deltas.extend(parser.feed(chunk))
    return False
