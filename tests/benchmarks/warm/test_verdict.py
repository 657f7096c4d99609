"""What two runs tell, and what of it counts."""

from benchmarks.warm.runs import Ran, outcomes
from benchmarks.warm.verdict import Answer, by_kind, different, shares, unlike

OUTPUT = """\
============================= test session starts ==============================
collected 6 items

tests/test_a.py::test_one PASSED                                         [ 16%]
tests/test_a.py::test_two[a b] FAILED                                    [ 33%]
tests/test_a.py::test_three SKIPPED (not here)                           [ 50%]
tests/test_a.py::test_four XFAIL                                         [ 66%]
tests/test_a.py::test_five PASSED                                        [ 83%]
tests/test_a.py::test_five ERROR                                         [ 83%]
=========================== short test summary info ============================
PASSED tests/test_a.py::test_one
ERROR tests/test_b.py - ImportError: no
ERROR tests/test_a.py::test_five - ValueError
FAILED tests/test_a.py::test_two[a b] - assert 1 == 2
==== 1 failed, 1 passed in 0.12s ====
"""


def test_outcomes_are_read_from_the_text() -> None:
    """One per test, the worst where a test and its tear-down differ; files that were not collected."""
    assert outcomes(OUTPUT) == {
        "tests/test_a.py::test_one": "passed",
        "tests/test_a.py::test_two[a b]": "failed",
        "tests/test_a.py::test_three": "skipped",
        "tests/test_a.py::test_four": "xfailed",
        "tests/test_a.py::test_five": "error",
        "tests/test_b.py": "error",
    }


def test_a_line_that_something_was_printed_into_is_made_up_for_by_the_summary() -> None:
    """A warning at any moment, as of a coroutine that was never awaited; ids may have dashes."""
    broken = (
        "t.py::test_one /x.py:1: RuntimeWarning: never awaited\nPASSED [ 50%]\n"
        "t.py::test_two[a - b] FAILED [ 75%]\nt.py::test_three oh\nFAILED [100%]\n"
        "PASSED t.py::test_one\nFAILED t.py::test_two[a - b] - assert 1 == 2\n"
        "FAILED t.py::test_three - assert 3 - 1 == 0\n"
    )
    assert outcomes(broken) == {
        "t.py::test_one": "passed",
        "t.py::test_two[a - b]": "failed",
        "t.py::test_three": "failed",
    }


def ran(output: str = OUTPUT, code: int = 1) -> Ran:
    return Ran(code, output, "l1", 1.0, outcomes(output))


def test_times_and_addresses_do_not_count() -> None:
    """Nor does the length of a rule, which depends on how long a time is."""
    other = OUTPUT.replace(
        "==== 1 failed, 1 passed in 0.12s ====", "=== 1 failed, 1 passed in 10.12s ==="
    )
    assert unlike(ran(), ran(other)) == ""
    one = ran("<object at 0x7f00aa11>\n/tmp/pytest-of-root/pytest-3/a\n")
    assert unlike(one, ran("<object at 0x7f00bb22>\n/tmp/pytest-of-root/pytest-14/a\n")) == ""


def test_outcomes_exit_codes_and_words_count() -> None:
    other = ran(OUTPUT.replace("test_one PASSED", "test_one FAILED"), 2)
    assert different(other, ran()) == [
        "exit code: 2 warm, 1 cold",
        "tests/test_a.py::test_one: failed warm, passed cold",
    ]
    assert "+tests/test_a.py::test_one FAILED" in unlike(other, ran())
    assert different(ran(), ran()) == []


def answer(index: int, level: str, **found: object) -> Answer:
    plain = Answer(
        project="click",
        seed=3,
        index=index,
        kind="docstring",
        about="f",
        level=level,
        warm_ms=1.0,
        cold_ms=2.0,
        exit_code=0,
        num_tests=4,
        num_not_passed=0,
    )
    for name, value in found.items():
        plain = type(plain)(
            **{**{f: getattr(plain, f) for f in plain.__struct_fields__}, name: value}
        )
    return plain


def test_shares_are_printed_per_project_and_level() -> None:
    answers = [
        answer(0, "l1"),
        answer(1, "swap"),
        answer(2, "swap"),
        answer(3, "l0", differences=["x"]),
    ]
    lines = [line.split() for line in shares(answers)]
    assert lines[0][:5] == ["project", "edits", "swap", "l1", "l0"]
    assert lines[1][:8] == ["click", "4", "50", "%", "25", "%", "25", "%"]
    assert [line.split() for line in by_kind(answers)][1] == ["docstring", "2", "1", "1"]


def test_a_difference_says_how_to_repeat_it() -> None:
    line = answer(7, "l1", differences=["exit code: 0 warm, 1 cold"]).line
    assert "--seed 3 --projects click --only 7" in line
    assert "exit code: 0 warm, 1 cold" in line
