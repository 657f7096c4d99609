"""Commands of a project that a daemon of their own can answer sooner, by the project's word.

::

    # .tightloop.toml
    [warm.mypy]
    cold = "mypy src"                     # the command as people type it
    start = "dmypy start"                 # optional; returns once the daemon runs
    warm = "dmypy check src"              # what is run instead
    stop = "dmypy stop"                   # optional, at the end of the session
    verdicts = [0, 1]                     # exit codes that are answers; with any other, the cold one counts
    ignore = ['checked \\d+ source files'] # parts of the output that may differ

All of it runs inside the sandbox only, since it is the repository's word. A daemon belongs to a
command that waits for the end of the session, so it is no orphan of a command that has ended, and
ends with the session. Warm answers are provisional like warm test verdicts: some are compared with
the cold command's, and one difference switches the warm command off.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
import shlex
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from tightloop.sandbox.audited import OnOutput, Runner
from tightloop.sandbox.interface import (
    Command,
    CommandResult,
    InteractiveSandbox,
    RunningCommand,
    SandboxError,
)
from tightloop.sandbox.set_up import CONFIG_NAME
from tightloop.sandbox.verdicts import Difference, ShutOff, Verdict

MAX_STARTS: Final = 3
"""Of one daemon in a session: one that dies again and again helps nobody."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_STOP_LIMIT_S = 10.0
_MAX_SHOWN = 200
# The daemon may not keep our input, whose end ends all; the line says when ``start`` is over.
_KEEPER = """\
eval "$1" </dev/null
status=$?
printf '\\n%s %s\\n' "$2" "$status"
[ "$status" = 0 ] || exit "$status"
exec cat >/dev/null
"""


class WarmTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table ``[warm.NAME]``."""

    cold: str
    warm: str
    start: str = ""
    stop: str = ""
    verdicts: tuple[int, ...] = (0, 1)
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("cold", "warm"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} must be a command, got {getattr(self, key)!r}")
        if not self.verdicts:
            raise ValueError("verdicts must hold at least one exit code, got none")
        for pattern in self.ignore:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"ignore holds {pattern!r}, which is no pattern: {error}"
                ) from error

    @property
    def mark(self) -> str:
        """Another one for another table."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()

    def is_meant_by(self, command: Command) -> bool:
        """Whether the command is the cold one, word for word, in the project's directory."""
        if command.cwd not in (".", "") or command.stdin or command.is_stdin_open:
            return False
        if command.terminal is not None or command.environment:
            return False
        try:
            words = list(command.argv or shlex.split(command.script or ""))
            return words == shlex.split(self.cold)
        except ValueError:
            return command.script == self.cold

    def plain(self, output: str) -> str:
        """Output without the parts that may differ."""
        for pattern in self.ignore:
            output = re.sub(pattern, "", output)
        return output.strip()

    def verdict(self, result: CommandResult) -> Verdict:
        """The exit code, and a digest of the output."""
        digest = hashlib.blake2b(self.plain(result.output).encode(), digest_size=16).hexdigest()
        return Verdict(result.exit_code, {"output": digest})

    def differences(self, warm: CommandResult, cold: CommandResult) -> tuple[Difference, ...]:
        """Exit codes, and the first line of output that is not the same."""
        found = []
        if warm.exit_code != cold.exit_code:
            found.append(Difference("exit code", str(warm.exit_code), str(cold.exit_code)))
        ours, theirs = (self.plain(one.output).splitlines() for one in (warm, cold))
        if ours != theirs:
            length = max(len(ours), len(theirs))
            pad = [["absent"] * (length - len(lines)) for lines in (ours, theirs)]
            lines = zip(ours + pad[0], theirs + pad[1], strict=True)
            number, pair = next(
                (number, pair) for number, pair in enumerate(lines, 1) if pair[0] != pair[1]
            )
            one, other = (repr(line[:_MAX_SHOWN]) for line in pair)
            found.append(Difference(f"line {number} of the output", one, other))
        return tuple(found)


def read_warm_tables(repository: Path) -> dict[str, WarmTable]:
    """The tables of the project's ``.tightloop.toml`` by name; empty without any.

    Raises SandboxError for a file that cannot be understood, with what is wrong in it.
    """
    path = repository / CONFIG_NAME
    try:
        values: Any = tomllib.loads(path.read_text(encoding="utf-8")).get("warm", {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SandboxError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise SandboxError(f"{str(path)!r}: warm must be tables [warm.NAME]")
    return {name: _table(path, name, value) for name, value in values.items()}


def _table(path: Path, name: str, value: object) -> WarmTable:
    if not _NAME.fullmatch(name):
        raise SandboxError(f"{str(path)!r}: {name!r} cannot be a name of a warm command")
    try:
        return msgspec.convert(value, WarmTable)
    except msgspec.ValidationError as error:
        known = ", ".join(WarmTable.__struct_fields__)
        raise SandboxError(f"{str(path)!r}, [warm.{name}]: {error}; known keys: {known}") from error


def shut_off_of(state_dir: Path, name: str, table: WarmTable) -> ShutOff:
    """Where it is noted that a warm command was wrong; another table begins anew."""
    return ShutOff(state_dir / "warm-commands" / f"{name}-{table.mark}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to. ``note`` says why it was not the warm one; empty for a warm answer."""

    result: CommandResult
    note: str = ""

    @property
    def is_warm(self) -> bool:
        """Whether it is provisional."""
        return not self.note


class WarmCommand:
    """One table at work in one sandbox."""

    def __init__(self, name: str, table: WarmTable, sandbox: InteractiveSandbox) -> None:
        self.name = name
        self.table = table
        self._sandbox = sandbox
        self._keeper: RunningCommand | None = None
        self._mark = secrets.token_hex(12)
        self._said = bytearray()
        self._told = asyncio.Event()
        self._num_starts = 0
        self._off = ""

    async def start(self) -> None:
        """The daemon is being started, if it has to be and is not. Returns at once.

        Raises SandboxError when the sandbox is not running.
        """
        if not self.table.start or self._off or not self._is_down():
            return
        if self._num_starts >= MAX_STARTS:
            self._off = f"its daemon ended {MAX_STARTS} times: {self._last_words()}"
            return
        self._num_starts += 1
        self._said.clear()
        self._told.clear()
        argv = ["/bin/bash", "--noprofile", "--norc", "-c", _KEEPER, "keeper"]
        command = Command(
            argv=[*argv, self.table.start, self._mark],
            timeout_s=float("inf"),
            is_stdin_open=True,
        )
        self._keeper = await self._sandbox.begin(command, self._hear)

    def _hear(self, data: bytes) -> None:
        if len(self._said) < 1 << 16:
            self._said += data
        if f"\n{self._mark} ".encode() in self._said:
            self._told.set()

    def _is_down(self) -> bool:
        return self._keeper is None or self._keeper.has_ended

    def _why_not_warm(self) -> str:
        if self._off:
            return self._off
        if not self.table.start:
            return ""
        if self._is_down():
            return "its daemon did not start: " + self._last_words()
        return (
            "" if f"\n{self._mark} 0\n".encode() in self._said else "its daemon is still starting"
        )

    def _last_words(self) -> str:
        text = self._said.decode(errors="replace").partition(f"\n{self._mark} ")[0]
        return " ".join(text.split())[-_MAX_SHOWN:] or "it said nothing"

    async def run(
        self,
        command: Command,
        on_output: OnOutput | None = None,
        *,
        runner: Runner | None = None,
        why_cold: str = "",
    ) -> Answer:
        """The answer of the warm command, or with a reason why, of the cold one.

        ``runner`` runs both, by default the sandbox. Warm output comes in one piece, once it
        is known to be an answer. Raises SandboxError.
        """
        runner = runner or self._sandbox
        if why_cold:
            return Answer(await runner.run(command, on_output), why_cold)
        note = self._why_not_warm() if self._num_starts or not self.table.start else "first use"
        if not note:
            result = await self._run_warm(command, runner)
            if result.exit_code in self.table.verdicts and not result.timed_out:
                if on_output is not None:
                    on_output(result.output.encode())
                return Answer(replace(result, how=f"warm-command-{self.name}"))
            note = _why_no_answer(result)
            await self._end_daemon()
        cold = await runner.run(command, on_output)
        await self.start()  # only now: beside the cold command it would slow it down
        return Answer(cold, note)

    async def _run_warm(self, command: Command, runner: Runner) -> CommandResult:
        asked = replace(command, script=self.table.warm, argv=None, is_reporting=False)
        return await runner.run(asked)

    async def _end_daemon(self) -> None:
        """Every process of it is ended."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None and not keeper.has_ended:
            keeper.kill()
            await keeper.wait()

    async def settle(self) -> None:
        """The daemon runs, or will not: for tests, and for whoever wants to wait."""
        if self._keeper is None:
            return
        waits = [
            asyncio.ensure_future(self._told.wait()),
            asyncio.ensure_future(self._keeper.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def close(self) -> None:
        """The daemon is stopped by its own command, then ended. Never raises for what it does."""
        with contextlib.suppress(SandboxError):
            if self.table.stop and not self._is_down():
                await self._sandbox.run(Command(script=self.table.stop, timeout_s=_STOP_LIMIT_S))
            await self._end_daemon()


def _why_no_answer(result: CommandResult) -> str:
    if result.timed_out:
        return "the warm command took too long"
    words = " ".join(result.output.split())[-_MAX_SHOWN:]
    return f"the warm command ended with {result.exit_code}" + (f": {words}" if words else "")
