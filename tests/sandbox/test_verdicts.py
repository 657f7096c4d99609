"""Checking warm verdicts, and what a wrong one does."""

from pathlib import Path

from tightloop.sandbox.verdicts import (
    AuditSample,
    Difference,
    ShutOff,
    Verdict,
    differences,
    read_report,
    repository_key,
)

GOOD = Verdict(0, {"t.py::a": "passed", "t.py::b": "skipped"})
BAD = Verdict(1, {"t.py::a": "failed", "t.py::c": "passed"})


def test_every_difference_is_named() -> None:
    """By test id, also for tests that only one run has; the exit code comes first."""
    assert differences(GOOD, GOOD) == ()
    assert differences(GOOD, BAD) == (
        Difference("exit code", "0", "1"),
        Difference("t.py::a", "passed", "failed"),
        Difference("t.py::b", "skipped", "absent"),
        Difference("t.py::c", "absent", "passed"),
    )
    assert str(differences(GOOD, BAD)[1]) == "t.py::a: passed warm, failed cold"


def test_reports_are_not_believed() -> None:
    """Lines that are no outcome are left out, outcomes that pytest does not know are marked."""
    report = b'{"test": "a", "outcome": "passed"}\nnonsense\n[1]\n{"test": 3}\n\xff\n'
    report += b'{"test": "b", "outcome": {"x": 1}}\n{"test": "c", "outcome": "great"}\n{"te'
    assert read_report(report) == {
        "a": "passed",
        "b": "unknown",
        "c": "unknown",
    }


def test_the_first_the_flipped_and_one_in_ten_are_checked() -> None:
    """For each command its own first verdict."""
    sample = AuditSample()
    one, other = ("pytest", "a"), ("pytest", "b")
    assert sample.is_due(one, GOOD)
    assert not sample.is_due(one, GOOD)
    assert sample.is_due(other, GOOD)
    assert sample.is_due(one, BAD)
    assert not sample.is_due(one, BAD)
    assert sample.is_due(one, GOOD)
    said = [sample.is_due(one, GOOD) for _ in range(20)]
    assert [number for number, is_due in enumerate(said, 1) if is_due] == [10, 20]


def test_a_check_that_came_to_nothing_is_made_again() -> None:
    """The next verdict of that command is due, whatever it is."""
    sample = AuditSample()
    assert sample.is_due(("pytest",), GOOD)
    sample.again(("pytest",))
    sample.again(("never seen",))
    assert sample.is_due(("pytest",), GOOD)
    assert not sample.is_due(("pytest",), GOOD)


def test_the_logs_of_a_wrong_verdict_are_known(tmp_path: Path) -> None:
    """Both, the warm one first; none while nothing was wrong."""
    shut_off = ShutOff(tmp_path)
    assert shut_off.logs(tmp_path) == ()
    shut_off.turn_off(tmp_path, (), "w.log", "c.log")
    assert shut_off.logs(tmp_path) == ("w.log", "c.log")


def test_one_wrong_verdict_switches_off_until_dependencies_change(tmp_path: Path) -> None:
    """The note has both logs; another repository is not concerned."""
    repository, other = tmp_path / "one", tmp_path / "other"
    repository.mkdir()
    other.mkdir()
    (repository / "uv.lock").write_text("a")
    shut_off = ShutOff(tmp_path / "state")
    assert shut_off.reason(repository) == ""
    note = shut_off.turn_off(repository, differences(GOOD, BAD), "warm says", "cold says")
    assert "cold says" in note.read_text()
    assert "t.py::a: passed warm" in ShutOff(tmp_path / "state").reason(repository)
    assert shut_off.reason(other) == ""
    (repository / "uv.lock").write_text("b")
    assert shut_off.reason(repository) == ""
    (repository / "uv.lock").write_text("a")
    assert shut_off.turn_on(repository)
    assert not shut_off.turn_on(repository)
    assert shut_off.reason(repository) == ""


def test_a_note_that_cannot_be_read_keeps_warm_runs_off(tmp_path: Path) -> None:
    """In doubt, cold."""
    shut_off = ShutOff(tmp_path)
    note = shut_off.turn_off(tmp_path, (), "", "")
    assert shut_off.reason(tmp_path) == "the verdicts differ"
    note.write_text("{")
    assert "cannot be read" in shut_off.reason(tmp_path)


def test_a_repository_is_known_by_its_place_and_its_lock_files(tmp_path: Path) -> None:
    """A link to it is the same place."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "link").symlink_to("repo")
    key = repository_key(tmp_path / "repo")
    assert key == repository_key(tmp_path / "link")
    (tmp_path / "repo" / "pyproject.toml").write_text("")
    assert key != repository_key(tmp_path / "repo")
