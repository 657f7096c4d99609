"""Where the time went, in the three forms in which clients are told."""

import pytest

from tightloop.protocol.deltas import EngineTiming, Finished, FinishReason, Usage
from tightloop.server.timing import codex_metrics, figures, route, server_timing_header

MS = 1_000_000
TIMING = EngineTiming(
    submitted_ns=12 * MS,
    started_ns=15 * MS,
    prefilled_ns=25 * MS,
    finished_ns=65 * MS,
    num_decode_steps=20,
    decode_ns=36 * MS,
    first_delta_ns=27 * MS,
    num_draft_tokens=9,
    num_accepted_tokens=5,
)
FOUND = figures(TIMING, receive_ns=10 * MS, now_ns=66 * MS)


def test_the_disjoint_parts_are_the_whole() -> None:
    parts = ("server_s", "queue_s", "prefill_s", "decode_s")
    assert sum(FOUND[part] for part in parts) == pytest.approx(0.056)
    assert FOUND["server_s"] == pytest.approx(0.003)
    assert FOUND["engine_first_token_s"] == pytest.approx(0.012)


def test_drafts_are_told() -> None:
    assert (FOUND["num_draft_tokens"], FOUND["num_accepted_tokens"]) == (9, 5)


def test_codex_gets_milliseconds_under_its_own_names() -> None:
    metrics = codex_metrics(FOUND)
    assert metrics["responses_duration_excl_engine_and_client_tool_time_ms"] == pytest.approx(3)
    assert metrics["engine_service_total_ms"] == pytest.approx(53)
    assert metrics["engine_iapi_ttft_total_ms"] == pytest.approx(12)
    assert metrics["engine_service_ttft_total_ms"] == pytest.approx(15)
    assert metrics["engine_iapi_tbt_across_engine_calls_ms"] == pytest.approx(1.8)


def test_the_header_is_a_list_of_named_durations() -> None:
    expected = (
        "server;dur=3.0, queue;dur=3.0, prefill;dur=10.0, decode;dur=40.0, first-token;dur=12.0"
    )
    assert expected == server_timing_header(FOUND)


def test_the_way_of_a_response_is_told_where_there_were_several() -> None:
    """In the header as descriptions, with nothing that would end a quoted string."""
    one = Finished(FinishReason.STOP, Usage())
    assert route(one) is None
    several = Finished(
        FinishReason.STOP, Usage(), backend="a", route_reason='why "so"\\\n', service_tier="flex"
    )
    way = route(several)
    assert way == {"backend": "a", "service_tier": "flex", "reason": 'why "so"\\\n'}
    header = server_timing_header(FOUND, way)
    assert header.startswith(server_timing_header(FOUND) + ", ")
    assert header.endswith('backend;desc="a", service_tier;desc="flex", reason;desc="why ?so???"')
