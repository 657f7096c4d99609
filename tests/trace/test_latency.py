"""The definitions of the latency figures."""

import pytest

from tightloop.trace.latency import (
    RoundTrip,
    decode_rate_per_s,
    inter_token_latency_s,
    round_trip_overhead_s,
    round_trip_s,
    streamed_rate_per_s,
    ttft_s,
)

TRIP = RoundTrip(
    sent_ns=1_000_000,
    first_output_ns=11_000_000,
    last_event_ns=31_000_000,
    queue_s=0.001,
    engine_first_token_s=0.006,
    decode_steps_s=0.02,
    num_decode_steps=50,
)


def test_figures() -> None:
    """TTFT, whole trip, overhead without queue and engine, and the network's own rate."""
    assert ttft_s(TRIP) == pytest.approx(0.010)
    assert round_trip_s(TRIP) == pytest.approx(0.030)
    assert round_trip_overhead_s(TRIP) == pytest.approx(0.003)
    assert decode_rate_per_s(TRIP) == pytest.approx(2500)


def test_unknown_stays_unknown() -> None:
    """No output, no timing event, no decode step: None, never a guess."""
    silent = RoundTrip(sent_ns=0, first_output_ns=None, last_event_ns=5)
    assert ttft_s(silent) is None
    assert round_trip_overhead_s(silent) is None
    assert decode_rate_per_s(silent) is None


def test_inter_token_latency_is_the_mean_gap_between_deltas() -> None:
    """Five deltas have four gaps; one delta has none."""
    trip = RoundTrip(0, 1, 90, num_output_events=5, first_delta_ns=1_000, last_delta_ns=9_000)
    assert inter_token_latency_s(trip) == pytest.approx(2e-6)
    single = RoundTrip(0, 1, 90, num_output_events=1, first_delta_ns=1, last_delta_ns=1)
    assert inter_token_latency_s(single) is None


def test_the_streamed_rate_leaves_the_first_delta_out() -> None:
    """A hundred tokens after the first one in 10 ms; a single burst or no count: unknown."""
    fields = {"num_output_events": 9, "first_delta_ns": 1_000_000, "last_delta_ns": 11_000_000}
    assert streamed_rate_per_s(RoundTrip(0, 1, 90, output_tokens=101, **fields)) == 10_000
    assert streamed_rate_per_s(RoundTrip(0, 1, 90, **fields)) is None
    burst = {**fields, "last_delta_ns": 1_000_000}
    assert streamed_rate_per_s(RoundTrip(0, 1, 90, output_tokens=101, **burst)) is None
    single = {**fields, "num_output_events": 1}
    assert streamed_rate_per_s(RoundTrip(0, 1, 90, output_tokens=101, **single)) is None
