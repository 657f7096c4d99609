"""A cold run with outcomes is a cold run."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.warm.started import MAIN, Ran, Started
from tightloop.sandbox.verdicts import Verdict, differences, read_report

TESTS = """\
import os, sys
import subject

def test_value(): assert subject.value() == 1
def test_process():
    assert (os.getcwd(), sys.argv, sys.path, sys.executable) == 0
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Started]:
    """A project with a warm process beside it."""
    started = Started(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "subject.py").write_text("def value():\n    return 1\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    yield started
    started.end()


def reported(started: Started, program: Path) -> tuple[Ran, dict[str, str]]:
    """A cold run that reports."""
    report = started.workspace.parent / f"{started.workspace.name}.report"
    done = subprocess.run(
        [started.python, MAIN, "cold", report, started.workspace, program, *["-q", "-rA"]],
        cwd=started.workspace,
        env={**started.environment, "TIGHTLOOP_COMMAND": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Ran("cold", done.returncode, done.stdout), read_report(report.read_bytes())


def test_it_says_what_pytest_says_and_each_outcome(project: Started) -> None:
    """The same text, directory, arguments and path."""
    ran, tests = reported(project, project.python)
    assert ran.said == project.cold("-q -rA").said
    assert tests == {"test_it.py::test_value": "passed", "test_it.py::test_process": "failed"}


def test_the_pytest_script_too(project: Started) -> None:
    """It does not put the directory on the search path; here the tests' own directory is."""
    ran, tests = reported(project, project.python.with_name("pytest"))
    assert (ran.code, tests["test_it.py::test_value"]) == (1, "passed")


def test_a_warm_verdict_that_is_wrong_is_found(project: Started) -> None:
    """Here the resident process is lied to: a stale result is what a broken guard would give."""
    warm = project.run("-q")
    verdict = Verdict(warm.code, warm.tests)
    ran, tests = reported(project, project.python)
    assert differences(verdict, Verdict(ran.code, tests)) == ()
    (project.workspace / "subject.py").write_text("def value():\n    return 2\n")
    ran, tests = reported(project, project.python)
    found = differences(verdict, Verdict(ran.code, tests))
    assert [str(difference) for difference in found] == [
        "test_it.py::test_value: passed warm, failed cold"
    ]


def test_stale_cached_code_is_not_believed(project: Started) -> None:
    """An edit of the same size with the same time, after a run that left byte code."""
    subject = project.workspace / "subject.py"
    subprocess.run(
        [project.python, "-m", "pytest", "-q"],
        cwd=project.workspace,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    assert list((project.workspace / "__pycache__").glob("subject*"))
    old = subject.stat()
    subject.write_text("def value():\n    return 3\n")
    os.utime(subject, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert reported(project, project.python)[1]["test_it.py::test_value"] == "failed"
