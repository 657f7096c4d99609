"""When warm verdicts of one session are checked, and what came of it so far.

A check runs cold while nobody waits: a moment after the verdict, with the lowest priority, and it
gives way to the next run, since two runs in one tree can disturb each other. Who gives way too
often is not interrupted any more.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from tightloop.sandbox.audited import Check, Finding
from tightloop.sandbox.interface import (
    Command,
    CommandResult,
    InteractiveSandbox,
    RunningCommand,
    SandboxError,
)
from tightloop.sandbox.verdicts import AuditSample, Verdict

PATIENCE = 5
"""Checks in a row that may give way or say nothing."""
_GRACE_S = 2.0


class Interruptible:
    """Runs commands of a sandbox one at a time, and knows the one that runs."""

    def __init__(self, sandbox: InteractiveSandbox) -> None:
        self._sandbox = sandbox
        self.running: RunningCommand | None = None
        self.on_change: Callable[[RunningCommand | None], None] = _ignore

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """See ``Sandbox.run``."""
        run = await self._sandbox.begin(command, on_output)
        self._change(run)
        try:
            return await run.wait()
        except asyncio.CancelledError:
            run.kill()
            raise
        finally:
            self._change(None)

    def _change(self, run: RunningCommand | None) -> None:
        self.running = run
        self.on_change(run)


class Checker(Protocol):
    """The part of an ``Auditor`` that is needed here."""

    async def check(self, command: Command, warm: CommandResult, since_ns: int) -> Check:
        """See ``Auditor.check``."""


def _ignore(_run: RunningCommand | None) -> None:
    """Nobody wants to know."""


def words_of(command: Command) -> tuple[str, ...]:
    """What tells one command from another."""
    return (command.cwd, command.script or "", *(command.argv or ()))


class Checks:
    """The checks of one sandbox. ``tasks`` is where they run.

    A check begins ``quiet_s`` after its verdict, and not while ``is_quiet`` says that others run.
    """

    def __init__(
        self,
        auditor: Checker,
        runner: Interruptible,
        tasks: asyncio.TaskGroup,
        quiet_s: float,
        is_quiet: Callable[[], bool] = lambda: True,
    ) -> None:
        self._auditor = auditor
        self._runner = runner
        self.tasks = tasks
        self._quiet_s = quiet_s
        self._is_quiet = is_quiet
        self._sample = AuditSample()
        self.task: asyncio.Task[None] | None = None
        """The check that runs or is about to."""
        self._words: tuple[str, ...] = ()
        self._num_in_vain = 0
        self._last = ""
        self.news: list[Check] = []
        """Wrong verdicts and unstable tests that nobody has been told of yet."""

    @property
    def is_under_way(self) -> bool:
        """Whether one runs or is about to."""
        return self.task is not None

    async def give_way(self, *, is_last: bool = False) -> None:
        """No check runs: what had begun is broken off, or waited for if it was too often.

        ``is_last`` waits for none.
        """
        task = self.task
        if task is None:
            return
        if self._num_in_vain < PATIENCE or is_last:
            running = self._runner.running
            if running is not None:
                running.send_signal(signal.SIGINT)  # tests may have something to clean up
                with contextlib.suppress(TimeoutError, SandboxError):
                    await asyncio.wait_for(running.wait(), _GRACE_S)
            task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            self._in_vain(self._words)
        self.task = None

    def after(
        self, command: Command, result: CommandResult, since_ns: int, verdict: Verdict
    ) -> str:
        """A warm verdict is out; how far it can be relied on, in words for a person.

        ``since_ns`` is a file time from just before the run. Call ``give_way`` before each run.
        """
        if self.task is not None:  # of a run that was under way at the same time
            self._sample.again(words_of(command))
            return "provisional, another run is being checked"
        self._words = words_of(command)
        if self._sample.is_due(self._words, verdict):
            self.task = self.tasks.create_task(self._check(command, result, since_ns))
            return "provisional, a cold run will check it"
        return f"provisional; {self._last or 'none was checked so far'}"

    async def _check(self, command: Command, result: CommandResult, since_ns: int) -> None:
        try:
            if self._num_in_vain < PATIENCE:
                await asyncio.sleep(self._quiet_s)
            if not self._is_quiet():
                self._in_vain(self._words)
                return
            self.take(await self._auditor.check(command, result, since_ns), self._words)
        except (SandboxError, OSError) as error:
            self._last = f"the last check failed: {error}"
            self._in_vain(self._words)
        finally:
            self.task = None

    def take(self, check: Check, words: tuple[str, ...]) -> None:
        """A check is over, whoever made it."""
        if check.finding is Finding.VOID:
            if check.note:
                self._last = f"the last check says nothing: {check.note}"
            self._in_vain(words)
            return
        self._num_in_vain = 0
        self._last = f"the last check {check.finding} at {time.strftime('%H:%M')}"
        if check.finding is not Finding.AGREED:
            self.news.append(check)

    def _in_vain(self, words: tuple[str, ...]) -> None:
        self._num_in_vain += 1
        self._sample.again(words)

    @property
    def last(self) -> str:
        """What the last check came to; empty when there was none."""
        return self._last


@asynccontextmanager
async def background_tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A group for tasks of the block. An error of the block comes out as it is, not in a group.

    Leaving waits for the tasks: end them first.
    """
    ready: asyncio.Future[asyncio.TaskGroup] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def host() -> None:
        async with asyncio.TaskGroup() as group:
            ready.set_result(group)
            await stop.wait()

    hosting = asyncio.create_task(host(), name="tasks in the background")
    try:
        yield await ready
    finally:
        stop.set()
        await hosting
