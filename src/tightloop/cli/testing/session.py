"""What a background process holds: one sandbox on the project, and the runs in it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tightloop.agent.terminal.printable import printable
from tightloop.cli.testing import saying
from tightloop.cli.testing.asked import Asked
from tightloop.cli.testing.channel import Channel, OutputTo
from tightloop.cli.testing.freshness import Freshness, look
from tightloop.cli.testing.interpreter import Interpreter, find_interpreter
from tightloop.cli.testing.looking import (
    check_interpreter,
    own_groups,
    why_no_pytest,
    why_not_writable,
)
from tightloop.sandbox.audited import (
    Auditor,
    Check,
    Finding,
    is_warm,
    pytest_twin,
    run_cold,
    verdict_of,
)
from tightloop.sandbox.checking import Checks, Interruptible, words_of
from tightloop.sandbox.interface import Command, CommandResult, Limits, Policy, Terminal
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.policies import config_path, load_policy
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.sweep import file_time_ns
from tightloop.sandbox.verdicts import ShutOff
from tightloop.sandbox.warm.declining import unknown_argument, unsure_config
from tightloop.sandbox.warmed import QUIET_S, CheckedCommand, Place, checked_commands
from tightloop.sandbox.way_out import way_out

NO_VERDICT: Final = 125
"""The near end's exit code where there is no verdict."""
_BAD_USAGE = 4  # of pytest, as the next; see its "Exit codes"
_INTERRUPTED = 2
_TELL_LIMIT_S = 0.5
_ENDLESS = float("inf")


@dataclass(frozen=True, slots=True)
class End:
    """Exit code for the near end, and the last line."""

    code: int
    line: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session is made for."""

    root: Path
    state_dir: Path
    python: str
    policy: str
    config: Path | None
    environment: Mapping[str, str]
    quiet_s: float = QUIET_S

    @classmethod
    def of(cls, asked: Asked, state_dir: Path, quiet_s: float = QUIET_S) -> "Settings":
        """From the request that starts the process."""
        pairs = (entry.partition("=") for entry in asked.environment)
        return cls(
            Path(asked.root), state_dir, asked.python, asked.policy,
            Path(asked.config) if asked.config else None,
            {name: value for name, _, value in pairs}, quiet_s,
        )  # fmt: skip


class Session:
    """Runs of one project in one sandbox. Opened by ``open_session``."""

    def __init__(
        self,
        settings: Settings,
        sandbox: PersistentSandbox,
        interpreter: Interpreter,
        policy: Policy,
        policy_name: str,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.root = settings.root
        self.sandbox = sandbox
        self.policy_name = policy_name
        self._settings = settings
        self._interpreter = interpreter
        self._policy = policy
        self.shut_off = ShutOff(settings.state_dir)
        self.logs = settings.state_dir / "test" / "logs"
        self._runner = Interruptible(sandbox)
        self._auditor = self._auditor_by(self._runner)
        in_background = Interruptible(sandbox)
        self.checks = Checks(
            self._auditor_by(in_background), in_background, tasks, settings.quiet_s,
            lambda: self.num_running == 0,
        )  # fmt: skip
        self._first = self._look()
        self._tasks = tasks
        self._commands: dict[str, CheckedCommand] = {}
        self.num_runs = 0
        self.num_running = 0

    def _auditor_by(self, runner: Interruptible) -> Auditor:
        return Auditor(
            self.root,
            pytest_twin(runner, self.root, self.sandbox.environment),
            shut_off=self.shut_off,
            directory=self.logs,
        )

    def _look(self) -> Freshness:
        return look(self._interpreter, self._settings.config or config_path(), self._policy)

    def why_stale(self) -> str:
        """Why another process has to take over; empty while this one will do."""
        if not self.sandbox.is_alive:
            return "its sandbox has died"
        return self._first.reason(self._look())

    async def close(self) -> None:
        """No check runs, and no daemon."""
        await self.checks.give_way(is_last=True)
        for one in self._commands.values():
            await one.close()

    @property
    def is_busy(self) -> bool:
        """Whether something runs, or a check does."""
        checks = (self.checks, *(one.checks for one in self._commands.values()))
        return self.num_running > 0 or any(one.is_under_way for one in checks)

    # -- one run

    async def test(self, asked: Asked, channel: Channel) -> End:
        """A run from request to exit code. Raises SandboxError when the sandbox dies."""
        self.num_running += 1
        try:
            await self.checks.give_way()
            self._tell_news(self.checks, channel)
            self._tell_not_writable(channel)
            self.num_runs += 1
            off = self.shut_off.reason(self.root)
            self.sandbox.allows_warm = not off
            if asked.mode == "cold" or off:
                reason = "asked for" if asked.mode == "cold" else ""
                if off and not reason:
                    reason = saying.off_reason(off, self.shut_off.logs(self.root))
                return await self._cold(asked, channel, reason)
            known = self._known_reason(asked) if asked.is_json else ""
            if known:  # a cold run says how each test ended only if it is made for that
                return await self._cold(asked, channel, known)
            return await self._warm(asked, channel)
        finally:
            self.num_running -= 1

    def _tell_not_writable(self, channel: Channel) -> None:
        """Pytest's own words for it come only with its warnings, or as a failure for no reason."""
        if self.sandbox.kind == "none" or self._policy.is_read_only:
            return
        if reason := why_not_writable(self.root, os.geteuid(), own_groups()):
            channel.note(printable(reason))

    def _tell_news(self, checks: Checks, channel: Channel) -> None:
        while checks.news:
            for line in saying.news(checks.news.pop(0)):
                channel.note(line)

    async def _warm(self, asked: Asked, channel: Channel) -> End:
        command = self._command(asked)
        since_ns = file_time_ns()
        result = await self._run(command, asked, channel)
        if channel.is_given_up:
            return _end(asked, channel, result, "", None, "interrupted")
        if not is_warm(result):
            reason = await self._why_cold(asked, result)
            if asked.is_json:
                return await self._cold(asked, channel, reason)
            return _end(
                asked,
                channel,
                result,
                reason,
                None,
                saying.cold_line(result, reason, asked.since_ns),
            )
        if asked.mode != "audit":
            state = self.checks.after(command, result, since_ns, verdict_of(result))
            if result.exit_code == _BAD_USAGE:
                state = saying.NO_VERDICT
            line = saying.warm_line(result, state, asked.since_ns)
            return _end(asked, channel, result, "", None, line)
        check = await self._check_now(command, result, since_ns, channel)
        if channel.is_given_up:
            return _end(asked, channel, result, "", None, "interrupted")
        self.checks.take(check, words_of(command))
        self._tell_news(self.checks, channel)
        if check.cold is not None and check.finding in (Finding.WRONG, Finding.UNSTABLE):
            channel.note("what the cold run printed:")
            OutputTo(channel, is_for_programs=bool(asked.is_json))(check.cold.output.encode())
        line = saying.warm_line(result, saying.checked_words(check), asked.since_ns)
        return _end(asked, channel, result, "", check, line)

    async def warm(self, asked: Asked, channel: Channel) -> End:
        """A warm command of the project by its name. Raises SandboxError."""
        self.num_running += 1
        try:
            await self._read_tables()
            one = self._commands.get(asked.words[0]) if len(asked.words) == 1 else None
            if one is None:
                return End(NO_VERDICT, saying.no_such_command(asked.words, list(self._commands)))
            self.num_runs += 1
            return await self._answer(one, asked, channel)
        finally:
            self.num_running -= 1

    async def _read_tables(self) -> None:
        """As the project's file has them now; a daemon of another table is ended."""
        place = Place(self.root, self.root, self._settings.state_dir)
        known = checked_commands(place, self.sandbox, self._tasks, self._settings.quiet_s)
        for name, old in list(self._commands.items()):
            if name not in known or known[name].command.table != old.command.table:
                await self._commands.pop(name).close()
        self._commands = known | self._commands

    async def _answer(self, one: CheckedCommand, asked: Asked, channel: Channel) -> End:
        runner = Interruptible(self.sandbox)
        runner.on_change = channel.watch
        command = Command(script=one.command.table.cold, timeout_s=_ENDLESS)
        output = OutputTo(channel, is_for_programs=bool(asked.is_json))
        self._tell_news(one.checks, channel)
        checked = await one.run(command, output, runner=runner, mode=asked.mode)
        self._tell_news(one.checks, channel)
        result = checked.result
        code = exit_code(result)
        if asked.is_json:
            channel.line(saying.command_object(checked, code))
        return End(code, saying.command_line(checked, asked.since_ns))

    async def _check_now(
        self, command: Command, result: CommandResult, since_ns: int, channel: Channel
    ) -> Check:
        self._runner.on_change = channel.watch
        return await self._auditor.check(command, result, since_ns, is_background=False)

    async def _cold(self, asked: Asked, channel: Channel, reason: str) -> End:
        command = replace(self._command(asked), is_reporting=False, limits=Limits())
        if asked.is_json:
            command = replace(command, limits=None)
            self._runner.on_change = channel.watch
            cold = await run_cold(
                self._runner, command, self.root, self.sandbox.environment,
                is_background=False, on_output=OutputTo(channel, is_for_programs=True),
            )  # fmt: skip
            result = cold.result
        else:
            result = await self._run(command, asked, channel)
        line = saying.cold_line(result, reason, asked.since_ns)
        line = "interrupted" if channel.is_given_up else line
        return _end(asked, channel, result, reason, None, line)

    async def _run(self, command: Command, asked: Asked, channel: Channel) -> CommandResult:
        run = await self.sandbox.begin(
            command, OutputTo(channel, is_for_programs=bool(asked.is_json))
        )
        channel.watch(run)
        try:
            return await run.wait()
        finally:
            channel.watch(None)

    def _command(self, asked: Asked) -> Command:
        color = [f"--color={asked.color}"] if asked.color else []
        screen = Terminal(int(asked.rows), int(asked.columns)) if asked.columns else None
        return Command(
            argv=[str(self._interpreter.program), "-m", "pytest", *color, *asked.words],
            cwd=os.path.relpath(asked.directory, asked.root),
            timeout_s=_ENDLESS,
            screen=screen,
            is_reporting=True,
        )

    def _known_reason(self, asked: Asked) -> str:
        """Why a run will be cold, if it can be told from what is asked; else empty."""
        if asked.directory != asked.root:
            return f"warm runs start in {asked.root}"
        return unknown_argument(asked.words) or unsure_config(asked.directory, asked.root)

    async def _why_cold(self, asked: Asked, result: CommandResult) -> str:
        """Why a run was not warm although it could have been, as far as that is known here."""
        if reason := self._known_reason(asked):
            return reason
        try:
            async with asyncio.timeout(_TELL_LIMIT_S):
                is_ready = await self.sandbox.warm_tests_ready()
        except TimeoutError:
            missing = ""
            if result.exit_code == 1:  # what python itself ends with, too
                missing = await why_no_pytest(self.sandbox, self._interpreter.program)
            return missing or "the warm process is still starting"
        if is_ready:
            return "the warm process was renewed"
        if self.sandbox.warm_refusal == "gone":
            return "the warm process ended and is started anew"
        return f"no warm process: {await self.why_no_process()}"

    async def why_no_process(self) -> str:
        """In words. What the sandbox said of it may be about another python: that of its PATH."""
        if not self._policy.warm_tests:
            return "the policy has none"
        if reason := await why_no_pytest(self.sandbox, self._interpreter.program):
            return reason
        refusal = self.sandbox.warm_refusal
        if not refusal:
            return f"there is no program named python in {self._interpreter.program.parent}"
        if refusal.startswith("pytest is not installed"):
            return "pytest was not there when it was started; 'tightloop test --stop' ends that one"
        return refusal


def exit_code(result: CommandResult) -> int:
    """As a shell says it: 128 and the signal's number for a signal."""
    return result.exit_code if result.exit_code >= 0 else 128 - result.exit_code


def _end(
    asked: Asked,
    channel: Channel,
    result: CommandResult,
    reason: str,
    check: Check | None,
    line: str,
) -> End:
    """The exit code that counts: that of a cold run, if there was one."""
    counting = result
    if check is not None and check.cold is not None and check.finding is not Finding.VOID:
        counting = check.cold
    code = exit_code(counting)
    if channel.num_interrupts and counting.exit_code == -signal.SIGKILL:
        code = _INTERRUPTED  # by the second one, when pytest had no time left to say it itself
    if asked.is_json:
        for said in saying.test_lines(counting):
            channel.line(said)
        channel.line(saying.final_object(result, code, reason, check))
    return End(code, line)


@asynccontextmanager
async def open_session(settings: Settings, tasks: asyncio.TaskGroup) -> AsyncIterator[Session]:
    """A session, closed at the end of the block.

    Raises SandboxError, PolicyError or OSError when it cannot be had.
    """
    named = load_policy(settings.policy or None, settings.config)
    interpreter = await asyncio.to_thread(
        find_interpreter, settings.python, settings.root, settings.environment
    )
    path = settings.environment.get("PATH", os.defpath)
    async with way_out(named, lambda _decision: None) as socket:
        policy = named.policy(settings.root, socket)
        own_path = {"PATH": f"{interpreter.program.parent}:{policy.environment.get('PATH', path)}"}
        policy = replace(
            policy,
            environment={**policy.environment, **own_path},
            read_only=(*policy.read_only, *interpreter.readable),
            hidden=(*policy.hidden, settings.state_dir / "test"),
        )
        sandbox = await open_sandbox(policy, kind=named.kind(), source=settings.environment)
        session = Session(settings, sandbox, interpreter, policy, named.name, tasks)
        try:
            await check_interpreter(sandbox, interpreter.program)
            yield session
        finally:
            await session.close()
            await sandbox.close()
