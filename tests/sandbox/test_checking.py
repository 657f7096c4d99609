"""When warm verdicts are checked: without a sandbox, by a fake that holds still when told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.audited import Check, Finding, OnOutput
from tightloop.sandbox.checking import PATIENCE, Checks, Interruptible, background_tasks, words_of
from tightloop.sandbox.interface import Command, CommandResult, RunningCommand, SandboxError
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.verdicts import Verdict

RUN = Command(argv=["pytest"])
WARM = CommandResult(0, "", 0, 0, how="warm-pytest-l1")
GOOD = Verdict(0, {"a": "passed"})


@dataclass
class Auditor:
    """Says what it is told to, once ``go`` is set."""

    answers: list[Check | SandboxError]
    go: asyncio.Event = field(default_factory=asyncio.Event)
    num_begun: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(
        self,
        command: Command,
        warm: CommandResult,
        since_ns: int,
        *,
        is_background: bool = True,
        on_output: OnOutput | None = None,
    ) -> Check:
        """See ``audited.Auditor.check``."""
        self.num_begun += 1
        self.begun.set()
        await self.go.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, SandboxError):
            raise answer
        return answer


@pytest_asyncio.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Where checks run."""
    async with background_tasks() as group:
        yield group


def checks_by(auditor: Auditor, tasks: asyncio.TaskGroup, sandbox: PersistentSandbox) -> Checks:
    """Without a pause before them."""
    return Checks(auditor, Interruptible(sandbox), tasks, 0.0)


def after(checks: Checks) -> str:
    """A warm verdict is out."""
    return checks.after(RUN, WARM, 0, GOOD)


async def over(checks: Checks) -> None:
    """The check is over."""
    if checks.task is not None:
        await asyncio.wait([checks.task])


async def test_what_a_check_came_to_is_told(tasks: asyncio.TaskGroup, opened: OpenSandbox) -> None:
    """In the line after the next run; what a person must hear of is kept until it is told."""
    wrong = Check(Finding.WRONG)
    auditor = Auditor([Check(Finding.AGREED), wrong])
    auditor.go.set()
    checks = checks_by(auditor, tasks, await opened())
    assert after(checks) == "provisional, a cold run will check it"
    assert checks.is_under_way
    await over(checks)
    assert (checks.is_under_way, checks.news) == (False, [])
    assert after(checks).startswith("provisional; the last check agreed at ")
    checks.take(wrong, words_of(RUN))
    assert checks.news == [wrong]
    assert checks.last.startswith("the last check wrong at ")


async def test_a_check_gives_way_and_is_made_again(
    tasks: asyncio.TaskGroup, opened: OpenSandbox
) -> None:
    """The next verdict is due, although it is the same as before; not so for ever."""
    auditor = Auditor([Check(Finding.AGREED)])
    checks = checks_by(auditor, tasks, await opened())
    for number in range(1, PATIENCE + 1):
        auditor.begun.clear()
        assert "will check" in after(checks)
        await auditor.begun.wait()
        assert auditor.num_begun == number
        await checks.give_way()
        assert not checks.is_under_way
    auditor.begun.clear()
    after(checks)
    await auditor.begun.wait()
    giving_way = asyncio.create_task(checks.give_way())
    auditor.go.set()
    await giving_way
    assert checks.last.startswith("the last check agreed")


async def test_one_that_was_broken_off_before_it_began_is_made_again(
    tasks: asyncio.TaskGroup, opened: OpenSandbox
) -> None:
    """Its coroutine has not run a line then."""
    auditor = Auditor([])
    checks = checks_by(auditor, tasks, await opened())
    after(checks)
    await checks.give_way()
    assert auditor.num_begun == 0
    assert "will check" in after(checks)
    await checks.give_way()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Check(Finding.VOID, note="x.py changed"), "the last check says nothing: x.py changed"),
        (SandboxError("it died"), "the last check failed: it died"),
    ],
)
async def test_a_check_that_says_nothing_is_made_again(
    tasks: asyncio.TaskGroup, opened: OpenSandbox, answer: Check | SandboxError, words: str
) -> None:
    """And told as that."""
    auditor = Auditor([answer, Check(Finding.AGREED)])
    auditor.go.set()
    checks = checks_by(auditor, tasks, await opened())
    after(checks)
    await over(checks)
    assert checks.last == words
    assert "will check" in after(checks)
    await over(checks)


async def test_two_runs_at_once_are_not_checked_together(
    tasks: asyncio.TaskGroup, opened: OpenSandbox
) -> None:
    """One check at a time, none beside a run; what was not checked is due again."""
    auditor = Auditor([Check(Finding.AGREED)])
    is_quiet = False
    checks = Checks(auditor, Interruptible(await opened()), tasks, 0.0, lambda: is_quiet)
    after(checks)
    await over(checks)
    assert auditor.num_begun == 0
    is_quiet = True
    assert "will check" in after(checks)
    other = Command(argv=["pytest", "other"])
    assert checks.after(other, WARM, 0, GOOD) == "provisional, another run is being checked"
    auditor.go.set()
    await over(checks)
    assert "will check" in checks.after(other, WARM, 0, GOOD)
    await checks.give_way(is_last=True)


async def test_what_runs_is_known_and_can_be_interrupted(opened: OpenSandbox) -> None:
    """From its start to its end; cancelling ends it."""
    sandbox = await opened()
    runner = Interruptible(sandbox)
    seen: list[bool] = []
    begun = asyncio.Event()

    def on_change(run: RunningCommand | None) -> None:
        seen.append(run is not None)
        begun.set()

    runner.on_change = on_change
    assert (await runner.run(Command(argv=["true"]))).exit_code == 0
    assert (seen, runner.running) == ([True, False], None)
    begun.clear()
    task = asyncio.create_task(runner.run(Command(script="sleep 600")))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runner.running is None


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    """Not in a group; the tasks have ended."""
    ended = asyncio.Event()

    async def one() -> None:
        ended.set()

    async def block() -> None:
        async with background_tasks() as group:
            group.create_task(one())
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await block()
    assert ended.is_set()
