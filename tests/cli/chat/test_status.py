"""The status line, and how durations read."""

import pytest

from tightloop.agent.turn import Status, TurnResult
from tightloop.cli.chat.durations import counted, duration, percentile, thousands
from tightloop.cli.chat.figures import NUM_TURNS_KEPT, SessionFigures, TurnCost, latency_rows
from tightloop.cli.chat.status import Gauges, activity_line, ledger_text, status_lines, turn_text
from tightloop.protocol.deltas import Usage
from tightloop.trace.latency import RoundTrip
from tightloop.trace.spans import Span
from tightloop.trace.speculation import Try

MS = 1_000_000


def turn(start_ns: int = 0, tries: int = 0) -> TurnResult:
    """One second: 100 ms of client, 400 ms of a response at 1000 tokens/s, 500 ms of tests."""
    trip = RoundTrip(
        sent_ns=start_ns + 100 * MS, first_output_ns=start_ns + 120 * MS,
        last_event_ns=start_ns + 500 * MS, num_output_events=2,
        first_delta_ns=start_ns + 120 * MS, last_delta_ns=start_ns + 420 * MS,
        prefill_s=0.02, decode_s=0.3, server_s=0.01, queue_s=0.0, engine_first_token_s=0.018,
        output_tokens=301,
    )  # fmt: skip
    span = Span("test", start_ns + 500 * MS, start_ns + 1000 * MS, "pytest")
    ahead = [Try("pytest", True, "", 1, 1, 300 * MS, 200 * MS, 0.1)] * tries
    end_ns = start_ns + 1000 * MS
    return TurnResult("", Status.COMPLETED, [span], [trip], start_ns, end_ns, Usage(), tries=ahead)


def test_cost_of_a_turn() -> None:
    cost = TurnCost.of(turn())
    assert cost.slices() == pytest.approx(
        {"client": 0.1, "server": 0.08, "engine": 0.32, "tools": 0.5}
    )
    assert sum(cost.slices().values()) == pytest.approx(cost.wall_s)
    assert ledger_text(cost) == "1.0 s: client 0.1 server 0.1 engine 0.3 tools 0.5"
    assert turn_text(cost) == f"{ledger_text(cost)}, 1 round trip"
    assert turn_text(TurnCost.of(turn(tries=2))).endswith("2 of 2 run ahead used, 400 ms saved")


def test_the_session_keeps_no_more_than_it_must() -> None:
    figures = SessionFigures()
    for _ in range(NUM_TURNS_KEPT + 5):
        figures.add(turn())
    assert len(figures.turns) == NUM_TURNS_KEPT


def test_latency_table() -> None:
    figures = SessionFigures()
    assert latency_rows(figures) == ["no turn has ended yet"]
    figures.add(turn())
    figures.add(turn(tries=1))
    assert latency_rows(figures) == [
        "                      last         p50         p95     session",
        "turn                 1.0 s       1.0 s       1.0 s       2.0 s",
        "  client            100 ms      100 ms      100 ms      200 ms",
        "  network            70 ms       70 ms       70 ms      140 ms",
        "  server             10 ms       10 ms       10 ms       20 ms",
        "  prefill            20 ms       20 ms       20 ms       40 ms",
        "  decode            300 ms      300 ms      300 ms      600 ms",
        "  test              500 ms      500 ms      500 ms       1.0 s",
        "round trips              1           1           1           2",
        "TTFT                 20 ms       20 ms       20 ms",
        "overhead            2.0 ms      2.0 ms      2.0 ms",
        "tokens/s              1000        1000        1000",
        "1 run ahead: 1 used, 200 ms saved, 100 ms of processor time; 0 wasted, 0 ms",
    ]


def test_pieces_in_the_order_of_their_worth() -> None:
    gauges = Gauges("m", "in process", "bubblewrap", "auto", "ruff ok", "", "warm-pytest-l1")
    assert gauges.pieces() == [
        "m", "ruff ok", "tests warm-pytest-l1", "bubblewrap", "auto", "in process",
    ]  # fmt: skip
    gauges.cost = TurnCost.of(turn())
    gauges.context_tokens, gauges.context_window = 12_400, 131_072
    gauges.trouble = "rate limit: try 2 of 5 in 3 s"
    assert gauges.pieces()[:6] == [
        "rate limit: try 2 of 5 in 3 s", "m", "1000 tok/s", "TTFT 20 ms", ledger_text(gauges.cost),
        "ctx 12k/131k",
    ]  # fmt: skip


def test_what_does_not_fit_is_left_out_whole() -> None:
    def rows(width: int, max_rows: int) -> list[str]:
        return [row.plain for row in status_lines(["aaaa", "bbbbbbbb", "cc"], width, max_rows)]

    assert rows(40, 1) == ["aaaa · bbbbbbbb · cc"]
    assert rows(10, 1) == ["aaaa · cc"]
    assert rows(10, 2) == ["aaaa", "bbbbbbbb"]
    assert rows(14, 2) == ["aaaa", "bbbbbbbb · cc"]
    assert rows(3, 2) == ["cc"]
    assert status_lines([], 80, 2) == []


def test_activity() -> None:
    assert activity_line("working 3 s", "Esc interrupts").plain == "working 3 s  Esc interrupts"
    assert activity_line("", "hint").plain == "hint"
    assert activity_line("", "").plain == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.0004, "0.4 ms"), (0.00994, "9.9 ms"), (0.021, "21 ms"), (0.9994, "999 ms"),
        (0.9996, "1.0 s"), (3.21, "3.2 s"), (99.9, "99.9 s"), (123.4, "2m03s"), (3600, "60m00s"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert [thousands(999), thousands(1000), thousands(131_072)] == ["999", "1k", "131k"]
    assert [counted(1, "file"), counted(2, "file")] == ["1 file", "2 files"]


def test_percentiles_are_values() -> None:
    assert percentile([], 50) is None
    assert percentile([3, 1, 2], 50) == 2
    assert percentile([3, 1, 2], 95) == 3
    assert percentile([4, 1, 2, 3], 50) == 2
