"""What a candidate has to pass: one test command, as somebody who is no candidate has named it.

In this order: ``[test] command`` of the repository's ``.tightloop.toml``; the last test command
between back quotes in the task; the last one in the project's AGENTS.md. Where none of them names one, a
candidate is measured by the test command that it ran last itself, which is a weaker promise.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tightloop.agent.guess import commands_in
from tightloop.agent.tools.exec_command import DEFAULT_TIMEOUT_S
from tightloop.harness.workshop import configured_test_command
from tightloop.sandbox.interface import Command, CommandResult

_COUNTED = re.compile(r"\b(\d+) (?:failed|failures?|errors?)\b")


@dataclass(frozen=True, slots=True)
class Goal:
    """``command`` is None where nobody named one; ``source`` says who did."""

    command: Command | None
    source: str

    def is_it(self, command: Command) -> bool:
        """Whether somebody has asked for exactly this command, if with another time limit."""
        return self.command is not None and is_same_command(self.command, command)

    @property
    def shown(self) -> str | None:
        """The command on a line."""
        return None if self.command is None else line_of(self.command)


def find_goal(repository: Path, task: str, rules: Iterable[str]) -> Goal:
    """What counts for this task. Raises UsageError for a configuration that cannot be read."""
    configured = configured_test_command(repository)
    if configured is not None:
        return Goal(_command(configured), "configured")
    named = commands_in(task)
    if named:
        return Goal(_command(named[-1]), "named in the task")
    ruled = [line for text in rules for line in commands_in(text)]
    if ruled:
        return Goal(_command(ruled[-1]), "named in AGENTS.md")
    return Goal(None, "")


def is_same_command(one: Command, other: Command) -> bool:
    """Whether both run the same words in the same directory."""
    return _words(one) == _words(other)


def line_of(command: Command) -> str:
    """The command on a line."""
    return command.script or " ".join(command.argv or ())


def is_pass(result: CommandResult) -> bool:
    """The command itself said so, in time."""
    return result.exit_code == 0 and not result.timed_out


def num_failed(output: str) -> int | None:
    """How many tests failed, as the last line with such a number tells; None without one."""
    for line in reversed(output.splitlines()):
        if found := _COUNTED.findall(line):
            return sum(map(int, found))
    return None


def as_fresh(command: Command) -> Command:
    """To be run for its verdict alone."""
    return replace(command, is_reporting=False)


def _command(line: str) -> Command:
    return Command(script=line, timeout_s=DEFAULT_TIMEOUT_S)


def _words(command: Command) -> tuple[str, tuple[str, ...], str]:
    script = (command.script or "").strip()
    return script, tuple(command.argv or ()), os.path.normpath(command.cwd)
