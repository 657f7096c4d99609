"""What the report says about results made up here."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from tightloop.bench.conversations import Sample
from tightloop.bench.turn import Plan, Series, TurnResult
from tightloop.bench.turn_view import as_dict, findings, print_report
from tightloop.trace.latency import RoundTrip

MS = 1_000_000


def sample(ttft_ms: float, *, num_bytes: int = 5_000, engine_s: float | None = None) -> Sample:
    first = int(ttft_ms * MS)
    trip = RoundTrip(
        0, first, first + 20 * MS, num_output_events=5, first_delta_ns=first,
        last_delta_ns=first + 10 * MS, engine_first_token_s=engine_s, input_tokens=2_000,
        cached_tokens=1_500, output_tokens=101,
    )  # fmt: skip
    return Sample(trip, num_bytes)


def result(ttfts: dict[int, dict[str, float]], engine_s: float | None = None) -> TurnResult:
    made = TurnResult(Plan("http://127.0.0.1:1/v1", "m", rounds=3), num_requests=30)
    for size, variants in ttfts.items():
        made.series[size] = {
            name: Series([sample(ttft, engine_s=engine_s) for _ in range(3)])
            for name, ttft in variants.items()
        }
    return made


def printed(made: TurnResult) -> str:
    screen = io.StringIO()
    print_report(Console(file=screen, width=80, color_system=None), made)
    return screen.getvalue()


def test_the_json_object() -> None:
    """Medians with quartiles per size and variant, against the slowest variant."""
    whole = json.loads(json.dumps(as_dict(result({10_000: {"ws": 2, "http-new": 8}}, 0.001))))
    found = whole["histories"]["10k"]["ws"]
    assert found["ttft_ms"] == {"median": 2, "p25": 2, "p75": 2}
    assert found["last_byte_ms"]["median"] == 22
    assert found["round_trip_overhead_ms"]["median"] == 1
    assert found["tokens_per_s"]["median"] == 10_000
    assert found["cached_tokens"]["median"] == 1_500
    assert found["ttft_times_faster_than_slowest"]["median"] == 4
    assert found["turns"] == 3
    assert whole["findings"] == []


def test_what_the_endpoint_says_of_its_time_stands_beside_ours() -> None:
    """Medians of each metric, in the object and in a sentence; nothing where it says nothing."""
    made = result({1_000: {"http": 2}})
    silent = as_dict(made)["histories"]["1k"]["http"]
    assert (silent["server_timing_ms"], findings(made)) == ({}, [])
    stated = [{"total": 4.0, "queue": 1.0}, {"total": 6.0}, {}]
    made.series[1_000]["http"].samples = [
        msgspec.structs.replace(sample(2), server_timing=each) for each in stated
    ]
    found = as_dict(made)["histories"]["1k"]["http"]["server_timing_ms"]
    assert {name: each["median"] for name, each in found.items()} == {"total": 5.0, "queue": 1.0}
    assert findings(made) == [
        "http, 1k: the endpoint's Server-Timing says total 5.00, queue 1.00 ms (medians), as known"
        " when its answer began"
    ]


def test_the_table_fits_80_columns_with_every_figure_whole() -> None:
    made = result({50_000: {"ws": 1234.5, "http": 45678.9, "http-new": 60000.9}}, 0.001)
    text = printed(made)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    for wanted in ("50k tokens", "WebSocket, new item", "5.00 kB", "75%", "48.6x", "10000"):
        assert wanted in text


def test_overhead_has_a_column_only_where_the_endpoint_times_itself() -> None:
    assert "over-" not in printed(result({1_000: {"ws": 2}}))
    assert "over-" in printed(result({1_000: {"ws": 2}}, 0.001))


def test_a_variant_without_a_single_answer() -> None:
    """Dashes, nulls and the reason; not a division by nothing."""
    made = result({1_000: {"http": 2}})
    made.series[1_000]["http-new"] = Series([None, None, None])
    made.series[1_000]["http-new"].errors["status 503: busy"] = 2
    made.series[1_000]["http"].num_lost = 1
    text = printed(made).replace("\n", " ")
    assert "http-new, 1k: 2 failed: status 503: busy" in text
    assert "http, 1k: 1 turns left out" in text
    assert as_dict(made)["histories"]["1k"]["http-new"]["ttft_ms"] is None


@pytest.mark.parametrize(
    ("ttfts", "is_named"),
    [
        ({1_000: {"http": 44, "http-new": 3}, 50_000: {"http": 46, "http-new": 5}}, True),
        ({1_000: {"http": 41, "http-new": 3}}, True),
        ({1_000: {"http": 44, "http-new": 43}}, False),  # the endpoint is slow for everybody
        ({1_000: {"http": 40, "http-new": 3}, 50_000: {"http": 58, "http-new": 5}}, False),
        ({1_000: {"http": 12, "http-new": 3}}, False),
        ({1_000: {"http": 44, "ws": 3}}, False),  # nothing to compare with
    ],
)
def test_the_nagle_signature(ttfts: dict[int, dict[str, float]], is_named: bool) -> None:
    """About 40 ms at every size on the kept connection, and little on a new one."""
    assert is_named == any("Nagle" in line for line in findings(result(ttfts)))


def test_what_was_skipped_is_said() -> None:
    made = result({1_000: {"http": 2}})
    made.skipped["ws"] = "no WebSocket mode (426)"
    assert findings(made) == ["ws: no WebSocket mode (426)"]
