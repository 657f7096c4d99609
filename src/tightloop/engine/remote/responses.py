"""Asking a host over the Responses API: what a request says, and the way over HTTP."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.remote.bodies import Body, KeptTools, opened
from tightloop.engine.remote.call import Call, timing_event_times
from tightloop.engine.remote.chat import ChatApi, new_id
from tightloop.engine.remote.host import Host, said
from tightloop.engine.remote.hosts import HostKind, affinity_fields
from tightloop.engine.remote.kept import Transcripts
from tightloop.engine.remote.upstream import Reply
from tightloop.engine.tool_names import offered
from tightloop.protocol.deltas import Delta, Finished, FinishReason, Usage
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.requests import TIMING_KEY
from tightloop.protocol.response_reader import ResponseReader
from tightloop.protocol.response_request import (
    ItemList,
    encode_response_tools,
    response_fields,
)
from tightloop.protocol.sse import DONE_DATA, SseDecoder, SseEvent

PATH: Final = "/responses"

MIN_OUTPUT_TOKENS: Final = 16
"""The least that the API takes as a limit."""

_encode: Final = msgspec.json.Encoder().encode
_COMMA: Final = b","


def needs_chat(request: GenerationRequest, kind: HostKind) -> bool:
    """Whether the request says what only a chat can say: stop strings, a seed, few tokens."""
    sampling, limit = request.sampling, request.max_output_tokens
    return (
        bool(sampling.stop)
        or (sampling.seed is not None and not kind.seed)
        or (limit is not None and limit < MIN_OUTPUT_TOKENS)
    )


class RequestFields:
    """Makes everything in a request but its input."""

    def __init__(self) -> None:
        self._tools = KeptTools(encode_response_tools)

    def of(
        self, request: GenerationRequest, model: str, kind: HostKind, key: str
    ) -> dict[str, Any]:
        """The fields; ``tools`` are ``Raw``. Raises ``EngineError`` for a call that cannot be made."""
        tools, sampling = offered(request), request.sampling
        fields = response_fields(
            tools,
            encoded_tools=self._tools.encoded(request.tools, tools) if tools else None,
            instructions=request.instructions,
            tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            max_output_tokens=request.max_output_tokens,
            output_format=request.output_format,
            reasoning_effort=request.reasoning_effort,
        )
        if kind.timing:
            fields["client_metadata"] = {TIMING_KEY: "1"}
        return {"model": model, **fields, **affinity_fields(kind, request, key)}


def conclude(deltas: list[Delta], call: Call, reader: ResponseReader) -> None:
    """Hand the deltas on, with the host's times once it has said them."""
    if reader.timing is not None:
        call.times = timing_event_times(reader.timing)
    call.say(deltas)


class ResponsesHttp:
    """The Responses API over HTTP: the whole context each time, since nothing is stored there."""

    def __init__(self, host: Host, chat: ChatApi) -> None:
        self._host = host
        self._chat = chat
        self._fields = RequestFields()
        # One for hosts that take plain reasoning: which the host is can be learned meanwhile.
        self._lists = {plain: Transcripts(ItemList(plain)) for plain in (False, True)}

    async def converse(self, request: GenerationRequest, model: str, call: Call) -> None:
        """See ``api.Api``."""
        host = self._host
        if needs_chat(request, host.kind):
            return await self._chat.converse(request, model, call)
        key = host.keys.of(request)
        fields = self._fields.of(request, model, host.kind, key)
        words = self._lists[host.kind.plain_reasoning].of(request)
        reply = await host.ask(PATH, _body(words.pieces(), fields), key, call.who)
        try:
            await _read(reply, call)
        finally:
            reply.close()
        return None

    async def close(self) -> None:
        """Nothing of its own to close."""


_FIRST: Final = ("model", "stream", "instructions", "tools")
"""What stays the same from turn to turn goes in front: it need not be compressed again."""


def _body(pieces: Sequence[bytes], fields: dict[str, Any]) -> Body:
    fields = {"stream": True, **fields}
    stable = [opened({key: fields.pop(key) for key in _FIRST if key in fields}, "input")]
    for piece in pieces:
        if len(stable) > 1:
            stable.append(_COMMA)
        stable.append(piece)
    return Body(stable, b"]," + _encode(fields)[1:])


async def _read(reply: Reply, call: Call) -> None:
    reader, decoder = ResponseReader(new_id=new_id), SseDecoder()

    def take(piece: bytes) -> bool:
        deltas: list[Delta] = []
        try:
            _take(decoder.feed(piece), reader, deltas)
        finally:  # what came before a fault is part of the answer
            conclude(deltas, call, reader)
        return reader.is_finished

    await reply.pour(take)
    if not reader.is_finished:
        message = "the upstream's stream ended before its response did"
        call.say([Finished(FinishReason.ERROR, Usage(), None, "upstream_error", message)])
    await reply.finish()


def _take(events: list[SseEvent], reader: ResponseReader, deltas: list[Delta]) -> None:
    for _, data in events:
        event = said(data)
        if isinstance(event, dict):
            deltas.extend(reader.feed(event))
        elif data.strip() not in (b"", DONE_DATA):
            raise RemoteProtocolError(f"{data[:80]!r} is not an event")


def fragment(raw: bytes) -> orjson.Fragment:
    """JSON that is put into a frame as it is."""
    return orjson.Fragment(raw)


def as_frame_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields for the encoder of frames, which does not know ``Raw``."""
    tools = fields.get("tools")
    return fields if tools is None else {**fields, "tools": fragment(bytes(tools))}
