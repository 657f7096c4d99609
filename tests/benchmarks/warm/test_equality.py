"""What is kept of a run, and how edits are shared out."""

from pathlib import Path

import msgspec

from benchmarks.warm.equality import kept, report, split
from benchmarks.warm.projects import PROJECTS
from tests.benchmarks.warm.test_verdict import answer


def test_every_project_gets_its_part() -> None:
    """Together at least what was asked for."""
    parts = split(300, list(PROJECTS))
    assert sum(parts.values()) >= 300
    assert min(parts.values()) >= 20
    assert split(10, ["sympy"]) == {"sympy": 10}


def test_a_run_goes_on_behind_a_line_that_was_cut_off(tmp_path: Path) -> None:
    """What was complete is not run again."""
    path = tmp_path / "seed-1.jsonl"
    assert kept(path) == []
    answers = [answer(0, "l1"), answer(1, "swap", differences=["exit code: 0 warm, 1 cold"])]
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in answers)
    path.write_bytes(lines + b'{"project":"cli')
    assert kept(path) == answers


def test_a_report_has_a_line_for_each_difference() -> None:
    """And the texts where those differ."""
    said = report([answer(0, "l1"), answer(1, "l0", text="--- cold\n+++ warm"), answer(2, "swap")])
    assert "--only 1" in said
    assert "+++ warm" in said
    assert "--only 2" not in said
