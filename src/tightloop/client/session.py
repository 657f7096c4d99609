"""A conversation over any transport: sends only what is new, and recovers when that fails.

The server keeps the context under the id of the last response, so a request carries the new items
and ``previous_response_id``. When the server has lost that response (``store: false`` and a new
connection, a restart), the whole context is sent once more, and then only new items again.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from tightloop.client.hints import Hints
from tightloop.client.transport import Event, HintingTransport, Transport, TransportError
from tightloop.protocol.accumulator import OUTPUT_DELTA_TYPES, TERMINAL_TYPES, Accumulator
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.protocol.items import Item, encode_item
from tightloop.protocol.prefill import CANCEL
from tightloop.protocol.requests import TIMING_KEY
from tightloop.trace.clock import Clock, MonotonicClock
from tightloop.trace.latency import RoundTrip

START_TYPES = frozenset({"response.created", "response.in_progress", "response.queued"})
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
        self._transport = transport
        self._clock = clock or MonotonicClock()
        self._store = store
        self._can_continue = not full_resend and (store or transport.supports_continuation)
        self._parent_id: str | None = None
        self._newest: Accumulator | None = None  # the response that is, or was last, being made
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
        return newest.response_id or None if newest is not None else None

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

    async def respond(self, new_items: Sequence[Item]) -> AsyncGenerator[Event, None]:
        """Ask for the next response and yield its events, the terminal one last.

        An item can be acted on at its ``response.output_item.done``. After the last event,
        ``last``, ``items`` and ``trips`` are up to date; a response that failed leaves ``items``
        as they were, so the same items can be sent again. Raises ``ApiError`` for a refusal and
        ``TransportError`` for a connection lost after output was yielded; before that the
        whole context is sent again once, unseen. Closing the iterator early cancels the response
        and leaves it out of the conversation.
        """
        async with aclosing(self._respond(new_items, {})) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Close the transport."""
        await self._transport.close()

    async def _respond(
        self, new_items: Sequence[Item], extra: Mapping[str, Any]
    ) -> AsyncGenerator[Event, None]:
        wire = [encode_item(item) for item in new_items]
        sent_ns = self._clock.now_ns()
        parent_id = self._parent_id
        if not self._store:
            # The server forgets an unstored parent when a continuation of it does not succeed.
            self._parent_id = None
        self._hints.forget()
        attempt = _Attempt(self._clock)
        self._newest = attempt.response
        is_repeated = False
        while True:
            try:
                request = self._request(wire, parent_id, extra)
                async with aclosing(self._transport.stream(request)) as events:
                    async for event in events:
                        for ready in attempt.take(event):
                            yield ready
                break
            except (ApiError, TransportError) as error:
                if is_repeated or attempt.has_output or not _can_repeat(error):
                    raise
                attempt = _Attempt(self._clock)
                self._newest = attempt.response
                parent_id = None
                is_repeated = True
                self.num_recoveries += 1
        self.last = attempt.response
        self.trips.append(attempt.trip(sent_ns))
        if attempt.response.status != "failed":
            self._adopt(new_items, wire, attempt.response)

    def _request(
        self, wire: list[dict[str, Any]], parent_id: str | None, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        if parent_id is None:
            return {**self._fixed, **extra, "input": self._wire + wire}
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


class _Attempt:
    """The events of one request, and when they came."""

    def __init__(self, clock: Clock) -> None:
        self.response = Accumulator()
        self.has_output = False
        self._clock = clock
        self._held: list[Event] = []
        self._first_output_ns: int | None = None
        self._last_ns = 0
        self._num_output_events = 0
        self._first_delta_ns: int | None = None
        self._last_delta_ns: int | None = None

    def take(self, event: Event) -> list[Event]:
        """The events to hand on: the first ones are held back until there is no way back."""
        self._last_ns = self._clock.now_ns()
        kind = event["type"]
        try:
            self.response.feed(event)
        except RemoteProtocolError as error:
            raise TransportError(f"the server broke the protocol: {error}") from error
        if kind in START_TYPES and not self.has_output:
            self._held.append(event)
            return []
        if kind not in TERMINAL_TYPES and kind != "tightloop:timing":
            if self._first_output_ns is None:
                self._first_output_ns = self._last_ns
            if kind in OUTPUT_DELTA_TYPES:
                self._num_output_events += 1
                self._last_delta_ns = self._last_ns
                if self._first_delta_ns is None:
                    self._first_delta_ns = self._last_ns
        self.has_output = True
        if not self._held:
            return [event]
        held, self._held = self._held, []
        return [*held, event]

    def trip(self, sent_ns: int) -> RoundTrip:
        """The figures of a response that ended; see ``trace.latency``."""
        timing = self.response.timing or {}
        usage = self.response.usage or Usage()
        return RoundTrip(
            sent_ns=sent_ns,
            first_output_ns=self._first_output_ns,
            last_event_ns=self._last_ns,
            num_output_events=self._num_output_events,
            first_delta_ns=self._first_delta_ns,
            last_delta_ns=self._last_delta_ns,
            queue_s=timing.get("queue_s"),
            prefill_s=timing.get("prefill_s"),
            decode_s=timing.get("decode_s"),
            server_s=timing.get("server_s"),
            engine_first_token_s=timing.get("engine_first_token_s"),
            decode_steps_s=timing.get("decode_steps_s"),
            num_decode_steps=timing.get("num_decode_steps", 0),
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
        )
