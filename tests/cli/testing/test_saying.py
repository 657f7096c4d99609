"""The words after a run."""

from pathlib import Path

import pytest

from tightloop.cli.testing import saying
from tightloop.sandbox.audited import Check, Finding
from tightloop.sandbox.interface import CommandResult
from tightloop.sandbox.verdicts import Difference
from tightloop.sandbox.warm_commands import Answer
from tightloop.sandbox.warmed import Checked

REPORT = b'{"test": "t.py::a", "outcome": "passed"}\n{"test": "t.py::b", "outcome": "failed"}\n'
WARM = CommandResult(1, "", 0, 61_000_000, how="warm-pytest-swap", report=REPORT)
COLD = CommandResult(0, "", 0, 1_234_000_000, how="cold", report=REPORT)
DIFFERENCES = tuple(Difference(f"t.py::{name}", "passed", "failed") for name in "abcdefg")
WRONG = Check(Finding.WRONG, COLD, DIFFERENCES, logs=(Path("/w.log"), Path("/c.log")))


def test_the_line_after_a_warm_run() -> None:
    """Level, time, and how far it can be relied on; a level that is not known is named only."""
    assert saying.warm_line(WARM, "provisional") == (
        "warm (swap) in 61 ms: the changed functions were swapped in; provisional"
    )
    other = CommandResult(0, "", 0, 5, how="warm-pytest-l9")
    assert saying.warm_line(other, "provisional") == "warm (l9) in 0 ms; provisional"
    late = CommandResult(0, "", 4_000_000_000, 4_500_000_000, how="warm-pytest-l9")
    assert saying.warm_line(late, "x", 1_000_000_000) == "warm (l9) in 3.5 s; x"


def test_the_line_after_a_cold_run() -> None:
    """With the reason if one is known; nothing in it can steer a terminal."""
    assert saying.cold_line(COLD, "") == "cold in 1.2 s"
    assert saying.cold_line(COLD, "argument \x1b[2J--x") == "cold in 1.2 s: argument --x"


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (Check(Finding.AGREED, COLD), "checked: a cold run of 1.2 s says the same"),
        (Check(Finding.VOID, COLD, note="x.py changed"), "the check says nothing: x.py changed"),
        (WRONG, "WRONG: a cold run of 1.2 s says something else, and its exit code counts"),
        (
            Check(Finding.UNSTABLE, COLD, DIFFERENCES),
            "not equal to a cold run of 1.2 s, but two cold runs differ as well",
        ),
    ],
)
def test_what_a_check_came_to(check: Check, words: str) -> None:
    """In words."""
    assert saying.checked_words(check) == words


def test_a_wrong_verdict_is_told_loudly() -> None:
    """With the tests that differ, the logs, and what to do; an agreement is no news."""
    lines = saying.news(WRONG)
    assert lines[0].startswith("A WARM RUN WAS WRONG")
    assert lines[1:6] == [f"    t.py::{name}: passed warm, failed cold" for name in "abcde"]
    assert lines[6:9] == ["    and 2 more", "    log: /w.log", "    log: /c.log"]
    assert "--warm-again" in lines[9]
    assert saying.news(Check(Finding.AGREED, COLD)) == []
    assert saying.news(Check(Finding.UNSTABLE, COLD, DIFFERENCES))[0].startswith("unstable tests")


def test_objects_for_programs() -> None:
    """One per test, then one for the run."""
    assert saying.test_lines(WARM) == [
        {"test": "t.py::a", "outcome": "passed"},
        {"test": "t.py::b", "outcome": "failed"},
    ]
    assert saying.final_object(WARM, 1, "", None) == {
        "exit_code": 1,
        "how": "warm-swap",
        "is_provisional": True,
        "duration_s": 0.061,
        "outcomes": {"passed": 1, "failed": 1},
    }
    said = saying.final_object(WARM, 0, "", WRONG)
    assert not said["is_provisional"]
    assert said["check"]["finding"] == "wrong"
    assert said["check"]["differences"][0] == {
        "what": "t.py::a",
        "warm": "passed",
        "cold": "failed",
    }
    cold = saying.final_object(COLD, 0, "asked for", None)
    assert (cold["how"], cold["why_cold"]) == ("cold", "asked for")


def test_words_of_warm_commands() -> None:
    """Of an answer, of a cold one in its place, and of a name that is none."""
    result = CommandResult(1, "", 0, 5_000_000, how="warm-command-mypy")
    assert saying.command_line(Checked(Answer(result), "provisional; x")) == (
        "warm in 5 ms; provisional; x"
    )
    assert saying.command_line(Checked(Answer(COLD, "first use"))) == "cold in 1.2 s: first use"
    audited = Checked(Answer(result), check=Check(Finding.AGREED, COLD))
    assert saying.command_object(audited, 0)["check"]["finding"] == "agreed"
    assert saying.command_object(Checked(Answer(result), "x"), 1)["is_provisional"]
    assert saying.no_such_command(["x"], []).endswith("see docs/testing.md")
    assert saying.no_such_command([], ["a", "b"]).endswith("one command: a, b")
    assert "'x'" in saying.no_such_command(["x"], ["a"])


def test_why_runs_are_off() -> None:
    """With both logs and the way back."""
    said = saying.off_reason("a: passed warm, failed cold", ("/w", "/c"))
    assert "(logs: /w and /c)" in said
    assert "--warm-again" in said
