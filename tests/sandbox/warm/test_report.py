"""What the plugin says of each test."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.sandbox.warm.started import Started
from tightloop.sandbox.warm.report import Lines, OutcomePlugin

TESTS = """\
import pytest

@pytest.fixture
def broken():
    raise ValueError

@pytest.fixture
def broken_later():
    yield
    raise ValueError

def test_passed(): pass
def test_failed(): assert 0
def test_error(broken): pass
def test_late_error(broken_later): pass
def test_skipped(): pytest.skip()
@pytest.mark.xfail
def test_xfailed(): assert 0
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.mark.xfail(strict=True)
def test_strict(): pass
@pytest.mark.parametrize("x", [1, 2])
def test_several(x): assert x == 1
"""


def test_outcomes_are_pytests_own(tmp_path: Path) -> None:
    """Every kind, by node id."""
    started = Started(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(TESTS)
    (tmp_path / "test_b.py").write_text("1 / 0\n")
    try:
        whole = started.run("-q --ignore=test_b.py")
        broken = started.run("-q")
    finally:
        started.end()
    said = {name.removeprefix("test_a.py::test_"): how for name, how in whole.tests.items()}
    assert said == {
        "passed": "passed",
        "failed": "failed",
        "error": "error",
        "late_error": "error",
        "skipped": "skipped",
        "xfailed": "xfailed",
        "xpassed": "xpassed",
        "strict": "failed",
        "several[1]": "passed",
        "several[2]": "failed",
    }
    assert broken.tests == {"test_b.py": "error"}


def report(when: str, outcome: str) -> SimpleNamespace:
    """As pytest makes them."""
    return SimpleNamespace(
        nodeid="t", when=when, outcome=outcome, failed=outcome == "failed", duration=0.5
    )


def test_the_worst_phase_is_the_outcome_and_times_add_up() -> None:
    """One line when the tear-down is over; outcomes of unknown plugins are passed on."""
    reading, writing = os.pipe()
    plugin = OutcomePlugin(Lines(writing))
    for phase in (report("setup", "passed"), report("call", "rerun"), report("teardown", "passed")):
        plugin.pytest_runtest_logreport(phase)
    plugin.lines.close()
    with open(reading, "rb") as file:
        assert [json.loads(line) for line in file] == [
            {"test": "t", "outcome": "rerun", "duration_s": 1.5}
        ]


def test_nobody_listening_is_no_error() -> None:
    """A run goes on when whoever wanted its lines has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines(writing)
    lines.write({"a": 1})
    lines.write({"b": 2})
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(writing)
