"""The parts of a ledger add up to the wall time, and each instant has one owner."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.trace.latency import RoundTrip
from tightloop.trace.ledger import PARTS, build_ledger, split_round_trip, waterfall
from tightloop.trace.spans import Span

MS = 1_000_000


def trip(sent_ms: int, last_ms: int, **figures: float) -> RoundTrip:
    return RoundTrip(sent_ms * MS, None, last_ms * MS, **figures)  # type: ignore[arg-type]


def test_a_turn_of_one_trip_and_one_test() -> None:
    """Client before and between, the trip split by the server's figures, the test whole."""
    trips = [trip(10, 60, server_s=0.005, queue_s=0.001, prefill_s=0.02, decode_s=0.014)]
    spans = [Span("test", 65 * MS, 95 * MS, "pytest")]
    ledger = build_ledger(0, 100 * MS, spans, trips)
    expected = {
        "client": 0.020, "network": 0.010, "server": 0.005, "queue": 0.001,
        "prefill": 0.02, "decode": 0.014, "tool": 0.0, "test": 0.030, "waiting": 0.0,
    }  # fmt: skip
    assert expected == pytest.approx(ledger.parts)
    assert ledger.wall_s == pytest.approx(0.1)
    assert ledger.error_fraction < 1e-9


def test_a_tool_that_starts_before_the_response_ends_owns_the_overlap() -> None:
    """Early dispatch: the hidden tail of the trip is tool time, and is not counted twice."""
    ledger = build_ledger(0, 100 * MS, [Span("tool", 40 * MS, 100 * MS)], [trip(0, 50)])
    assert ledger.parts["tool"] == pytest.approx(0.06)
    assert ledger.parts["network"] == pytest.approx(0.04)
    assert ledger.error_fraction < 1e-9


def test_a_request_that_failed_is_waiting_time_unless_a_tool_ran() -> None:
    """A command that a lost response had started is what one waited for."""
    spans = [Span("waiting", 0, 60 * MS, "connection lost"), Span("tool", 10 * MS, 30 * MS)]
    ledger = build_ledger(0, 100 * MS, spans, [trip(40, 100)])
    expected = {"tool": 0.02, "waiting": 0.04, "network": 0.04}
    assert expected == pytest.approx({part: s for part, s in ledger.parts.items() if s})
    assert ledger.error_fraction < 1e-9


def test_a_server_that_reports_more_than_was_seen_is_not_hidden() -> None:
    """The sum then exceeds the wall time, and by how much is stated."""
    ledger = build_ledger(0, 50 * MS, [], [trip(0, 50, decode_s=0.06)])
    assert ledger.excess_s == pytest.approx(0.01)
    assert ledger.error_fraction == pytest.approx(0.2)


def test_without_a_timing_event_all_is_network() -> None:
    """Nothing is invented about a server that says nothing."""
    split, excess_s = split_round_trip(trip(0, 10))
    assert split["network"] == pytest.approx(0.01)
    assert excess_s == 0


def test_a_turn_cannot_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="cannot end"):
        build_ledger(2, 1, [], [])


intervals = st.tuples(st.integers(0, 400), st.integers(0, 200))


@given(
    st.lists(
        st.tuples(st.sampled_from(["tool", "test", "waiting", "client"]), intervals), max_size=5
    ),
    st.lists(intervals, max_size=4),
)
def test_any_overlap_adds_up(
    spans: list[tuple[str, tuple[int, int]]], trips: list[tuple[int, int]]
) -> None:
    """Whatever overlaps whatever, parts sum to the wall time and the waterfall covers it once."""
    made_spans = [Span(kind, a * MS, (a + n) * MS) for kind, (a, n) in spans]
    made_trips = [trip(a, a + n) for a, n in trips]
    ledger = build_ledger(0, 500 * MS, made_spans, made_trips)
    assert set(PARTS) == set(ledger.parts)
    assert sum(ledger.parts.values()) == pytest.approx(0.5)
    segments = waterfall(0, 500 * MS, made_spans, made_trips)
    assert sum(s.end_ns - s.start_ns for s in segments) == pytest.approx(
        500 * MS, abs=len(segments) + 8
    )
    assert all(a.end_ns <= b.start_ns + 1 for a, b in itertools.pairwise(segments))
