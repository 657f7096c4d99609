"""Runs that begin where collection has ended must say what cold ones say, whatever is asked for."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.warm.started import Started
from tests.sandbox.warm.test_resident import edit, write

FILES = {
    "pytest.ini": "[pytest]\n",
    "pkg/__init__.py": "",
    "pkg/core.py": """\
import warnings


def cases():
    return [1, 2]


def double(x):
    return 2 * x


def broken(x):
    print("from the project")
    raise ValueError(x)


def old():
    warnings.warn("old", DeprecationWarning)
    return 1
""",
    "tests/conftest.py": """\
import os

import pytest

os.environ["FROM_CONFTEST"] = "1"


def pytest_report_header(config):
    return "made by conftest"


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    made = tmp_path_factory.mktemp("place")
    yield made
    print("torn down")


@pytest.fixture(autouse=True)
def variable(monkeypatch):
    monkeypatch.setenv("MINE", "1")
""",
    "tests/test_it.py": """\
import logging
import os
import sys

import pytest

from pkg import core

print("said while collecting")
SEEN = []


@pytest.mark.parametrize("case", core.cases())
def test_case(case):
    assert core.double(case) == 2 * case


def test_broken(place):
    (place / "a").write_text("a")
    core.broken(3)


def test_double():
    assert core.double(4) == 9, "not nine"


def test_old():
    assert core.old() == 1


def test_output(capsys, capfd):
    print("out")
    print("err", file=sys.stderr)
    logging.getLogger("x").warning("logged")
    os.write(1, b"written\\n")


def test_spoken():
    print("spoken")
    os.system("echo by a process")
    assert os.environ["FROM_CONFTEST"] + os.environ["MINE"] == "11"
    assert 0


def test_state(tmp_path):
    SEEN.append(1)
    core.double.__dict__["mark"] = 1
    assert (len(SEEN), list(tmp_path.iterdir())) == (1, [])


@pytest.mark.skipif(len(core.cases()) == 2, reason="two")
def test_skipped():
    pass


@pytest.mark.xfail
def test_expected():
    assert core.double(1) == 3


class TestKind:
    @pytest.fixture(scope="class")
    def three(self):
        return core.double(1) + 1

    def test_three(self, three):
        assert three == 3
""",
}
OPTIONS = {
    "quiet": "-q -p no:cacheprovider",
    "with a header": "-p no:cacheprovider",
    "verbose": "-vv -p no:cacheprovider",
    "no capture": "-s -p no:cacheprovider",
    "capture of python's streams": "--capture=sys -rA -p no:cacheprovider",
    "capture that shows": "--capture=tee-sys -p no:cacheprovider",
    "first failure": "-x -q -p no:cacheprovider",
    "some": "-q -k double -p no:cacheprovider",
    "one": "-q tests/test_it.py::test_broken --tb=long --showlocals -p no:cacheprovider",
    "short traces": "--tb=short -p no:cacheprovider",
    "collection only": "--co -p no:cacheprovider",
    "with a cache": "-q -rA",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One resident interpreter; the tests share its directory one after the other."""
    started = Started(tmp_path_factory.mktemp("collected"))
    yield started
    started.end()


@pytest.fixture
def project(shared: Started) -> Path:
    """The project as it is before the edit."""
    write(shared.workspace, FILES)
    return shared.workspace


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_way_to_run_gives_the_text_of_a_cold_run(
    name: str, shared: Started, project: Path
) -> None:
    """As collected, with the lines shifted, and with another result; several times."""
    args = OPTIONS[name]
    assert shared.resident(args).said == shared.cold(args).said
    assert shared.run(args).said == shared.cold(args).said
    edit(project, "pkg/core.py", "    raise V", "    # a remark\n    raise V")
    ran = shared.run(args)
    assert (ran.level, ran.said) == ("swap-l2", shared.cold(args).said)
    edit(project, "pkg/core.py", "return 2 * x", "return 3 * x")
    ran = shared.run(args)
    assert (ran.level, ran.said) == ("swap-l2", shared.cold(args).said)


@pytest.mark.slow
def test_nothing_of_ours_is_left_to_warn(shared: Started, project: Path) -> None:
    """Runs right after each other: with a spare child that is not ready, with one, with none."""
    edit(project, "pytest.ini", "[pytest]", "[pytest]\nfilterwarnings = error")
    edit(
        project,
        "tests/test_it.py",
        "def test_state",
        "import gc\n\n\ndef test_gone():\n    gc.collect()\n\n\ndef test_state",
    )
    args = "-q -rA -p no:cacheprovider"
    cold = shared.cold(args).said
    assert shared.resident(args).said == cold
    assert [shared.run(args).said == cold for _ in range(8)] == [True] * 8


@pytest.mark.slow
def test_what_ran_until_the_first_test_is_not_swapped(shared: Started, project: Path) -> None:
    """``cases`` ran for parametrize: the tests themselves would be others."""
    args = "-q -rA -p no:cacheprovider"
    shared.resident(args)
    edit(project, "pkg/core.py", "return [1, 2]", "return [1, 2, 3]")
    ran = shared.run(args)
    assert ran.level == "l0"  # with this conftest there is no process with the modules alone
    assert ran.said == shared.cold(args).said
    assert "tests/test_it.py::test_case[3]" in ran.tests


@pytest.mark.slow
def test_earlier_runs_may_not_decide_what_is_collected(shared: Started, project: Path) -> None:
    """Also where the configuration asks for it."""
    edit(project, "pytest.ini", "[pytest]", "[pytest]\naddopts = --ff")
    shared.run("-q -rA --maxfail=50")
    shared.settle()
    ran = shared.run("-q -rA --maxfail=50")
    assert (ran.level, ran.said) == ("l0", shared.cold("-q -rA --maxfail=50").said)


@pytest.mark.slow
def test_a_process_that_waits_runs_nothing_of_the_project(shared: Started, project: Path) -> None:
    """As it would at each end of a run, if a test file handles that signal."""
    edit(project, "tests/test_it.py", "import sys\n", "import signal\nimport sys\n")
    edit(
        project, "tests/test_it.py", "SEEN = []", "SEEN = []\nsignal.signal(signal.SIGCHLD, print)"
    )
    shared.run("-q -rA --maxfail=51")
    shared.settle()
    ran = shared.run("-q -rA --maxfail=51")
    assert (ran.level, ran.said) == ("l0", shared.cold("-q -rA --maxfail=51").said)


@pytest.mark.slow
def test_last_failures_are_those_of_the_runs_before(shared: Started, project: Path) -> None:
    """They are read when a run begins, not when pytest started; a cold run uses them."""
    args, cache = "-q -rA", project / ".pytest_cache/v/cache"
    shared.resident(args)
    edit(project, "pkg/core.py", "return 2 * x", "return 2 * x + 1")
    assert shared.run(args).level == "swap-l2"
    warm = (cache / "lastfailed").read_text()
    shared.cold(args)
    assert (cache / "lastfailed").read_text() == warm
    assert '"tests/test_it.py::test_case[1]"' in warm
    edit(project, "pkg/core.py", "return 2 * x + 1", "return 2 * x")
    assert shared.run(args).level == "l2"
    assert '"tests/test_it.py::test_case[1]"' not in (cache / "lastfailed").read_text()
    shared.cold("-q tests/test_it.py::test_double")
    nodes = (cache / "nodeids").read_text()
    assert shared.run(args).level == "l2"
    assert (cache / "nodeids").read_text() == nodes


@pytest.mark.slow
def test_a_junit_report_tells_when_the_run_was(shared: Started, project: Path) -> None:
    """Its suite begins with the run, and says the same otherwise."""
    report = project.parent / "report.xml"
    args = f"-q -p no:cacheprovider --junitxml={report}"
    shared.resident(args)
    texts, starts = [], []
    for run in (shared.run, shared.run, shared.cold):
        run(args)
        text = report.read_text()
        starts += re.findall(r'timestamp="([^"]+)"', text)
        text = re.sub(r'time(stamp)?="[^"]+"|pytest-\d+', "", text)
        texts.append(re.sub("0x[0-9a-f]+", "", text))
    assert texts[0] == texts[1] == texts[2]
    assert sorted(set(starts)) == starts


@pytest.mark.slow
def test_a_plugin_that_may_keep_a_seed_keeps_pytest_from_starting_early(
    shared: Started, project: Path
) -> None:
    """Only what is known to keep nothing of the kind may be there; the rest goes colder."""
    (packages,) = project.glob(".venv/lib/*/site-packages")
    # without these there is a process with the modules alone
    edit(project, "tests/test_it.py", 'os.environ["FROM_CONFTEST"] + ', "'1' + ")
    edit(project, "tests/conftest.py", 'os.environ["FROM_CONFTEST"] = "1"\n', "")
    edit(project, "tests/test_it.py", 'print("said while collecting")\n', "")
    (packages / "seeding.py").write_text("import random\nSEED = random.random()\n")
    info = packages / "seeding-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[pytest11]\nseeding = seeding\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: seeding\nVersion: 1\n")
    started = Started(project)
    try:
        args = "-q -rA -p no:cacheprovider"
        ran = started.resident(args, "l0")
        started.settle()
        ran = started.run(args)
        assert (ran.level, "seeding" in ran.colder) == ("l1", True)
        assert ran.said == started.cold(args).said
    finally:
        started.end()
        for path in [packages / "seeding.py", *info.iterdir()]:
            path.unlink()
        info.rmdir()
        os.utime(packages)
