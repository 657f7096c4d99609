"""Conversations with an endpoint whose follow-up turns are measured: one interface, two APIs."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import orjson
from msgspec import Struct

from tightloop.bench import server_timing
from tightloop.bench.chat_line import ChatLine
from tightloop.bench.history import TOOLS, history, tool_output
from tightloop.bench.server_timing import durations_ms
from tightloop.client.http import HttpTransport
from tightloop.client.session import Session
from tightloop.client.transport import Event, Transport, TransportError
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item, user_message
from tightloop.protocol.items import item_from_wire as item
from tightloop.trace.latency import RoundTrip

REQUEST_LIMIT_S = 120.0
"""Longer than any answer of the few tokens asked for; after it the request counts as failed."""

OPTIONAL_FIELDS = ("client_metadata", "include")
"""Left out when an endpoint refuses them: they ask for our timing, and for what a reasoning model
needs to be sent again."""


class Sample(Struct, frozen=True):
    """One follow-up turn: its figures, and the size of the request body.

    ``is_reconnected``: the endpoint had closed the kept connection, and the turn's time contains
    finding that out and connecting anew. ``server_timing``: what the header of that name says, in ms.
    """

    trip: RoundTrip
    num_bytes: int
    is_reconnected: bool = False
    server_timing: dict[str, float] = {}


class Lost(Exception):
    """The endpoint had forgotten the conversation: the turn was answered, but sent in full."""


class Conversation(Protocol):
    """One agent's conversation; each call is one round trip.

    All raise ``ApiError``, ``TransportError`` or ``TimeoutError`` when the round trip failed; the
    conversation is of no use after that.
    """

    async def open(self, num_bytes: int) -> None:
        """Send a history of that size; not measured."""

    async def follow(self, rng: random.Random) -> Sample:
        """Answer the last response with one tool output. Also raises ``Lost``."""


class ResponsesConversation:
    """Over the Responses API: only new items where ``transport`` can continue, else everything."""

    def __init__(self, transport: "Watched", model: str, max_output_tokens: int) -> None:
        self._transport = transport
        options = {
            "max_output_tokens": max_output_tokens,
            "include": ["reasoning.encrypted_content"],
        }
        self._session = Session(transport, model=model, tools=TOOLS, options=options)

    async def open(self, num_bytes: int) -> None:
        """See ``Conversation.open``; tried once more without the fields that not all servers know."""
        opening = [item(fields) for fields in history(num_bytes)[:-1]]
        try:
            await self._ask(opening)
        except ApiError as error:
            if error.status not in (400, 422) or not self._transport.sends_optional:
                raise
            self._transport.sends_optional = False
            try:
                await self._ask(opening)
            except (ApiError, TransportError):
                raise error from None  # the fields were not the reason

    async def follow(self, rng: random.Random) -> Sample:
        """See ``Conversation.follow``."""
        before = self._session.num_recoveries
        last = self._session.last
        await self._ask(_answers(last.output_items if last else (), tool_output(rng)))
        is_repeated = self._session.num_recoveries > before
        if is_repeated and self._transport.supports_continuation:
            raise Lost
        told = durations_ms(self._transport.header(server_timing.NAME))
        return Sample(self._session.trips[-1], self._transport.num_bytes(), is_repeated, told)

    async def _ask(self, items: list[Item]) -> None:
        async with (
            asyncio.timeout(REQUEST_LIMIT_S),
            aclosing(self._session.respond(items)) as events,
        ):
            async for _ in events:
                pass
        last = self._session.last
        if last is not None and last.status not in ("completed", "incomplete"):
            raise last.error or ApiError(f"the response ended as {last.status}", status=500)


def _answers(outputs: tuple[Item, ...], text: str) -> list[Item]:
    """The tool output as the answer to the calls; as a message where the model called nothing."""
    calls = [found for found in outputs if isinstance(found, FunctionCall)]
    if not calls:
        return [user_message(text)]
    first, *others = calls
    rest = [FunctionCallOutput(each.call_id, "ok") for each in others]
    return [FunctionCallOutput(first.call_id, text), *rest]


class Watched:
    """A transport that remembers its last request. Adds no work per event."""

    def __init__(self, inner: Transport) -> None:
        self.supports_continuation = inner.supports_continuation
        self.sends_optional = True
        self._inner = inner
        self._request: dict[str, Any] = {}

    async def connect(self) -> None:
        """See ``Transport.connect``."""
        await self._inner.connect()

    def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``."""
        if not self.sends_optional:
            request = {key: request[key] for key in request if key not in OPTIONAL_FIELDS}
        self._request = request
        return self._inner.stream(request)

    async def close(self) -> None:
        """See ``Transport.close``."""
        await self._inner.close()

    def header(self, name: str) -> str:
        """Of the last answer; "" where there is none, as on a WebSocket."""
        return (
            self._inner.answer_headers.get(name, "")
            if isinstance(self._inner, HttpTransport)
            else ""
        )

    def num_bytes(self) -> int:
        """Size of the last request's JSON, taken after the turn so as not to be in its time."""
        return len(orjson.dumps(self._request))


class ChatConversation:
    """Over Chat Completions: everything with each request; the protocol knows no other way."""

    def __init__(self, line: ChatLine, model: str, max_output_tokens: int) -> None:
        self._line = line
        self._fixed = {
            "model": model,
            "max_tokens": max_output_tokens,
            "tools": [{"type": "function", "function": _without_type(tool)} for tool in TOOLS],
        }
        self._messages: list[dict[str, Any]] = []
        self._call_ids: list[str] = []

    async def open(self, num_bytes: int) -> None:
        """See ``Conversation.open``."""
        self._messages = [chat_message(fields) for fields in history(num_bytes)[:-1]]
        await self._ask([])

    async def follow(self, rng: random.Random) -> Sample:
        """See ``Conversation.follow``."""
        text = tool_output(rng)
        if not self._call_ids:
            return await self._ask([{"role": "user", "content": text}])
        texts = [text, *["ok"] * (len(self._call_ids) - 1)]
        return await self._ask(
            [
                {"role": "tool", "tool_call_id": call_id, "content": content}
                for call_id, content in zip(self._call_ids, texts, strict=True)
            ]
        )

    async def _ask(self, new: list[dict[str, Any]]) -> Sample:
        self._messages += new
        request = {**self._fixed, "messages": self._messages}
        async with asyncio.timeout(REQUEST_LIMIT_S):
            answer = await self._line.ask(request)
        self._messages.append(answer.message)
        self._call_ids = [call["id"] for call in answer.message.get("tool_calls", ())]
        told = durations_ms(answer.server_timing)
        return Sample(answer.trip, answer.num_bytes, answer.is_reconnected, told)


def _without_type(tool: dict[str, Any]) -> dict[str, Any]:
    return {key: tool[key] for key in tool if key != "type"}


def chat_message(fields: dict[str, Any]) -> dict[str, Any]:
    """An item of ``history`` as Chat Completions writes it."""
    if fields["type"] == "message":
        return {"role": "user", "content": fields["content"][0]["text"]}
    if fields["type"] == "function_call_output":
        return {"role": "tool", "tool_call_id": fields["call_id"], "content": fields["output"]}
    function = {"name": fields["name"], "arguments": fields["arguments"]}
    called = {"id": fields["call_id"], "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [called]}
