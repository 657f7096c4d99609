"""Recorded runs of pytest are read the way a person reads them."""

import pytest

from tests.engine.families import recorded_pytest as recorded
from tightloop.engine.families.pytest_output import (
    Frame,
    Verdict,
    called_names,
    is_own,
    is_test,
    names_in_test,
    read_run,
)


@pytest.mark.parametrize("text", [recorded.LONG, recorded.SHORT], ids=["long", "short"])
def test_failures_lead_to_functions(text: str) -> None:
    run = read_run(text)
    assert run.verdict is Verdict.FAILED
    names = [failure.name for failure in run.failures]
    assert names == [
        "test_clamp",
        "test_total[values0-3]",
        "test_total_module",
        "test_stack",
        "TestRaises.test_bad",
    ]
    clamp, total, module, stack, _raises = run.failures
    assert clamp.suspect_frame is None
    assert clamp.called == ("clamp",)
    assert clamp.test_path == "test_mathy.py"
    assert total.suspect_frame == module.suspect_frame == Frame("pkg/mathy.py", 16)
    assert stack.called[0] == "peek"
    assert "test_mathy.py::test_total[values0-3]" in run.failed
    assert len(run.failed) == 5


def test_the_shown_test_code_names_what_was_called_before_the_failing_line() -> None:
    stack = read_run(recorded.LONG).failures[3]
    assert stack.called == ("peek", "push", "Stack")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (".   [100%]\n1 passed, 5 deselected in 0.02s\n", Verdict.PASSED),
        ("===== 12 passed in 3.10s (0:00:03) =====\n", Verdict.PASSED),
        ("1 failed, 3 passed in 0.10s", Verdict.FAILED),
        (recorded.BROKEN_IMPORT, Verdict.FAILED),
        ("no tests ran in 0.00s\nERROR: file or directory not found: x", Verdict.UNREADABLE),
        ("bash: pytest: command not found", Verdict.UNREADABLE),
        ("the docs say 3 failed", Verdict.UNREADABLE),
        ("", Verdict.UNREADABLE),
    ],
)
def test_verdict(text: str, verdict: Verdict) -> None:
    assert verdict is read_run(text).verdict


def test_a_broken_import_has_no_suspect() -> None:
    (failure,) = read_run(recorded.BROKEN_IMPORT).failures
    assert failure.suspect_frame is None
    assert failure.test_path == "test_broken.py"


def test_frames_of_installed_packages_are_nobody_s_fault() -> None:
    assert is_own("pkg/mathy.py")
    assert not is_own("/usr/lib/python3.11/json/__init__.py")
    assert not is_own(".venv/lib/python3.11/site-packages/x.py")
    assert not is_own("../other/x.py")


@pytest.mark.parametrize("path", ["test_a.py", "a/b_test.py", "tests/data.py", "x/conftest.py"])
def test_test_files(path: str) -> None:
    assert is_test(path)


def test_names_called() -> None:
    assert called_names("assert f(g(1)).h() == 2") == ["h", "f", "g"]
    assert called_names("for x in items(3):") == ["items"]
    assert called_names("not python at all (") == []


def test_names_in_a_test_of_a_file() -> None:
    assert names_in_test(recorded.TESTS, "TestRaises.test_bad") == ["clamp"]
    assert names_in_test(recorded.TESTS, "test_total[values0-3]") == ["total"]
    assert names_in_test(recorded.TESTS, "test_nowhere") == []
    assert names_in_test("def broken(", "broken") == []
