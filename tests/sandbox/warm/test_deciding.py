"""What an import kept or drew decides whether a run may be warm, and what may be swapped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.warm.started import Started
from tests.sandbox.warm.test_resident import FILES, edit, same, write


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One resident interpreter; it serves 200 runs, so not those of another module too."""
    started = Started(tmp_path_factory.mktemp("deciding"))
    yield started
    started.end()


@pytest.fixture
def project(shared: Started) -> Path:
    """The project as it is before the edit."""
    write(shared.workspace, FILES)
    return shared.workspace


KEEPING = """\
import functools, inspect

KEPT = []


def keep(function):
    KEPT.append(function.__code__)
    return function


def describe(function):
    inspect.signature(function)
    return functools.wraps(function)(lambda: function())


@keep
def kept():
    return 1


@describe
def described():
    return 1


def free():
    return 1


def value():
    return eval(KEPT[0]), KEPT[0].co_firstlineno, described(), free()
"""
# The edit, and the level at which the next run takes place.
KEEPING_EDITS = {
    "the function whose code is kept": ("kept():\n    return 1", "kept():\n    return 2", "l0"),
    "its lines": ("@keep\n", "# a remark\n@keep\n", "l0"),
    "one that was asked for its arguments": (
        *("described():\n    return 1", "described():\n    return 2"),
        "swap-l2",
    ),
    "another": ("free():\n    return 1", "free():\n    return 2", "swap-l2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KEEPING_EDITS)
def test_code_that_an_import_has_kept_is_not_swapped(
    name: str, shared: Started, project: Path
) -> None:
    """A swap would reach the function and not what was taken out of it."""
    edit(project, "pkg/late.py", None, KEEPING)
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    edit(project, "tests/test_it.py", "core.broken()", "assert pkg.late.value() == 0")
    shared.resident()
    old, new, level = KEEPING_EDITS[name]
    edit(project, "pkg/late.py", old, new)
    ran = shared.run()
    assert ran.level == level, ran.colder
    same(shared, ran)


@pytest.mark.slow
def test_numbers_with_a_seed_of_their_own_are_those_of_a_cold_run(
    shared: Started, project: Path
) -> None:
    """Each run begins with the same; that is what a cold run does too."""
    edit(project, "pkg/late.py", None, "import random\nMINE = random.Random(7)\n")
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    edit(project, "tests/test_it.py", "core.broken()", "assert pkg.late.MINE.random() == 0")
    same(shared, shared.resident())


UNSEEDED = {
    "numbers drawn without a seed": (
        "import random\nMINE = random.Random().random()\n",
        "random for",
    ),
    "a long number drawn without a seed": (
        "import random\nMINE = random.Random().randrange(2**40)\n",
        "getrandbits for",
    ),
    "seed of nothing": ("import random\nrandom.seed()\n", "without a seed"),
    "numbers beside seeded ones": (
        "import random\nOTHER = random.Random(3)\nDRAWN = random.random()\n",
        "random",
    ),
}


@pytest.mark.slow
def test_numbers_without_a_seed_are_new_in_each_run(shared: Started, project: Path) -> None:
    """Made on import and drawn in a test; a seed chosen later on import is kept."""
    late = "import random\nMINE = random.Random()\nCHOSEN = random.Random()\nCHOSEN.seed(7)\n"
    edit(project, "pkg/late.py", None, late)
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    drawn = "assert pkg.late.MINE.random() == 0"
    edit(project, "tests/test_it.py", "core.broken()", drawn)
    shared.resident()
    shared.settle()
    runs = [shared.run(), shared.run()]
    assert {ran.level for ran in runs} <= {"l1", "l2"}
    assert runs[0].said != runs[1].said
    edit(project, "tests/test_it.py", drawn, "assert pkg.late.CHOSEN.random() == 0")
    same(shared, shared.resident())


@pytest.mark.slow
@pytest.mark.parametrize("name", UNSEEDED)
def test_numbers_drawn_without_a_seed_keep_modules_from_being_resident(
    name: str, shared: Started, project: Path
) -> None:
    """A process that has them would give each run the same."""
    text, reason = UNSEEDED[name]
    edit(project, "pkg/late.py", None, text)
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    args = f"-q -rA -p no:cacheprovider --maxfail={100 + list(UNSEEDED).index(name)}"
    shared.settle()
    shared.run(args)
    shared.settle()
    ran = shared.run(args)
    assert ran.level == "l0"
    assert reason in ran.colder


@pytest.mark.slow
def test_a_small_number_drawn_on_import_stays(shared: Started, project: Path) -> None:
    """From a generator of its own: the next cold run may get the same, so nothing is named by it."""
    drawn = "import random\nMINE = random.Random()\nFIRST = MINE.randint(10**6, 9 * 10**6)\n"
    edit(project, "pkg/late.py", None, drawn)
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    edit(project, "tests/test_it.py", "core.broken()", "assert pkg.late.FIRST > 10**5")
    same(shared, shared.resident())


@pytest.mark.slow
def test_what_may_not_be_resident_is_compiled_all_the_same(shared: Started, project: Path) -> None:
    """Level 0 imports the project anew in each run, and does not compile it anew."""
    edit(project, "conftest.py", None, COUNTING)
    compiled = "import sys; assert not [x for x in sys.seen if 'core.py' in str(x)]"
    edit(project, "tests/test_it.py", "core.broken()", compiled)
    shared.run()
    shared.settle()
    ran = shared.run()
    assert (ran.level, ran.code) == ("l0", 0), (ran.colder, ran.output)


COUNTING = """
import sys
sys.seen = []
sys.addaudithook(lambda event, about: event == "compile" and sys.seen.append(about[1]))
"""

REFUSED = {
    "thread": ("import threading\nthreading.Thread(target=int).start()\n", "start_new_thread"),
    "descriptor": ("import os\nKEPT = os.open('/', os.O_RDONLY)\n", "open descriptors"),
    "socket": ("import socket\nKEPT = socket.socket()\n", "open descriptors"),
    "file written": ("open('written', 'w').close()\n", "open for writing"),
    "process": ("import subprocess\nsubprocess.run(['true'])\n", "subprocess.Popen"),
    "profiler": ("import sys\nsys.setprofile(None)\n", "profiler"),
    "clock": ("import time\nSTARTED = time.time()\n", "time in "),
    "lock of several processes": (
        "import multiprocessing\nLOCK = multiprocessing.Lock()\n",
        "shares memory",
    ),
    "day": ("import datetime\nSTARTED = datetime.date.today()\n", "date.today in "),
    "process number": ("import os\nMINE = os.getpid()\n", "getpid in "),
}
# A process with the modules alone could not have these; pytest's own start makes them as it should.
HELD = {
    "variable": "import os\nos.environ['SET'] = '1'\n",
    "output": "print('hello')\n",
    "warning": "import warnings\nwarnings.warn('old')\n",
    "standard stream kept": "import sys\nOUT = sys.stdout\n",
    "search path": "import sys\nsys.path.append('/nowhere')\n",
    "logging": "import logging\nlogging.basicConfig()\n",
    "nameless file": "import tempfile\nKEPT = tempfile.TemporaryFile()\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HELD)
def test_what_only_a_start_of_pytest_can_have_done(
    name: str, shared: Started, project: Path
) -> None:
    """Such a project has no process with its modules alone, but one that pytest has started in."""
    edit(project, "pkg/late.py", None, HELD[name])
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    for args in ("-q -rA -p no:cacheprovider", "-s -rA -p no:cacheprovider"):
        ran = shared.resident(args)
        assert shared.cold(args).said == ran.said
        edit(project, "pkg/core.py", "return self.size", "return self.size  # again")
        ran = shared.run(args)
        assert (ran.level, shared.cold(args).said) == ("swap-l2", ran.said)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_fork_cannot_share_keeps_modules_from_being_resident(
    name: str, shared: Started, project: Path
) -> None:
    """Such a project is served a level below, and the reason is said."""
    text, reason = REFUSED[name]
    edit(project, "pkg/late.py", None, text)
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    args = f"-q -rA -p no:cacheprovider --tb=short --maxfail={100 + list(REFUSED).index(name)}"
    for _ in range(2):  # after the first there is a file more, which would be another reason
        shared.settle()
        shared.run(args)
    shared.settle()
    ran = shared.run(args)
    assert ran.level == "l0"
    assert reason in ran.colder
    (project / "written").unlink(missing_ok=True)
    assert shared.cold(args).said == ran.said


@pytest.mark.slow
def test_seeded_random_numbers_are_those_of_a_cold_run(shared: Started, project: Path) -> None:
    """A fork would reseed them."""
    edit(project, "pkg/late.py", None, "import random\nrandom.seed(7)\n")
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    edit(project, "tests/test_it.py", "core.broken()", "assert random.random() == 0")
    same(shared, shared.resident())
