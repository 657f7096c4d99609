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


WHAT_IS_THERE = """\
import __main__, importlib.util, os, sys
import subject

SEEN = sorted(sys.modules)

def test_shown():
    print(SEEN, sorted(sys.modules))
    print(sorted(vars(__main__)), __main__.__spec__, __main__.__file__, __main__.__loader__.name)
    print(sys.dont_write_bytecode, sys.path_hooks, len(sys.meta_path), sys.flags, sys.executable)
    print(subject.__cached__, importlib.util.cache_from_source(subject.__file__), __cached__)
    print(sys.path, sys.argv, os.getcwd(), sorted(os.environ))
    assert not [name for name in sys.modules if "tightloop" in name]
    assert 0
"""


@pytest.mark.parametrize("program", ["python", "pytest"])
def test_what_a_test_can_see_is_what_it_sees_without_a_report(
    program: str, project: Started
) -> None:
    """Modules, the main module, flags and the places of cached code; nothing of ours, and no more."""
    (project.workspace / "test_it.py").write_text(WHAT_IS_THERE)
    (project.workspace / "conftest.py").write_text("import sys\nsys.path.insert(0, '.')\n")
    ran, tests = reported(project, project.python.with_name(program))
    line = [str(project.python.with_name(program))]
    line += ["-m", "pytest"] if program == "python" else []
    plain = subprocess.run(
        [*line, "-q", "-rA"],
        cwd=project.workspace,
        env={**project.environment, "TIGHTLOOP_COMMAND": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.said == Ran("cold", plain.returncode, plain.stdout).said
    assert "subject.cpython-" in ran.output
    assert tests == {"test_it.py::test_shown": "failed"}


def test_a_test_that_a_warm_process_leads_astray_is_found(project: Started) -> None:
    """It asks what only a warm process has: that must not be in the run it is checked against."""
    (project.workspace / "test_it.py").write_text(
        "import sys\n\n\ndef test_one():\n    assert 'sqlite3' not in sys.modules\n"
    )
    project.settle()  # what tests often import is resident
    warm = project.run("-q")
    ran, tests = reported(project, project.python)
    assert (ran.code, tests) == (0, {"test_it.py::test_one": "passed"})
    found = differences(Verdict(warm.code, warm.tests), Verdict(ran.code, tests))
    assert "test_it.py::test_one: failed warm, passed cold" in map(str, found)


def test_nothing_of_ours_is_seen_at_any_level(project: Started) -> None:
    """Neither by a test nor while it is collected, nor by a module while it is imported."""
    (project.workspace / "test_it.py").write_text(
        "import sys\nimport subject\nSEEN = [*sys.modules]\n\n\ndef test_one():\n"
        "    assert not [name for name in (*SEEN, *sys.modules) if 'tightloop' in name]\n"
    )
    for level in ("l0", "l2"):
        ran = project.run("-q") if level == "l0" else project.resident("-q")
        assert (ran.level, ran.code) == (level, 0), ran.output
    (project.workspace / "subject.py").write_text("import sys\nSEEN = [*sys.modules]\n")
    text = "import sys\nimport subject\n\n\ndef test_one():\n    seen = (*subject.SEEN, *sys.modules)\n"
    text += "    assert not [name for name in seen if 'tightloop' in name]\n"
    (project.workspace / "test_it.py").write_text(text)
    project.resident("-q")
    (project.workspace / "test_it.py").write_text(text + "    assert 1\n")
    ran = project.run("-q")
    assert (ran.level, ran.code) == ("l1", 0), ran
