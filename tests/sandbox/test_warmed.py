"""Warm commands with their checks, and the sandbox that an agent sees; dmypy for real."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.audited import Finding
from tightloop.sandbox.checking import background_tasks
from tightloop.sandbox.interface import Command, SandboxError
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.sweep import file_time_ns
from tightloop.sandbox.warmed import (
    CheckedCommand,
    Place,
    WarmedSandbox,
    checked_commands,
    with_warm_commands,
)

WRONG = '[warm.look]\ncold = "cat answer"\nwarm = "echo two"\n'
TOOLS = Path(sys.executable).parent
MYPY = f"""\
[warm.mypy]
cold = "{TOOLS}/mypy --cache-dir=/tmp/cold core.py"
start = "{TOOLS}/dmypy --status-file /tmp/dmypy.json start -- --cache-dir=/tmp/warm"
warm = "{TOOLS}/dmypy --status-file /tmp/dmypy.json check core.py"
stop = "{TOOLS}/dmypy --status-file /tmp/dmypy.json stop"
"""


@pytest.fixture
def place(workspace: Path, tmp_path: Path) -> Place:
    """A workspace that is the repository itself."""
    (workspace / "answer").write_text("one\n")
    return Place(workspace, workspace, tmp_path / "state")


@pytest_asyncio.fixture
async def sandbox(opened: OpenSandbox) -> PersistentSandbox:
    """On the workspace."""
    return await opened()


@pytest_asyncio.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Where checks run."""
    async with background_tasks() as group:
        yield group


def age() -> None:
    """What was written so far is older than the tick of the clock that stamps files."""
    begun_ns = file_time_ns()
    while file_time_ns() == begun_ns:
        pass


def only(commands: dict[str, CheckedCommand]) -> CheckedCommand:
    """The one that there is."""
    [one] = commands.values()
    return one


async def test_a_wrong_answer_is_found_and_is_the_last(
    place: Place, sandbox: PersistentSandbox, tasks: asyncio.TaskGroup
) -> None:
    """The cold command counts at once; later ones are cold, also of another session, until allowed."""
    (place.workspace / ".tightloop.toml").write_text(WRONG)
    age()
    one = only(checked_commands(place, sandbox, tasks, 0.0))
    asked = Command(script="cat answer")
    checked = await one.run(asked, runner=sandbox, mode="audit")
    assert checked.check is not None
    assert checked.check.finding is Finding.WRONG
    assert str(checked.check.found[0]) == "line 1 of the output: 'two' warm, 'one' cold"
    assert (checked.answer.result.output, checked.result.output) == ("two\n", "one\n")
    other = only(checked_commands(place, sandbox, tasks, 0.0))
    for again in (one, other):
        checked = await again.run(asked, runner=sandbox)
        assert checked.answer.note.startswith("its warm answer was wrong once: line 1")
    assert other.shut_off.turn_on(place.repository)
    assert (await one.run(asked, runner=sandbox, mode="cold")).answer.note == "asked for"
    assert (await one.run(asked, runner=sandbox)).answer.is_warm
    await one.close()


async def test_an_agents_sandbox_runs_the_warm_form(
    place: Place, sandbox: PersistentSandbox
) -> None:
    """Everything else is as it was; a wrong answer is noted, and the next one is cold."""
    (place.workspace / ".tightloop.toml").write_text(WRONG)
    age()
    notes: list[str] = []
    heard: list[bytes] = []
    async with with_warm_commands(sandbox, place, notes.append, quiet_s=0.0) as warmed:
        assert warmed.kind == "bubblewrap"
        result = await warmed.run(Command(script="cat answer"), heard.append)
        assert (result.how, result.output, heard) == ("warm-command-look", "two\n", [b"two\n"])
        assert isinstance(warmed, WarmedSandbox)
        await warmed.checked()
        assert (await warmed.run(Command(script="echo other"))).output == "other\n"
        result = await warmed.run(Command(script="cat answer"))
        assert (result.how, result.output) == ("spawn", "one\n")
    assert len(notes) == 1
    assert notes[0].startswith("warm command look: its answer was wrong, it is off from now on")


async def test_without_tables_nothing_is_in_between(
    place: Place, sandbox: PersistentSandbox
) -> None:
    """And a table that cannot be understood is told before anything runs."""
    async with with_warm_commands(sandbox, place, print) as warmed:
        assert warmed is sandbox
    (place.workspace / ".tightloop.toml").write_text("[warm.x]\n")
    with pytest.raises(SandboxError, match="known keys"):
        async with with_warm_commands(sandbox, place, print):
            raise AssertionError("it was opened")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_real_checkers_daemon_says_what_it_says(
    place: Place, sandbox: PersistentSandbox
) -> None:
    """Before and after an edit that makes an error; one dmypy for the session, none after it."""
    workspace = place.workspace
    (workspace / ".tightloop.toml").write_text(MYPY)
    core = workspace / "core.py"
    core.write_text("x: int = 1\n")
    async with background_tasks() as tasks:
        one = only(checked_commands(place, sandbox, tasks))
        asked = Command(script=one.command.table.cold)
        first = await one.run(asked, runner=sandbox)
        assert (first.result.exit_code, first.answer.note) == (0, "first use")
        await one.command.settle()
        core.write_text("x: int = 'a'\n")
        checked = await one.run(asked, runner=sandbox, mode="audit")
        assert checked.answer.is_warm, checked
        assert checked.check is not None
        assert checked.check.finding is Finding.AGREED, checked.check
        assert checked.result.exit_code == 1
        assert "Incompatible types" in checked.answer.result.output
        await one.close()
    look = Command(script="grep -hz '[d]mypy' /proc/[0-9]*/cmdline 2>/dev/null")
    assert (await sandbox.run(look)).output == ""


async def test_a_warm_pass_is_not_the_last_word(place: Place, sandbox: PersistentSandbox) -> None:
    """What passed warm is run cold before it is relied on, once; a warm failure needs no proof."""
    table = '[warm.look]\ncold = "test -e there"\nwarm = "exit 0"\n'
    table += '[warm.fail]\ncold = "true"\nwarm = "exit 1"\n'
    (place.workspace / ".tightloop.toml").write_text(table)
    async with with_warm_commands(sandbox, place, print, quiet_s=1000.0) as warmed:
        assert isinstance(warmed, WarmedSandbox)
        assert await warmed.confirm() is None
        look = Command(script="test -e there")
        assert (await warmed.run(look)).exit_code == 0
        assert (await warmed.run(Command(script="true"))).exit_code == 1
        confirmed = await warmed.confirm()
        assert confirmed is not None
        assert [(asked, cold.exit_code) for asked, cold in confirmed] == [(look, 1)]
        assert await warmed.confirm() is None
        (place.workspace / "there").touch()
        await warmed.run(look)
        assert await warmed.confirm() == []
