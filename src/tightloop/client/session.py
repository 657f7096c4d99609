"""A conversation over any transport: sends only what is new, and recovers when that fails.

The server keeps the context under the id of the last response, so a request carries the new items
and ``previous_response_id``. When the server has lost that response (``store: false`` and a new
connection, a restart), the whole context is sent once more, and then only new items again.

A connection that is lost in the middle of a response does not end it: the response is read on over
another one (``ResumingTransport``) where its server still has it.
"""

import copy
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from tightloop.client.attempt import Attempt
from tightloop.client.hints import Hints
from tightloop.client.transport import (
    Event,
    HintingTransport,
    ResumingTransport,
    Transport,
    TransportError,
)
from tightloop.protocol.accumulator import TERMINAL_TYPES, Accumulator
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import Item, encode_item
from tightloop.protocol.prefill import CANCEL
from tightloop.protocol.requests import TIMING_KEY
from tightloop.trace.clock import Clock, MonotonicClock
from tightloop.trace.latency import RoundTrip

LOST_CONTEXT = frozenset({"previous_response_not_found", "websocket_connection_limit_reached"})
"""Refusals after which the same turn can be asked for again with the whole context."""


class Session:
    """One conversation. One ``respond`` at a time.

    ``tools`` are wire objects, e.g. ``{"type": "function", "name": ...}``. ``options`` are further
    fields of every request, e.g. ``{"temperature": 0, "max_output_tokens": 512}``.
    ``full_resend`` sends the whole context with every request, as stateless clients do.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        model: str,
        instructions: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        store: bool = False,
        full_resend: bool = False,
        options: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.items: list[Item] = []
        """The whole conversation so far, oldest first."""
        self.last: Accumulator | None = None
        """The last response: ``output_items``, ``status``, ``usage``, ``error``."""
        self.trips: list[RoundTrip] = []
        """One entry per response that ended, in order."""
        self.num_recoveries = 0
        """How often the whole context had to be sent again."""
        self.num_resumed = 0
        """How often a response was read on over another connection."""
        self._is_closed = False
        self._transport = transport
        self._clock = clock or MonotonicClock()
        self._store = store
        self._can_continue = not full_resend and (store or transport.supports_continuation)
        self._parent_id: str | None = None
        self._newest: Attempt | None = None  # at the response that is, or was last, being made
        self._wire: list[dict[str, Any]] = []
        self._fixed: dict[str, Any] = {
            "model": model,
            "store": store,
            "client_metadata": {TIMING_KEY: "1"},
            **(options or {}),
        }
        self._hints = Hints(transport, self._clock, self._fixed.get("stream_id"))
        if instructions is not None:
            self._fixed["instructions"] = instructions
        if tools:
            self._fixed["tools"] = list(tools)

    @property
    def transport(self) -> Transport:
        """What its requests go over."""
        return self._transport

    async def connect(self) -> None:
        """Have the connection ready before the first request needs it."""
        await self._transport.connect()

    async def prewarm(self, items: Sequence[Item] = ()) -> None:
        """Hand ``items``, instructions and tools over early; the server prefills them meanwhile.

        The items are part of the conversation afterwards. Only a hint: without continuation it
        sends nothing.
        """
        if not self._can_continue:
            self._adopt(items, [encode_item(item) for item in items], None)
            return
        async with aclosing(self._respond(items, {"generate": False})) as events:
            async for _ in events:
                pass
        self.trips.pop()

    def prefill(self, call_id: str, piece: str, keep: int | None = None) -> None:
        """Tell how the output of a call goes on that is still being made, so that the server can
        read it meanwhile.

        ``keep`` is how many characters of what was told before still stand; all of them if None.
        Only a hint: nothing is sent to a server without the capability ``response.prefill``, and
        what ``respond`` is given counts alone. Never waits; small pieces are sent together.
        """
        if (parent_id := self._hinted_id()) is not None:
            self._hints.add(parent_id, call_id, piece, keep)

    def prefill_whole(self, call_id: str, output: str) -> None:
        """As ``prefill``: this is the whole output. Of use while calls after it still run."""
        if (parent_id := self._hinted_id()) is not None:
            self._hints.end(parent_id, call_id, output)

    def _hinted_id(self) -> str | None:
        """The response that the next request will continue, also while it is being made."""
        newest = self._newest if self._can_continue else None
        return newest.response.response_id or None if newest is not None else None

    def end_early(self) -> bool:
        """Ask for the end of the response being made; what it said stays, but for half a call.

        Its events go on, to the terminal ``response.incomplete``, and the next request continues
        from it. False, and nothing is sent, to a server without the capability
        ``response.cancel``: then only closing the iterator ends a response. Never waits.
        """
        transport, response_id = self._transport, self._hinted_id()
        if response_id is None or not isinstance(transport, HintingTransport):
            return False
        if CANCEL not in transport.capabilities:
            return False
        event: Event = {"type": CANCEL, "response_id": response_id}
        if (stream_id := self._fixed.get("stream_id")) is not None:
            event["stream_id"] = stream_id
        return transport.hint(event)

    async def respond(
        self, new_items: Sequence[Item], extra: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Event, None]:
        """Ask for the next response and yield its events, the terminal one last.

        An item can be acted on at its ``response.output_item.done``. When the terminal event is yielded,
        ``last``, ``items`` and ``trips`` are up to date; a response that failed leaves ``items``
        as they were, so the same items can be sent again. Raises ``ApiError`` for a refusal. A
        connection that is lost meanwhile is not seen where the response can be read on over
        another; else the whole context is sent again once if nothing was yielded, and
        ``TransportError`` is raised if something was. Closing the iterator early cancels the response
        and leaves it out of the conversation. ``extra`` are further fields of this request.
        """
        async with aclosing(self._respond(new_items, extra or {})) as events:
            async for event in events:
                yield event

    async def ask_aside(
        self,
        new_items: Sequence[Item],
        extra: Mapping[str, Any] | None = None,
        *,
        context: Sequence[Item] | None = None,
    ) -> Accumulator:
        """The response to ``new_items`` behind this conversation, which does not become a part of it.

        ``context`` takes the place of the conversation. Raises as ``respond``; the round trip is
        among ``trips``. A conversation that is not stored is sent as a whole with the next request.
        """
        parent_id = self._parent_id
        whole = None if context is None else [encode_item(item) for item in context]
        try:
            async with aclosing(
                self._respond(new_items, extra or {}, is_aside=True, context=whole)
            ) as events:
                async for _ in events:
                    pass
        finally:
            self._parent_id = parent_id if self._store else None
            self._newest = None
        assert self.last is not None, "a response has ended"
        return self.last

    def replace(self, items: Sequence[Item]) -> None:
        """The conversation is ``items`` from now on, all of which go out with the next request."""
        self.items, self._wire = list(items), [encode_item(item) for item in items]
        self._parent_id = self._newest = None

    def fork(
        self,
        *,
        stream_id: str | None = None,
        transport: Transport | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> "Session":
        """Another conversation that begins as this one is now and goes its own way.

        On this one's transport nothing is sent again that the server keeps; ``stream_id`` names a lane
        of its own there (WebSocket mode), without which its requests wait for this one's. Over another
        ``transport`` to the same server, or once this one has gone on, its first request brings the
        whole context. ``options`` are further fields of its requests. Not while a response is made.
        """
        other = copy.copy(self)
        other.items, other._wire, other.trips = list(self.items), list(self._wire), []
        other.last, other._newest, other.num_recoveries = None, None, 0
        other._fixed = {**self._fixed, **(options or {})}
        if transport is not None:
            other._fixed.pop("stream_id", None)
            other._move_to(transport)
        if stream_id is not None:
            other._fixed["stream_id"] = stream_id
        other._hints = Hints(other._transport, self._clock, other._fixed.get("stream_id"))
        return other

    def take(self, other: "Session") -> None:
        """Go on with the conversation of a fork of this one; neither may be making a response.

        Its last response is continued if this one's connection knows it too, else all is sent once.
        """
        self.items, self._wire = list(other.items), list(other._wire)
        self.last, self._newest = other.last, None
        is_known = self._store or other._transport is self._transport
        self._parent_id = other._parent_id if is_known and self._can_continue else None

    def _move_to(self, transport: Transport) -> None:
        self._transport = transport
        if not self._store:
            self._can_continue = self._can_continue and transport.supports_continuation
            self._parent_id = None

    @property
    def num_cut_deltas(self) -> int:
        """Output events of the newest response if its end never came: about so many tokens are in no
        usage."""
        newest = self._newest
        return 0 if newest is None or newest.response.is_finished else newest.num_output_events

    async def close(self) -> None:
        """Close the transport."""
        self._is_closed = True
        await self._transport.close()

    async def _respond(
        self,
        new_items: Sequence[Item],
        extra: Mapping[str, Any],
        *,
        is_aside: bool = False,
        context: list[dict[str, Any]] | None = None,
    ) -> AsyncGenerator[Event, None]:
        wire = [encode_item(item) for item in new_items]
        sent_ns = self._clock.now_ns()
        parent_id = self._parent_id if context is None else None
        if not self._store:
            # The server forgets an unstored parent when a continuation of it does not succeed.
            self._parent_id = None
        self._hints.forget()
        attempt = self._newest = Attempt(self._clock)
        source = self._transport.stream(self._request(wire, parent_id, extra, context))
        is_repeated = False
        while True:
            try:
                async with aclosing(source) as events:
                    async for event in events:
                        for ready in attempt.take(event):
                            if ready["type"] in TERMINAL_TYPES:
                                self._settle(attempt, sent_ns)
                                if not is_aside:
                                    self._adopt_response(new_items, wire, attempt)
                            yield ready
                return
            except (ApiError, TransportError) as error:
                again = self._read_on(attempt, error)
                if again is not None:
                    source = again
                    continue
                if is_repeated or attempt.has_output or not _can_repeat(attempt.lost or error):
                    raise attempt.lost or error from None
                attempt = self._newest = Attempt(self._clock)
                is_repeated = True
                self.num_recoveries += 1
                source = self._transport.stream(self._request(wire, None, extra, context))

    def _read_on(
        self, attempt: Attempt, error: ApiError | TransportError
    ) -> AsyncGenerator[Event, None] | None:
        """The rest of a response whose connection was lost; None where there is no hope of it."""
        transport = self._transport
        if self._is_closed or not isinstance(transport, ResumingTransport):
            return None
        if not attempt.may_resume(error):
            return None
        assert attempt.response.response_id is not None
        assert attempt.last_number is not None
        return transport.resume(attempt.response.response_id, attempt.last_number)

    def _settle(self, attempt: Attempt, sent_ns: int) -> None:
        """The response has ended."""
        self.last = attempt.response
        self.trips.append(attempt.trip(sent_ns))
        self.num_resumed += attempt.lost is not None

    def _adopt_response(
        self, new_items: Sequence[Item], wire: list[dict[str, Any]], attempt: Attempt
    ) -> None:
        """Make it a part of the conversation unless it failed."""
        if attempt.response.status == "failed":
            return
        self._adopt(new_items, wire, attempt.response)
        # What a connection keeps is gone with it, also where the response was read on.
        is_kept = self._store or attempt.lost is None
        if not attempt.can_be_parent or not is_kept:
            self._parent_id = None

    def _request(
        self,
        wire: list[dict[str, Any]],
        parent_id: str | None,
        extra: Mapping[str, Any],
        context: list[dict[str, Any]] | None,
    ) -> dict[str, Any]:
        if parent_id is None:
            before = self._wire if context is None else context
            return {**self._fixed, **extra, "input": before + wire}
        return {**self._fixed, **extra, "previous_response_id": parent_id, "input": wire}

    def _adopt(
        self, new_items: Sequence[Item], wire: list[dict[str, Any]], response: Accumulator | None
    ) -> None:
        """Make a turn part of the conversation."""
        self.items += new_items
        self._wire += wire
        if response is not None:
            self.items += response.output_items
            self._wire += [encode_item(item) for item in response.output_items]
            if self._can_continue:
                self._parent_id = response.response_id


def _can_repeat(error: ApiError | TransportError) -> bool:
    return isinstance(error, TransportError) or error.code in LOST_CONTEXT
