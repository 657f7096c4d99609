"""Runs with the project's modules resident must say what cold ones say, at the expected level."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.warm.started import Ran, Started

FILES = {
    "pytest.ini": "[pytest]\n",
    "data.txt": "3\n",
    "unread.txt": "3\n",
    "pkg/__init__.py": "from pkg import core\n",
    "pkg/core.py": """\
import pathlib

LIMIT = 3


def plain(x, y=1):
    return x + y


def ran():
    return LIMIT


class Thing:
    size = 2

    def method(self):
        return self.size

    def documented(self):
        "Says two."
        return 2


match LIMIT:
    case 3:

        def matched():
            return 3


def broken():
    raise ValueError(3)


def outer():
    def inner():
        return 5

    return inner


START = ran()
DATA = (pathlib.Path(__file__).parents[1] / "data.txt").read_text()
made = outer()
DOCUMENTED = Thing.documented.__doc__
""",
    "pkg/lazy.py": """\
def numbers():
    yield 1


def other():
    return 1


PENDING = numbers()
""",
    "pkg/late.py": "def value():\n    return 1\n",
    "helper.py": "try:\n    import optional\nexcept ImportError:\n    optional = None\n",
    "tests/conftest.py": """\
import pytest


@pytest.fixture
def three():
    return 3
""",
    "tests/test_it.py": """\
import inspect
import random

import helper
import pkg
from pkg import core, lazy


def test_plain(three):
    assert core.plain(three) == 4


def test_method():
    assert core.Thing().method() == 2


def test_matched():
    assert core.matched() == 3


def test_started():
    assert (core.START, core.DATA, core.DOCUMENTED) == (3, "3\\n", "Says two.")


def test_closure():
    assert core.made() == 5


def test_pending():
    assert [next(lazy.PENDING), lazy.other()] == [1, 1]


def test_lines():
    core.broken()


def test_source():
    assert inspect.getsource(core.plain) == "def plain(x, y=1):\\n    return x + y\\n"


def test_late():
    from pkg import late

    assert late.value() == 1


def test_optional():
    assert helper.optional is None
""",
}
# What is edited, how, and the level at which the next run takes place.
EDITS = {
    "nothing": ("unread.txt", "", "", "l2"),
    "comment": ("pkg/core.py", "LIMIT = 3", "# a remark\n\nLIMIT = 3", "swap-l2"),
    "body": ("pkg/core.py", "return x + y", "return x - y", "swap-l2"),
    "method": ("pkg/core.py", "return self.size", "return self.size + 1", "swap-l2"),
    "body and lines": ("pkg/core.py", "return self.size", "a = 1\n\n        return a", "swap-l2"),
    "error in another line": ("pkg/core.py", "    raise V", "\n\n    raise V", "swap-l2"),
    "under match": ("pkg/core.py", "            return 3", "            return 4", "swap-l2"),
    "two functions": ("pkg/core.py", "return x + y\n\n\ndef ran", "return 4\n\n\ndef ran", "swap-l2"),
    "body of what ran": ("pkg/core.py", "return LIMIT", "return LIMIT + 1", "l0"),
    "closure made on import": ("pkg/core.py", "return 5", "return 6", "l0"),
    "default": ("pkg/core.py", "y=1", "y=2", "l0"),
    "annotation": ("pkg/core.py", "plain(x,", "plain(x: int,", "l0"),
    "decorator": ("pkg/core.py", "def plain", "@staticmethod\ndef plain", "l0"),
    "argument": ("pkg/core.py", "plain(x, y=1)", "plain(z, y=1)", "l0"),
    "async": ("pkg/core.py", "def plain", "async def plain", "l0"),
    "constant": ("pkg/core.py", "LIMIT = 3", "LIMIT = 4", "l0"),
    "import": ("pkg/core.py", "import pathlib", "import pathlib, json", "l0"),
    "class attribute": ("pkg/core.py", "size = 2", "size = 3", "l0"),
    "function added": ("pkg/core.py", "def ran", "def more():\n    pass\n\n\ndef ran", "l0"),
    "function renamed": ("pkg/core.py", "def plain", "def fancy", "l0"),
    "docstring": ("pkg/core.py", "Says two.", "Says one.", "l0"),
    "yield": ("pkg/core.py", "return x + y", "yield x + y", "l0"),
    "super": ("pkg/core.py", "return self.size", "return super().__sizeof__() * 0", "l0"),
    "syntax error": ("pkg/core.py", "return x + y", "return x +", "l0"),
    "compiler warning": ("pkg/core.py", "return x + y", "return x is 3", "l0"),
    "generator that waits": ("pkg/lazy.py", "yield 1", "yield 2", "l0"),
    "beside a generator that waits": ("pkg/lazy.py", "return 1", "return 2", "l0"),
    "imported by a test only": ("pkg/late.py", "return 1", "return 2", "l2"),
    "test": ("tests/test_it.py", "== 4", "== 5", "l1"),
    "test added": ("tests/test_it.py", "def test_late", "def test_n():\n    pass\n\n\ndef test_late", "l1"),
    "import of a test": ("tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n", "l0"),
    "import of a test gone": ("tests/test_it.py", "import core, lazy", "import core", "l0"),
    "test that changes a module": ("tests/test_it.py", "def test_p", "core.LIMIT = 9\n\n\ndef test_p", "l0"),
    "syntax error in a test": ("tests/test_it.py", "== 4", "== ", "l0"),
    "fixture": ("tests/conftest.py", "return 3", "return 4", "l1"),
    "conftest that sets a variable": ("tests/conftest.py", "import pytest", "import os, pytest\nos.environ['A'] = '1'", "l0"),
    "files to leave out": ("tests/conftest.py", "import pytest", "import pytest\ncollect_ignore = ['test_it.py']", "l0"),
    "data that was read": ("data.txt", "3", "4", "l0"),
    "data that was not read": ("unread.txt", "3", "4", "l2"),
    "configuration": ("pytest.ini", "[pytest]", "[pytest]\naddopts = -v", "l0"),
    "new module that an import finds": ("optional.py", None, "x = 1\n", "l0"),
    "new test": ("tests/test_new.py", None, "def test_new():\n    pass\n", "l0"),
    "module gone": ("pkg/late.py", None, None, "l0"),
}  # fmt: skip


def write(place: Path, files: dict[str, str]) -> None:
    """The files, and nothing else but the environment."""
    for path in place.iterdir():
        if path.name != ".venv":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


def edit(place: Path, name: str, old: str | None, new: str | None) -> None:
    """One edit; a file is removed when there is no new text, made when there is no old one."""
    path = place / name
    if new is None:
        path.unlink()
    elif old is None:
        path.write_text(new)
    else:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One resident interpreter; the tests share its directory one after the other."""
    started = Started(tmp_path_factory.mktemp("resident"))
    yield started
    started.end()


@pytest.fixture
def project(shared: Started) -> Path:
    """The project as it is before the edit."""
    write(shared.workspace, FILES)
    return shared.workspace


def same(started: Started, ran: Ran) -> Ran:
    """A run that says what a cold one says now."""
    assert started.cold().said == ran.said, ran
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_every_edit_has_its_level_and_the_verdict_of_a_cold_run(
    name: str, shared: Started, project: Path
) -> None:
    """The table of the design note, edit by edit, against a fresh process for each."""
    shared.resident()
    path, old, new, level = EDITS[name]
    edit(project, path, old, new)
    ran = shared.run()
    assert (ran.level, bool(ran.colder)) == (level, level in ("l0", "l1")), ran.colder
    same(shared, ran)


@pytest.mark.slow
def test_edits_add_up_and_can_be_taken_back(shared: Started, project: Path) -> None:
    """Each run starts from what was imported, not from the run before."""
    core = project / "pkg" / "core.py"
    original = core.read_text()
    assert same(shared, shared.resident()).code == 1
    edit(project, "pkg/core.py", "return x + y", "return 0")
    assert same(shared, shared.run()).level == "swap-l2"
    edit(project, "pkg/core.py", "return self.size", "return 1")
    edit(project, "tests/test_it.py", "== 2", "== 1")
    ran = same(shared, shared.run())
    assert (ran.level, ran.tests["tests/test_it.py::test_method"]) == ("swap", "passed")
    shared.settle()  # pytest has started anew, with the test as it is now
    core.write_text(original)
    ran = same(shared, shared.run())
    assert (ran.level, ran.tests["tests/test_it.py::test_method"]) == ("swap-l2", "failed")


@pytest.mark.slow
def test_edits_of_one_size_and_time_are_seen(shared: Started, project: Path) -> None:
    """Neither size nor modification time is believed."""
    core = project / "pkg" / "core.py"
    shared.resident()
    old = core.stat()
    for value in "678":
        core.write_text(core.read_text().replace("return x + y", f"return {value} + y"))
        core.write_text(core.read_text().replace("return 6 + y", "return x * y"))
        os.utime(core, ns=(old.st_atime_ns, old.st_mtime_ns))
        ran = same(shared, shared.run())
        assert (ran.level, ran.tests["tests/test_it.py::test_plain"]) == ("swap-l2", "failed")
        core.write_text(FILES["pkg/core.py"])


@pytest.mark.slow
def test_after_a_colder_run_the_next_is_warm_again(shared: Started, project: Path) -> None:
    """The project is imported anew in the background."""
    shared.resident()
    edit(project, "pkg/core.py", "y=1", "y=2")
    assert shared.run().level == "l0"
    shared.settle()
    assert same(shared, shared.run()).level == "l2"
    edit(project, "pkg/core.py", "return x + y", "return x - y")
    assert same(shared, shared.run()).level == "swap-l2"


@pytest.mark.slow
def test_a_refresh_imports_anew_before_anybody_asks(shared: Started, project: Path) -> None:
    """Also when the tests have changed: starting pytest finds out what they import."""
    shared.resident()
    edit(project, "pkg/core.py", "y=1", "y=2")
    shared.refresh()
    assert same(shared, shared.run()).level == "l2"
    edit(project, "tests/test_it.py", "import pkg\n", "import pkg, pkg.late\n")
    shared.refresh()
    assert same(shared, shared.run()).level == "l2"


@pytest.mark.slow
def test_another_command_has_modules_of_its_own(shared: Started, project: Path) -> None:
    """What one selection imports, another may not see."""
    write(project, {**FILES, "tests/test_lazy.py": "import sys\nimport pkg\ndef test_a():\n"
                    "    assert 'pkg.lazy' not in sys.modules\n"})  # fmt: skip
    shared.resident()
    args = "-q -rA -p no:cacheprovider tests/test_lazy.py"
    assert shared.run(args).level == "l0"
    ran = shared.resident(args)
    assert (ran.code, ran.said) == (0, shared.cold(args).said)


@pytest.mark.slow
def test_a_run_does_not_touch_the_next(shared: Started, project: Path) -> None:
    """Variables, paths, directory and the project's own state are the child's."""
    (project / "tests" / "test_it.py").write_text(
        "import os, sys\nimport pkg\nfrom pkg import core\n\n\ndef test_first():\n"
        "    assert 'MINE' not in os.environ and core.LIMIT == 3 and '/mine' not in sys.path\n"
        "    os.environ['MINE'] = '1'; core.LIMIT = 4; sys.path.insert(0, '/mine')\n"
        "    os.chdir('/')\n"
    )
    ran = shared.resident()
    for _ in range(3):  # by the next process that pytest has started in, if it is ready
        assert (ran.level, ran.code) in (("l1", 0), ("l2", 0)), ran
        ran = shared.run()


@pytest.mark.slow
def test_outcomes_come_per_test(shared: Started, project: Path) -> None:
    """Also from swapped code."""
    shared.resident()
    edit(project, "pkg/core.py", "return x + y", "return 0")
    ran = shared.run()
    failed = {
        name.rpartition("::")[2] for name, outcome in ran.tests.items() if outcome == "failed"
    }
    assert failed == {"test_plain", "test_lines", "test_source"}
    assert len(ran.tests) == 10


@pytest.mark.slow
def test_the_death_of_the_process_with_the_modules_costs_no_run(
    tmp_path: Path,
) -> None:
    """Killed while nothing runs, they are made again; killed by its own run, all ends for the caller
    to see, as when the bare process is killed."""
    started = Started(tmp_path)
    try:
        write(started.workspace, FILES)
        started.resident()
        children = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children")
        for pid in children.read_text().split():
            os.kill(int(pid), 9)
        ran = same(started, started.run())
        assert ran.level == "l0"
        started.settle()
        assert started.run().level == "l2"
    finally:
        started.end()


LATE_PLUGIN = """\
def pytest_terminal_summary():
    import imported_late
    assert imported_late.__name__
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_with_modules", [True, False])
def test_what_plugins_import_at_the_end_is_held_by_processes_built_early_too(
    is_with_modules: bool, tmp_path: Path
) -> None:
    """The first run comes before that is known, and the processes that it leads to as well."""
    started = Started(tmp_path)
    try:
        packages = next(tmp_path.glob(".venv/lib/*/site-packages"))
        write(tmp_path, FILES)
        if is_with_modules:  # a plugin that is not known has no process that pytest has started in
            (packages / "late_plugin.py").write_text(LATE_PLUGIN)
            (packages / "late_plugin-1.dist-info").mkdir()
            entry = "[pytest11]\nlate_plugin = late_plugin\n"
            (packages / "late_plugin-1.dist-info" / "entry_points.txt").write_text(entry)
            meta = "Metadata-Version: 2.1\nName: late-plugin\nVersion: 1\n"
            (packages / "late_plugin-1.dist-info" / "METADATA").write_text(meta)
        (packages / "imported_late.py").write_text("")
        started.end()
        started = Started(tmp_path)
        held = "imported_late" if is_with_modules else "sqlite3"
        edit(tmp_path, "tests/test_it.py", "import random\n", "import random\nimport sys\n")
        edit(tmp_path, "tests/test_it.py", "core.broken()", f"assert {held!r} not in sys.modules")
        first = started.run()
        assert (first.level, first.tests["tests/test_it.py::test_lines"]) == ("l0", "passed")
        started.settle()
        ran = started.run()
        assert ran.level == ("l1" if is_with_modules else "l2"), ran.colder
        assert ran.tests["tests/test_it.py::test_lines"] == "failed", ran
    finally:
        started.end()
