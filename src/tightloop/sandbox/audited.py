"""Warm verdicts checked: the cold run of the same selection, and what comes of comparing the two.

``run_cold`` is the cold run itself, for whoever has a tree that holds still. ``Auditor`` is for a
tree that a person may edit meanwhile: a check that saw two states of the tree says nothing and is
made again; a test that ends differently in two cold runs is unstable by itself and proves nothing
against warm runs; any other difference switches them off for the repository.
"""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from tightloop.sandbox.exec_server import find_program
from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.sandbox.pytest_command import ZYGOTE, warm_request
from tightloop.sandbox.sweep import Sweep, sweep
from tightloop.sandbox.verdicts import Difference, ShutOff, Verdict, differences, read_report

MAX_REPORT_BYTES: Final = 4 << 20
"""As much as a warm run's report can be; of more tests only the exit code is compared."""
_NICEST = ("nice", "-n", "19")


OnOutput = Callable[[bytes], None]


class Runner(Protocol):
    """The part of a ``Sandbox`` that is needed here."""

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """See ``Sandbox.run``."""


@dataclass(frozen=True, slots=True)
class ColdRun:
    """A run in an interpreter of its own, and how each test ended."""

    result: CommandResult
    verdict: Verdict


class Finding(StrEnum):
    """What a check came to."""

    AGREED = "agreed"
    UNSTABLE = "unstable"
    """Two cold runs differ, and one of them says what the warm one said."""
    WRONG = "wrong"
    VOID = "void"
    """The tree changed meanwhile, or the cold run did not come to an end."""


@dataclass(frozen=True, slots=True)
class Check:
    """A warm run against a cold one. ``note`` says why it is void; logs are there if they differ."""

    finding: Finding
    cold: CommandResult | None = None
    found: tuple[Difference, ...] = ()
    note: str = ""
    logs: tuple[Path, ...] = ()


def is_warm(result: CommandResult) -> bool:
    """Whether something that was there before took part, so that the verdict is provisional."""
    return result.how.startswith("warm-")


def verdict_of(result: CommandResult) -> Verdict:
    """Of a run that reported; without outcomes when there are more than a report can hold."""
    return Verdict(result.exit_code, read_report(result.report) if _is_whole(result) else {})


def _is_whole(result: CommandResult) -> bool:
    return len(result.report) < MAX_REPORT_BYTES


async def run_cold(
    sandbox: Runner,
    command: Command,
    workspace: Path,
    environment: Mapping[str, str],
    *,
    is_background: bool = True,
    on_output: Callable[[bytes], None] | None = None,
) -> ColdRun:
    """The same selection in an interpreter of its own, in the given sandbox.

    ``environment`` is what commands inside know. The report goes through a file of the sandbox's
    private directory and not through the workspace, where tests could see it. In the background it
    runs with the lowest priority. Raises SandboxError for a command that is no plain pytest run.
    """
    report = f"{environment.get('TMPDIR', '/tmp')}/report-{secrets.token_hex(8)}"
    argv = cold_argv(command, workspace, environment, report)
    if is_background:
        argv = [*_nicest(environment), *argv]
    asked = replace(command, argv=argv, script=None, is_reporting=False)
    result = await sandbox.run(asked, on_output)
    lines = bytearray()
    fetch = Command(script=f"cat {report} 2>/dev/null; rm -f {report}", timeout_s=20.0)
    await sandbox.run(fetch, lines.extend)
    result = replace(result, how="cold", report=bytes(lines))
    return ColdRun(result, verdict_of(result))


def _nicest(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What gives way to everything else, where there is such a program."""
    try:
        find_program(_NICEST[0], environment.get("PATH", os.defpath))
    except FileNotFoundError:
        return ()
    return _NICEST


def cold_argv(
    command: Command, workspace: Path, environment: Mapping[str, str], report: str
) -> list[str]:
    """The line of a cold run that writes outcomes to ``report``, a path inside.

    Raises SandboxError for a command that is no plain pytest run.
    """
    cwd = os.path.join(workspace, command.cwd)
    request = warm_request(command, cwd, environment)
    if request is None:
        raise SandboxError(f"not a plain pytest run: {command.argv or command.script!r}")
    program = request["program"]
    python = program if request["is_module"] else _interpreter_of(program)
    return [python, str(ZYGOTE), "cold", report, str(workspace), program, *request["args"]]


def _interpreter_of(script: str) -> str:
    """The python in a script's first line. Raises SandboxError for any other first line."""
    try:
        with open(script, "rb") as file:
            line = file.readline(512)
    except OSError as error:
        raise SandboxError(f"{script} cannot be read: {error.strerror}") from error
    words = line[2:].split()
    if not line.startswith(b"#!/") or len(words) != 1:
        raise SandboxError(f"{script} does not begin with the path of a python")
    return os.fsdecode(words[0])


ColdTwin = Callable[[Command, bool, OnOutput | None], Awaitable[CommandResult]]
"""Runs what a command's warm run is checked against; the flag asks for the lowest priority."""


def pytest_twin(runner: Runner, workspace: Path, environment: Mapping[str, str]) -> ColdTwin:
    """That of plain pytest runs; see ``run_cold``."""

    async def run(
        command: Command, is_background: bool, on_output: OnOutput | None
    ) -> CommandResult:
        cold = await run_cold(
            *(runner, command, workspace, environment),
            is_background=is_background,
            on_output=on_output,
        )
        return cold.result

    return run


class Auditor:
    """Checks warm verdicts of one sandbox on a tree that may change meanwhile.

    ``repository`` is what ``shut_off`` knows it by, if that is another directory than ``workspace``.
    ``twin`` makes the cold runs, ``differ`` tells what differs, by default ``compare``. ``directory`` is where logs of
    differing runs are kept; ``shut_off`` remembers wrong verdicts.
    """

    def __init__(
        self,
        workspace: Path,
        twin: ColdTwin,
        *,
        shut_off: ShutOff,
        directory: Path,
        repository: Path | None = None,
        differ: Callable[[CommandResult, CommandResult], tuple[Difference, ...]] | None = None,
    ) -> None:
        self._workspace = workspace
        self._repository = repository or workspace
        self._twin = twin
        self._shut_off = shut_off
        self._directory = directory
        self._differ = differ or compare

    async def check(
        self,
        command: Command,
        warm: CommandResult,
        since_ns: int,
        *,
        is_background: bool = True,
        on_output: OnOutput | None = None,
    ) -> Check:
        """Run cold and compare. ``since_ns`` is a file time from just before the warm run.

        Cancelling ends the cold run. Raises SandboxError when the sandbox is no more.
        """
        before = await asyncio.to_thread(sweep, self._workspace)
        own_habits = before.changed_after(since_ns)
        cold = await self._twin(command, is_background, on_output)
        if note := await self._unusable(cold, before, own_habits):
            return Check(Finding.VOID, cold, note=note)
        found = self._differ(warm, cold)
        if not found:
            return Check(Finding.AGREED, cold)
        if doubtful := before.changed_at(since_ns) - own_habits:
            name = Path(min(doubtful)).relative_to(self._workspace)
            return Check(Finding.VOID, cold, found, f"{name} was written as the run began")
        again = await self._twin(command, is_background, None)
        if note := await self._unusable(again, before, own_habits):
            return Check(Finding.VOID, cold, found, note)
        logs = write_logs(self._directory, warm, cold)
        if not {one.what for one in found} & {one.what for one in self._differ(warm, again)}:
            return Check(Finding.UNSTABLE, cold, found, logs=logs)
        self._shut_off.turn_off(self._repository, found, str(logs[0]), str(logs[1]))
        return Check(Finding.WRONG, cold, found, logs=logs)

    async def _unusable(
        self, cold: CommandResult, before: Sweep, own_habits: frozenset[str]
    ) -> str:
        """Why the cold run proves nothing; empty when it does.

        Files that tests write in every run are left out of account, unless they are code.
        """
        if cold.timed_out or cold.exit_code == -signal.SIGKILL:
            return "the cold run was ended"
        if cold.exit_code in (126, 127) and not cold.report:
            return f"the cold run did not start: {cold.output.strip()[-200:]}"
        after = await asyncio.to_thread(sweep, self._workspace)
        changed = after.changed_since(before)
        code = {path for path in changed | own_habits if path.endswith((".py", ".pyi"))}
        strange = code | (changed ^ own_habits)
        if strange:
            return f"{Path(min(strange)).relative_to(self._workspace)} changed meanwhile"
        return ""


def compare(warm: CommandResult, cold: CommandResult) -> tuple[Difference, ...]:
    """What two runs that reported tell differently."""
    one, other = verdict_of(warm), verdict_of(cold)
    if not (_is_whole(warm) and _is_whole(cold)):
        one, other = Verdict(one.exit_code, {}), Verdict(other.exit_code, {})
    return differences(one, other)


def write_logs(directory: Path, warm: CommandResult, cold: CommandResult) -> tuple[Path, Path]:
    """What the two runs printed and reported, for a person; returns both files, the warm one first."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    paths = []
    for name, result in (("warm", warm), ("cold", cold)):
        path = directory / f"{mark}-{name}.log"
        head = {"how": result.how, "exit_code": result.exit_code}
        path.write_text(f"{json.dumps(head)}\n{result.output}", errors="replace")
        paths.append(path)
    return paths[0], paths[1]
