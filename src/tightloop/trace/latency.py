"""The only definitions of the latency figures; every other module takes them from here.

All inputs are clock readings in ns of one host, all results seconds.

- **TTFT** (time to first token): from the moment the request starts being written to the moment
  the first *output* event is read. ``response.created`` and ``in_progress`` do not count: a
  server can send them before it has done anything.
- **inter-token latency**: mean time between the output deltas of one response (text, reasoning, tool
  arguments), from the first to the last; needs at least two.
- **round trip**: one request and its response, from the first byte written to the terminal event.
- **round-trip overhead**: TTFT minus the time the engine itself needed for the first token
  (its prefill and first decode step, queueing excluded): what connection, encoding, routing,
  conversation lookup and hand-off cost.
- **turn**: from the user's message to the agent's last word, tools included.
"""

from msgspec import Struct


class RoundTrip(Struct, frozen=True, gc=False):
    """Clock readings of one round trip as the client saw it, and the engine's own figures.

    ``first_delta_ns`` and ``last_delta_ns`` are when the first and last of ``num_output_events``
    deltas were read. ``engine_first_token_s`` is the engine's time from start (after its queue) to its first
    delta; ``queue_s``, ``prefill_s``, ``decode_s`` and ``server_s`` come from the server's timing
    event and are None when the server does not send one. ``decode_steps_s`` is the time inside
    single-token network steps, ``num_decode_steps`` their number.
    """

    sent_ns: int
    first_output_ns: int | None
    last_event_ns: int
    num_output_events: int = 0
    first_delta_ns: int | None = None
    last_delta_ns: int | None = None
    queue_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    server_s: float | None = None
    engine_first_token_s: float | None = None
    decode_steps_s: float | None = None
    num_decode_steps: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def ttft_s(trip: RoundTrip) -> float | None:
    """Time to first token, or None when the response had no output."""
    if trip.first_output_ns is None:
        return None
    return (trip.first_output_ns - trip.sent_ns) / 1e9


def inter_token_latency_s(trip: RoundTrip) -> float | None:
    """Mean time between output deltas, or None with fewer than two."""
    if trip.num_output_events < 2 or trip.first_delta_ns is None or trip.last_delta_ns is None:
        return None
    return (trip.last_delta_ns - trip.first_delta_ns) / 1e9 / (trip.num_output_events - 1)


def round_trip_s(trip: RoundTrip) -> float:
    """Whole round trip."""
    return (trip.last_event_ns - trip.sent_ns) / 1e9


def round_trip_overhead_s(trip: RoundTrip) -> float | None:
    """TTFT minus the queue and the engine's own time to its first token; None when unknown."""
    first = ttft_s(trip)
    if first is None or trip.engine_first_token_s is None:
        return None
    return first - (trip.queue_s or 0.0) - trip.engine_first_token_s


def decode_rate_per_s(trip: RoundTrip) -> float | None:
    """Tokens per second of the network's single-token steps; None when there were none."""
    if not trip.num_decode_steps or not trip.decode_steps_s:
        return None
    return trip.num_decode_steps / trip.decode_steps_s


def streamed_rate_per_s(trip: RoundTrip) -> float | None:
    """Tokens per second as a client sees them, from the first delta to the last.

    From the token count that the server reports, less the first delta's one; None with fewer than
    two deltas or without a count. Tokens of reasoning that is not streamed are in the count, too.
    """
    if trip.num_output_events < 2 or trip.first_delta_ns is None or trip.last_delta_ns is None:
        return None
    if trip.output_tokens < 2 or trip.last_delta_ns <= trip.first_delta_ns:
        return None
    return (trip.output_tokens - 1) / ((trip.last_delta_ns - trip.first_delta_ns) / 1e9)
