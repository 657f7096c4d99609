"""Checks beside a conversation, with real programs in a real sandbox."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sandbox.conftest import commit, git
from tightloop.harness.checks.running import Checks, CheckSetting, open_checks
from tightloop.harness.checks.settings import Check
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace

BIN = Path(sys.executable).parent
RUFF = Check(name="ruff", command=f"{BIN}/ruff check --no-cache --isolated .", paths=("*.py",))
GREP = Check(name="grep", command="! grep -Hn BAD *.txt")
FILES = {"m.py": "import sys\n\nprint(sys)\n", "a.txt": "fine\n"}


@dataclass
class Rig:
    """What can be looked at."""

    checks: Checks
    workspace: Workspace
    notes: list[str]

    def write(self, name: str, text: str) -> None:
        """As a patch does it."""
        (self.workspace.path / name).write_text(text)
        self.checks.changed((name,))


@asynccontextmanager
async def rig_over(
    place: Path,
    checks: list[Check],
    files: Mapping[str, str] = FILES,
    *,
    kind: str = "bubblewrap",
    workspace_kind: str | None = None,
    ready: Callable[[], Awaitable[object]] | None = None,
    **policy: object,
) -> AsyncIterator[Rig]:
    repository = place / "repo"
    repository.mkdir()
    for name, text in files.items():
        (repository / name).write_text(text)
    git(repository, "init", "-q", "-b", "main")
    commit(repository)
    workspace = await open_workspace(repository, state_dir=place / "state", kind=workspace_kind)
    notes: list[str] = []

    async def open_one(other: Policy) -> PersistentSandbox:
        return await open_sandbox(other, kind=kind)

    settings = {"read_only": (Path(sys.prefix), Path(sys.base_prefix)), **policy}
    whole = Policy(workspace.path, warm_tests=False, **settings)  # type: ignore[arg-type]
    setting = CheckSetting(workspace, whole, kind, open_one, note=notes.append, ready=ready)
    try:
        async with open_checks(checks, setting) as running:
            yield Rig(running, workspace, notes)
    finally:
        await workspace.discard()


def texts(rig: Rig) -> list[str]:
    """The news without what each begins with."""
    return [text.partition("user] ")[2] for text in rig.checks.take_news()]


async def until_running(rig: Rig, name: str) -> None:
    async with asyncio.timeout(60):
        await rig.checks.until_running(name)


async def test_what_a_patch_broke_and_what_it_mended(tmp_path: Path) -> None:
    """What was wrong before is nobody's news; each fact is told once, at whatever line it is."""
    files = {"m.py": "import os\n", "a.txt": "BAD\n"}
    async with rig_over(tmp_path, [RUFF, GREP], files) as rig:
        await rig.checks.quiet()
        assert (texts(rig), rig.checks.state) == ([], "ruff 1, grep 1")
        rig.write("m.py", "\n\nimport os\nimport sys\n")
        await rig.checks.quiet()
        assert texts(rig) == [
            "ruff: 1 new since your change: m.py:4: F401 [*] `sys` imported but unused"
        ]
        assert rig.checks.state == "ruff 2, grep 1"
        rig.write("m.py", "import sys\n\nprint(sys)\n")
        rig.write("a.txt", "fine\n")
        await rig.checks.quiet()
        assert texts(rig) == ["ruff: 1 resolved: m.py:4: F401 [*] `sys` imported but unused"]
        assert rig.checks.state == "ruff ok, grep ok"
        assert (rig.checks.figures.num_new, rig.checks.figures.num_resolved) == (1, 1)


@pytest.mark.timeout(300)  # at the lowest priority, beside whatever else runs here
async def test_mypy(tmp_path: Path) -> None:
    """In a copy that lives on, so that it finds its cache; the workspace gets none of that."""
    files = {"m.py": "def two() -> int:\n    return 2\n"}
    types = Check(name="types", command=f"{BIN}/mypy --strict m.py", timeout_s=250)
    async with rig_over(tmp_path, [types], files) as rig:
        await rig.checks.quiet()
        assert rig.checks.state == "types ok"
        rig.write("m.py", "def two() -> int:\n    return 'two'\n")
        await rig.checks.quiet()
        assert texts(rig) == [
            "types: 1 new since your change: m.py:2: Incompatible return value type (got "
            '"str", expected "int")  [return-value]'
        ]
        assert sorted(path.name for path in rig.workspace.path.iterdir()) == [".git", "m.py"]


@pytest.mark.timeout(300)
async def test_pytest(tmp_path: Path) -> None:
    """Two edits of one size within one second: what runs is never the code of before."""
    files = {
        "m.py": "def two():\n    return 2\n",
        "test_m.py": "import m\n\n\ndef test_two():\n    assert m.two() == 2\n",
    }
    tests = Check(name="tests", command=f"{BIN}/python -m pytest -q", timeout_s=250)
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    async with rig_over(tmp_path, [tests], files, environment=environment) as rig:
        await rig.checks.quiet()
        assert rig.checks.state == "tests ok"
        rig.write("m.py", "def two():\n    return 3\n")
        await rig.checks.quiet()
        assert texts(rig) == [
            "tests: 1 new since your change: test_m.py: test_two failed: assert 3 == 2"
        ]
        rig.write("m.py", "def two():\n    return 2\n")
        await rig.checks.quiet()
        assert texts(rig) == ["tests: 1 resolved: test_m.py: test_two failed: assert 3 == 2"]


async def test_the_first_result_is_of_the_tree_before_the_first_patch(tmp_path: Path) -> None:
    """Also if the patch comes before anything has run."""
    ready = asyncio.Event()
    async with rig_over(tmp_path, [GREP], ready=ready.wait) as rig:
        rig.write("a.txt", "BAD\n")
        assert rig.checks.state == "grep running"
        ready.set()
        await rig.checks.quiet()
        assert texts(rig) == ["grep: 1 new since your change: a.txt:1: BAD"]


async def test_a_later_patch_makes_a_run_stale(tmp_path: Path) -> None:
    """It is cut short and counted as wasted; what both patches broke is told once."""
    slow = Check(name="slow", command="grep -q SLOW a.txt && exec sleep 600; ! grep -Hn BAD *.txt")
    runs: list[tuple[str, str]] = []
    async with rig_over(tmp_path, [slow]) as rig:
        await rig.checks.quiet()
        rig.checks.attach(lambda run: runs.append((run.name, run.reason)))
        rig.write("a.txt", "SLOW\n")
        await until_running(rig, "slow")
        rig.write("b.txt", "BAD\n")
        rig.write("a.txt", "BAD\n")
        await rig.checks.quiet()
        assert texts(rig) == ["slow: 2 new since your change:\n  a.txt:1: BAD\n  b.txt:1: BAD"]
        assert runs == [
            ("slow", ""),
            ("slow", "a later change made it stale"),
            ("slow", ""),
        ]
        figures = rig.checks.figures
        assert (figures.num_used, figures.num_wasted) == (2, 1)


async def test_only_what_a_patch_touched(tmp_path: Path) -> None:
    async with rig_over(tmp_path, [RUFF, GREP]) as rig:
        await rig.checks.quiet()
        rig.write("a.md", "text\n")
        await rig.checks.quiet()
        assert rig.checks.figures.num_used == 3  # two for the tree as it was, and grep


async def test_what_the_user_broke_is_not_news(tmp_path: Path) -> None:
    async with rig_over(tmp_path, [GREP]) as rig:
        await rig.checks.quiet()
        (tmp_path / "repo" / "user.txt").write_text("BAD\n")
        assert (await rig.workspace.follow()).taken == ("user.txt",)
        rig.checks.renewed()
        await rig.checks.quiet()
        assert (texts(rig), rig.checks.state) == ([], "grep 1")
        rig.write("a.txt", "BAD\n")
        await rig.checks.quiet()
        assert texts(rig) == ["grep: 1 new since your change: a.txt:1: BAD"]


async def test_a_turn_waits_for_what_is_to_run_at_its_end(tmp_path: Path) -> None:
    """Only when something was touched; what is resolved is no objection."""
    late = Check(name="late", command=GREP.command, after="turn", paths=("*.txt",))
    async with rig_over(tmp_path, [late]) as rig:
        rig.checks.begin_turn("")
        assert await rig.checks.objections() is None
        rig.write("a.txt", "BAD\n")
        rig.write("m.py", "")
        found = await rig.checks.objections()
        assert found is not None
        assert "late: 1 new since your change: a.txt:1: BAD" in found[0]
        assert await rig.checks.objections() is None
        rig.write("a.txt", "fine\n")
        assert await rig.checks.objections() == []
        assert texts(rig) == ["late: 1 resolved: a.txt:1: BAD"]
        assert await rig.checks.finish_turn() == []
        figures = rig.checks.check_figures()
        assert figures is not None
        assert (figures.num_new, figures.num_resolved) == (1, 1)
        rig.checks.begin_turn("")
        assert rig.checks.check_figures() is None
        assert rig.checks._runs == []  # a long session does not grow by them, and
        assert (rig.checks.figures.num_new, rig.checks.figures.num_resolved) == (1, 1)


async def test_between_turns_a_person_is_told(tmp_path: Path) -> None:
    async with rig_over(tmp_path, [GREP]) as rig:
        await rig.checks.quiet()
        rig.write("a.txt", "BAD\n")
        await rig.checks.quiet()
        assert len(rig.notes) == 1
        assert "grep: 1 new" in rig.notes[0]
        assert len(rig.checks.take_news()) == 1  # the model is, too, when there is a turn


async def test_what_a_check_does_stays_in_its_copy(tmp_path: Path) -> None:
    """A formatter's work is undone before the next run; niceness is high; there is no network."""
    host = os.readlink("/proc/self/ns/net")
    command = (
        f'echo more >> a.txt; test "$(nice)" -ge 10 && test "$(readlink /proc/self/ns/net)" != {host}'
        " && test $(wc -l < a.txt) -eq 2"
    )
    check = Check(name="writes", command=command)
    async with rig_over(tmp_path, [check], allow_network=True) as rig:
        await rig.checks.quiet()
        assert rig.checks.state == "writes ok"
        rig.write("b.txt", "x\n")
        await rig.checks.quiet()
        assert rig.checks.state == "writes ok"
        assert (rig.workspace.path / "a.txt").read_text() == "fine\n"
        assert await rig.workspace.changed_files() == ["b.txt"]


async def test_what_cannot_be_run_is_said_once(tmp_path: Path) -> None:
    checks = [
        Check(name="missing", command="no-such-program"),
        Check(name="endless", command="sleep 600", timeout_s=0.1),
        Check(name="killed", command="kill -9 $$"),
        GREP,
    ]
    async with rig_over(tmp_path, checks) as rig:
        await rig.checks.quiet()
        assert [note.partition(": ")[2].partition(":")[0] for note in rig.notes] == [
            "it cannot be run",
            "it took longer than timeout_s = 0.1",
            "it was ended by signal 9",
        ]
        assert rig.checks.state == "missing off, grep ok"
        rig.write("a.txt", "BAD\n")
        await rig.checks.quiet()
        assert len([note for note in rig.notes if "missing" in note]) == 1
        assert "grep: 1 new" in texts(rig)[0]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "none"}, "in the none isolation they could leave traces"),
        ({"workspace_kind": "copy"}, "the workspace is a copy"),
        ({"is_read_only": True}, "nothing may be changed"),
    ],
)
async def test_where_there_is_no_copy_to_be_had(
    tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    """They are off, and that is said; without checks nothing is."""
    async with rig_over(tmp_path, [GREP], **settings) as rig:  # type: ignore[arg-type]
        assert [f"checks are off: {reason}" in note for note in rig.notes] == [True]
        rig.write("a.txt", "BAD\n")
        await rig.checks.quiet()
        assert (rig.checks.take_news(), rig.checks.state) == ([], "")
        assert await rig.checks.objections() is None


async def test_without_checks_nothing_is_opened(tmp_path: Path) -> None:
    async with rig_over(tmp_path, []) as rig:
        assert len(list((tmp_path / "state" / "workspaces").iterdir())) == 1
        rig.write("a.txt", "BAD\n")
        await rig.checks.quiet()
        assert (rig.notes, rig.checks.check_figures()) == ([], None)


async def test_the_end_comes_at_any_time(tmp_path: Path) -> None:
    """While a check runs, and while its copy is being opened; nothing is left of either."""
    for number, is_running in enumerate((True, False)):
        place = tmp_path / str(number)
        place.mkdir()
        runs: list[str] = []
        async with rig_over(place, [Check(name="endless", command="sleep 600")]) as rig:
            rig.checks.attach(lambda run, runs=runs: runs.append(run.reason))  # type: ignore[misc]
            if is_running:
                await until_running(rig, "endless")
        assert runs == (["the conversation ended"] if is_running else [])
        assert list((place / "state" / "workspaces").iterdir()) == []
