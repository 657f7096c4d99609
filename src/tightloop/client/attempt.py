"""One request of a session: the events of its response, over as many connections as it takes."""

from typing import Final

from tightloop.client.mending import ITEM_TYPES, CallMender
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.accumulator import OUTPUT_DELTA_TYPES, TERMINAL_TYPES, Accumulator
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.trace.clock import Clock
from tightloop.trace.latency import RoundTrip

START_TYPES: Final = frozenset({"response.created", "response.in_progress", "response.queued"})
MAX_IN_VAIN: Final = 3
"""So often a response is looked for that says nothing more."""


class Attempt:
    """The events of one request, and when they came."""

    def __init__(self, clock: Clock) -> None:
        self.response = Accumulator()
        self.has_output = False
        self.num_output_events = 0
        self.lost: TransportError | None = None
        """How the connection that it began on was lost, if it was."""
        self.last_number: int | None = None
        """The ``sequence_number`` of the last event."""
        self._clock = clock
        self._mender = CallMender()
        self._is_readable = True
        self._resumed_at: int | None = None
        self._num_in_vain = 0
        self._held: list[Event] = []
        self._first_output_ns: int | None = None
        self._last_ns = 0
        self._first_delta_ns: int | None = None
        self._last_delta_ns: int | None = None

    @property
    def can_be_parent(self) -> bool:
        """Whether its server and this side agree on what it said, as far as is known."""
        return not self._mender.has_new_ids

    def take(self, event: Event) -> list[Event]:
        """The events to hand on: the first ones are held back until there is no way back."""
        kind = event["type"]
        number = event.get("sequence_number")
        if isinstance(number, int):
            known = self.last_number
            if self.lost is not None and known is not None and number <= known:
                return []  # a server that begins anew
            self.last_number = number
        self._last_ns = self._clock.now_ns()
        if kind in ITEM_TYPES:
            self._mender.mend(event, kind, self.response.response_id or "")
        elif kind in TERMINAL_TYPES and not self.response.output_items:
            self._mender.mend_output(event, self.response.response_id or "")
        try:
            self.response.feed(event)
        except RemoteProtocolError as error:
            self._is_readable = False
            raise TransportError(f"the server broke the protocol: {error}") from error
        if kind in START_TYPES and not self.has_output:
            self._held.append(event)
            return []
        if kind not in TERMINAL_TYPES and kind != "tightloop:timing":
            if self._first_output_ns is None:
                self._first_output_ns = self._last_ns
            if kind in OUTPUT_DELTA_TYPES:
                self.num_output_events += 1
                self._last_delta_ns = self._last_ns
                if self._first_delta_ns is None:
                    self._first_delta_ns = self._last_ns
        self.has_output = True
        if not self._held:
            return [event]
        held, self._held = self._held, []
        return [*held, event]

    def may_resume(self, error: ApiError | TransportError) -> bool:
        """Whether its events can be asked for over another connection, now that ``error`` ended this one."""
        if isinstance(error, ApiError) or not self._is_readable or self.response.is_finished:
            return False
        if not self.response.response_id or self.last_number is None:
            return False
        self.lost = self.lost or error
        self._num_in_vain = self._num_in_vain + 1 if self.last_number == self._resumed_at else 0
        self._resumed_at = self.last_number
        return self._num_in_vain < MAX_IN_VAIN

    def trip(self, sent_ns: int) -> RoundTrip:
        """The figures of a response that ended; see ``trace.latency``."""
        timing = self.response.timing or {}
        usage = self.response.usage or Usage()
        return RoundTrip(
            sent_ns=sent_ns,
            first_output_ns=self._first_output_ns,
            last_event_ns=self._last_ns,
            num_output_events=self.num_output_events,
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
