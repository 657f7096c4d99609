"""The tool ``exec_command``: one command in the session's sandbox, to its end."""

import codecs
import os
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tightloop.agent.events import CommandExecution, ThreadItem
from tightloop.agent.patch.plan import PatchPolicy
from tightloop.agent.patch.shell_form import (
    ShellPatch,
    is_bare_patch,
    patch_in_argv,
    patch_in_command,
)
from tightloop.agent.tools.apply_patch import run_patch
from tightloop.agent.tools.arguments import ArgumentsError, read_object
from tightloop.agent.tools.interface import ToolContext, ToolResult
from tightloop.agent.tools.output import Foretelling, shorten_output
from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.trace.spans import Span

DEFAULT_TIMEOUT_S = 120.0
MAX_TIMEOUT_S = 600.0
_EXAMPLE = '{"cmd": "ls -la"}'
_WRAPPER = r"""(?:
    \w+=\S*\s+
  | (?:uv|poetry|pipenv|hatch|pdm|rye)\s+run\s+
  | (?:time|env|nice|exec|npx|sudo|xvfb-run|coverage\s+run|timeout\s+\S+)\s+
  | \S*python[\d.]*\s+(?:-[^\sm]\S*\s+(?:[^-\s]\S*\s+)?)*-m\s+
)*"""
_RUNNER = r"""(?:\S*/)?(?:
    pytest | py\.test | tox | nox | unittest | jest | vitest | rspec | ctest
  | (?:npm|pnpm|yarn|bun|deno)\s+(?:run\s+)?test
  | (?:cargo|go|make|mvn|gradle|dotnet|mix|swift|zig)\s+(?:-\S+\s+)*test
)"""
_TEST_RUN = re.compile(rf"(?:^|[;&|(\n])\s*{_WRAPPER}{_RUNNER}(?:[\s;&|)]|$)", re.VERBOSE)


def is_test_run(command: str) -> bool:
    """Whether the command line runs tests, for the ledger's part ``test``."""
    return _TEST_RUN.search(command) is not None


@dataclass(frozen=True, slots=True)
class Requested:
    """What a call asks for: a command, or with ``is_patch`` a patch in a shell's words."""

    command: Command
    shown: str
    is_patch: bool


def requested(arguments: str, workspace: Path) -> Requested | None:
    """What a call with these arguments asks for; None when the tool would refuse them."""
    try:
        command, shown = _read(arguments, workspace)
    except ArgumentsError:
        return None
    if is_bare_patch(shown):
        return None
    return Requested(command, shown, _patch_in(command) is not None)


class ExecCommand:
    """``{"cmd": str, "workdir"?: str, "timeout_s"?: number}``; ``cmd`` may be a list of words."""

    name = "exec_command"
    is_ordered = True

    def definition(self) -> dict[str, Any]:
        """See ``Tool.definition``."""
        return {
            "type": "function",
            "name": self.name,
            "description": (
                "Runs a command in the workspace and returns its exit code and output when it "
                "ends. The command is a line for bash. Long output is cut in the middle."
            ),
            "strict": False,
            "parameters": {
                "type": "object",
                "properties": {
                    "cmd": {"type": "string", "description": "The command line."},
                    "workdir": {
                        "type": "string",
                        "description": "Directory to start in, relative to the workspace.",
                    },
                    "timeout_s": {
                        "type": "number",
                        "description": f"Seconds until it is killed; {DEFAULT_TIMEOUT_S:.0f} "
                        f"by default, {MAX_TIMEOUT_S:.0f} at most.",
                    },
                },
                "required": ["cmd"],
                "additionalProperties": False,
            },
        }

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        """See ``Tool.announce``; None for bad arguments and for patches in shell form."""
        try:
            command, shown = _read(arguments, Path("/"))
        except ArgumentsError:
            return None
        if _patch_in(command) is not None:
            return None
        return CommandExecution(item_id, shown)

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """See ``Tool.run``."""
        try:
            command, shown = _read(arguments, context.shown_at or context.workspace)
        except ArgumentsError as error:
            return ToolResult(str(error), is_ok=False)
        patch = _patch_in(command)
        if patch is not None:
            return _patch_from_shell(patch, command, context)
        if is_bare_patch(shown):
            return ToolResult(
                "exec_command: the command is a bare patch. Call the apply_patch tool with it.",
                is_ok=False,
            )
        start_ns = context.clock.now_ns()
        kind = "test" if is_test_run(shown) else "tool"
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        foretelling = Foretelling(context.on_text)

        def hear(data: bytes) -> None:
            text = decoder.decode(data)
            context.on_output(text)
            foretelling.feed(text)

        try:
            result = await context.sandbox.run(command, hear)
        except SandboxError as error:
            item = CommandExecution(context.item_id, shown, str(error), None, "failed")
            span = Span(kind, start_ns, context.clock.now_ns(), shown)
            return ToolResult(f"exec_command: {error}", False, (span,), item)
        span = Span(kind, start_ns, context.clock.now_ns(), shown)
        return ToolResult(
            _as_text(result, command.timeout_s),
            result.exit_code == 0,
            (span,),
            CommandExecution(
                context.item_id,
                shown,
                result.output,
                result.exit_code,
                "completed" if result.exit_code == 0 else "failed",
                None if result.how == "spawn" else result.how,
            ),
        )


def _read(arguments: str, workspace: Path) -> tuple[Command, str]:
    """The command, and how to show it on one line."""
    fields = read_object(arguments, "exec_command", _EXAMPLE)
    cmd = fields.get("cmd", fields.get("command"))
    timeout_s = fields.get("timeout_s", DEFAULT_TIMEOUT_S)
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if timeout_s is None:
        timeout_s = DEFAULT_TIMEOUT_S
    elif not is_number or not timeout_s > 0:
        raise ArgumentsError(f"exec_command: timeout_s must be above 0, got {timeout_s!r}")
    command = Command(
        cwd=_directory(fields.get("workdir"), workspace),
        timeout_s=min(float(timeout_s), MAX_TIMEOUT_S),
    )
    if isinstance(cmd, str) and cmd.strip() and "\0" not in cmd:
        return replace(command, script=cmd), cmd
    if isinstance(cmd, list) and cmd and all(isinstance(word, str) for word in cmd):
        shells = ("bash", "sh", "/bin/bash", "/bin/sh")
        if len(cmd) == 3 and cmd[0] in shells and cmd[1] in ("-c", "-lc"):
            return replace(command, script=cmd[2]), cmd[2]
        return replace(command, argv=cmd), " ".join(cmd)
    raise ArgumentsError(f"exec_command: 'cmd' must be a command line. Send {_EXAMPLE}")


def _directory(workdir: object, workspace: Path) -> str:
    """The directory relative to the workspace. Outside of it the sandbox decides anyway."""
    if workdir is None or workdir == "":
        return "."
    if not isinstance(workdir, str) or "\0" in workdir:
        raise ArgumentsError(f"exec_command: workdir must be a path, got {workdir!r}")
    if workdir.startswith("/"):
        if not Path(workdir).is_relative_to(workspace):
            raise ArgumentsError(
                f"exec_command: workdir {workdir!r} is outside the workspace {workspace}; "
                "give a path relative to it"
            )
        return str(Path(workdir).relative_to(workspace))
    return workdir


def _patch_in(command: Command) -> ShellPatch | None:
    if command.script is not None:
        return patch_in_command(command.script)
    return patch_in_argv(list(command.argv or ()))


def _patch_from_shell(patch: ShellPatch, command: Command, context: ToolContext) -> ToolResult:
    directory = os.path.join(command.cwd, patch.workdir)
    return run_patch(patch.text, context, PatchPolicy(directory=os.path.normpath(directory)))


def _as_text(result: CommandResult, timeout_s: float) -> str:
    """What is known last comes last, so that the model can read the output while it grows."""
    wall_s = (result.ended_ns - result.started_ns) / 1e9
    if result.timed_out:
        ending = f"Process killed at its deadline of {timeout_s:g} seconds"
    elif result.exit_code < 0:
        ending = f"Process ended by signal {_signal_name(-result.exit_code)}"
    else:
        ending = f"Process exited with code {result.exit_code}"
    shown = f"{shorten_output(result.output)}\n" if result.output else ""
    return f"{shown}{ending}\nWall time: {wall_s:.1f} seconds"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
