"""The demo's figures, from runs made up here."""

import io
import json

from rich.console import Console

from tightloop.agent.turn import Status, TurnResult
from tightloop.bench.bugs import Bug
from tightloop.bench.demo import DemoResult, summarise
from tightloop.bench.demo_view import heading, pair_line, print_report
from tightloop.bench.paths import FixRun
from tightloop.protocol.deltas import Usage
from tightloop.sandbox.isolation import Finding
from tightloop.trace.latency import RoundTrip
from tightloop.trace.ledger import build_ledger
from tightloop.trace.spans import Span

MS = 1_000_000


def made(
    path: str, number: int, scale: int, *, is_fixed: bool = True, text: str = "Fixed."
) -> FixRun:
    """A fix of one round trip and one test run, ``scale`` times 10 ms long."""
    bug = Bug(
        f"pkg-f{number}-cmp", "cmp", "pkg", "1", "MIT", "p.py", f"f{number}", 1, 2, "a", "b", "c"
    )
    trip = RoundTrip(
        0, 2 * scale * MS, 4 * scale * MS, queue_s=0.0, prefill_s=0.001, decode_s=0.001, server_s=0.0,
        engine_first_token_s=0.001 * scale, decode_steps_s=0.001, num_decode_steps=2,
    )  # fmt: skip
    spans = [Span("test", 4 * scale * MS, 10 * scale * MS, "pytest")]
    turn = TurnResult(text, Status.COMPLETED, spans, [trip], 0, 10 * scale * MS, Usage())
    return FixRun(path, bug, is_fixed, 0.1, turn, build_ledger(0, 10 * scale * MS, spans, [trip]))


def demo(*, is_fixed: bool = True, text: str = "Fixed.") -> DemoResult:
    result = DemoResult("patchling", Finding("bubblewrap", True, "entered"))
    for number in range(3):
        result.classic.append(made("classic", number, 8, is_fixed=is_fixed))
        result.tight.append(made("tight", number, 2, is_fixed=is_fixed, text=text))
    return result


def printed(result: DemoResult, width: int = 80) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=width, color_system=None)
    console.print(heading(result))
    console.print(pair_line(0, 3, result.classic[0], result.tight[0]))
    print_report(console, result)
    return screen.getvalue()


def test_the_json_object_has_what_was_promised() -> None:
    """Per path the medians named in the documentation, and ratios bug by bug."""
    whole = json.loads(json.dumps(demo().as_dict()))
    tight = whole["paths"]["tight"]
    assert tight["fix_wall_s"] == 0.02
    assert tight["ttft_ms"] == 4
    assert tight["round_trip_overhead_ms"] == 2
    assert tight["tokens_per_s"] == 2000
    assert (tight["fixed"], tight["attempted"]) == (3, 3)
    assert whole["classic_over_tight"]["fix_wall_s"] == {"median": 4, "p25": 4, "p75": 4}
    assert whole["bugs"] == ["pkg-f0-cmp", "pkg-f1-cmp", "pkg-f2-cmp"]


def test_the_report_fits_80_columns_without_colour() -> None:
    text = printed(demo())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "4.0x" in text
    assert "3/3" in text
    assert "demo model" in text


def test_a_failure_is_named() -> None:
    """Bugs that were not fixed are listed; claims that the cold check refutes are counted."""
    honest = printed(demo(is_fixed=False, text="I could not fix this."))
    assert "not fixed: pkg-f0-cmp" in honest.replace("\n", " ")
    assert "tight: 3 fixes were claimed" not in honest
    boastful = demo(is_fixed=False)
    assert summarise("tight", boastful.tight).wrongly_claimed == 3
    assert "3 fixes were claimed but failed" in printed(boastful)


def test_a_ledger_that_does_not_add_up_is_shown() -> None:
    result = demo()
    trip = RoundTrip(0, 1, 20 * MS, decode_s=0.5)
    ledger = build_ledger(0, 20 * MS, [], [trip])
    result.tight[0] = FixRun("tight", result.tight[0].bug, True, 0.1, result.tight[0].turn, ledger)
    assert "ledger is off" in printed(result)
