"""Warm commands with their checks: for whoever runs one by its name, and as a sandbox for an agent."""

import asyncio
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tightloop.sandbox.audited import Auditor, Check, Finding, OnOutput, Runner
from tightloop.sandbox.checking import Checks, Interruptible, background_tasks, words_of
from tightloop.sandbox.interface import Command, CommandResult, InteractiveSandbox
from tightloop.sandbox.sweep import file_time_ns
from tightloop.sandbox.warm_commands import Answer, WarmCommand, read_warm_tables, shut_off_of

QUIET_S: Final = 2.0
"""After an answer, before its check begins: the next change is often seconds away."""
_LOWEST = "nice -n 19 -- "


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer, how far it can be relied on, and a check if one was waited for."""

    answer: Answer
    state: str = ""
    check: Check | None = None

    @property
    def result(self) -> CommandResult:
        """What counts: the cold run, if there was one."""
        if self.check is None or self.check.cold is None or self.check.finding is Finding.VOID:
            return self.answer.result
        return self.check.cold


@dataclass(frozen=True, slots=True)
class Place:
    """Where commands run, what the user calls it, and where notes about it are kept.

    The tables are those of ``repository``: what commands change in the workspace changes none.
    """

    workspace: Path
    repository: Path
    state_dir: Path


class CheckedCommand:
    """One warm command in one sandbox, its answers checked as warm test verdicts are."""

    def __init__(
        self,
        command: WarmCommand,
        place: Place,
        sandbox: InteractiveSandbox,
        tasks: asyncio.TaskGroup,
        quiet_s: float = QUIET_S,
    ) -> None:
        self.command = command
        self._place = place
        self.shut_off = shut_off_of(place.state_dir, command.name, command.table)
        self._logs = place.state_dir / "warm-commands" / "logs"
        in_background = Interruptible(sandbox)
        self.checks = Checks(self._auditor(in_background), in_background, tasks, quiet_s)

    def _auditor(self, runner: Runner) -> Auditor:
        async def twin(
            command: Command, is_background: bool, on_output: OnOutput | None
        ) -> CommandResult:
            script = command.script or shlex.join(command.argv or ())
            words = f"{_LOWEST}/bin/bash --norc -c {shlex.quote(script)}"
            asked = replace(command, script=words, argv=None) if is_background else command
            return await runner.run(asked, on_output)

        return Auditor(
            self._place.workspace,
            twin,
            shut_off=self.shut_off,
            directory=self._logs,
            repository=self._place.repository,
            differ=self.command.table.differences,
        )

    async def run(
        self,
        command: Command,
        on_output: OnOutput | None = None,
        *,
        runner: Runner,
        mode: str = "",
    ) -> Checked:
        """The command's answer; ``mode`` is empty, ``cold`` or ``audit``. Raises SandboxError."""
        await self.checks.give_way()
        why_cold = "asked for" if mode == "cold" else ""
        if reason := self.shut_off.reason(self._place.repository):
            why_cold = why_cold or f"its warm answer was wrong once: {reason}"
        since_ns = file_time_ns()
        answer = await self.command.run(command, on_output, runner=runner, why_cold=why_cold)
        if not answer.is_warm:
            return Checked(answer)
        if mode != "audit":
            verdict = self.command.table.verdict(answer.result)
            return Checked(answer, self.checks.after(command, answer.result, since_ns, verdict))
        check = await self._auditor(runner).check(
            command, answer.result, since_ns, is_background=False
        )
        self.checks.take(check, words_of(command))
        return Checked(answer, check=check)

    async def close(self) -> None:
        """No check is under way, and the daemon is ended."""
        await self.checks.give_way(is_last=True)
        await self.command.close()


def checked_commands(
    place: Place,
    sandbox: InteractiveSandbox,
    tasks: asyncio.TaskGroup,
    quiet_s: float = QUIET_S,
) -> dict[str, CheckedCommand]:
    """Those of the project's ``.tightloop.toml``, by name. Raises SandboxError."""
    return {
        name: CheckedCommand(WarmCommand(name, table, sandbox), place, sandbox, tasks, quiet_s)
        for name, table in read_warm_tables(place.repository).items()
    }


class WarmedSandbox:
    """A ``Sandbox`` in which commands with a warm form are run in that form."""

    def __init__(
        self,
        sandbox: InteractiveSandbox,
        commands: Mapping[str, CheckedCommand],
        note: Callable[[str], None],
    ) -> None:
        self.kind = sandbox.kind
        self._sandbox = sandbox
        self._commands = commands
        self._note = note
        self._unconfirmed: dict[str, Command] = {}

    async def start(self) -> None:
        """Every daemon is being started; the sandbox was started by whoever opened it."""
        for one in self._commands.values():
            await one.command.start()

    async def run(self, command: Command, on_output: OnOutput | None = None) -> CommandResult:
        """See ``Sandbox.run``; ``how`` is ``warm-command-NAME`` for a warm answer."""
        meant = (one for one in self._commands.values() if one.command.table.is_meant_by(command))
        one = next(meant, None)
        if one is None:
            return await self._sandbox.run(command, on_output)
        checked = await one.run(command, on_output, runner=self._sandbox)
        self._unconfirmed.pop(one.command.name, None)
        if checked.answer.is_warm and checked.result.exit_code == 0:
            self._unconfirmed[one.command.name] = command
        while one.checks.news:
            check = one.checks.news.pop(0)
            self._note(f"warm command {one.command.name}: {_as_news(check)}")
        return checked.result

    async def confirm(self) -> list[tuple[Command, CommandResult]] | None:
        """Runs cold what passed warm last, before somebody relies on it; None for nothing.

        Returns the commands that failed then, each with its cold run: it tells what holds now.
        Raises SandboxError.
        """
        if not self._unconfirmed:
            return None
        failed = []
        while self._unconfirmed:
            name, command = self._unconfirmed.popitem()
            await self._commands[name].checks.give_way(is_last=True)
            cold = await self._sandbox.run(command)
            if cold.exit_code != 0:
                failed.append((command, cold))
        return failed

    async def checked(self) -> None:
        """No check is under way."""
        for one in self._commands.values():
            if one.checks.task is not None:
                await asyncio.wait([one.checks.task])

    async def close(self) -> None:
        """Every daemon is ended; the sandbox stays."""
        for one in self._commands.values():
            await one.close()


def _as_news(check: Check) -> str:
    logs = " and ".join(map(str, check.logs))
    found = "; ".join(map(str, check.found[:3]))
    if check.finding is Finding.WRONG:
        return f"its answer was wrong, it is off from now on: {found} (logs: {logs})"
    return f"the command itself answers in two ways: {found} (logs: {logs})"


@asynccontextmanager
async def with_warm_commands(
    sandbox: InteractiveSandbox,
    place: Place,
    note: Callable[[str], None],
    quiet_s: float = QUIET_S,
) -> AsyncIterator["InteractiveSandbox | WarmedSandbox"]:
    """The sandbox with the project's warm commands in place of the cold ones; itself without any.

    ``note`` is told what a person should know. Daemons are being started at once, and are ended at
    the end of the block. Raises SandboxError for tables that cannot be understood.
    """
    async with background_tasks() as tasks:
        commands = checked_commands(place, sandbox, tasks, quiet_s)
        if not commands:
            yield sandbox
            return
        warmed = WarmedSandbox(sandbox, commands, note)
        try:
            await warmed.start()
            yield warmed
        finally:
            await warmed.close()
