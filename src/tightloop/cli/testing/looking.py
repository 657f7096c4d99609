"""What only the inside of a sandbox can tell: whether a program is a Python, and has pytest.

And what root alone must be told: its sandbox has no capabilities, so it writes to nothing that
belongs to somebody else.
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from tightloop.sandbox.interface import Command, CommandResult, SandboxError

_ASK_VERSION = "import sys; print(sys.version_info[0])"
_LIMIT_S = 20.0
_MAX_SHOWN = 200


class Runner(Protocol):
    """The part of a sandbox that is needed here."""

    async def run(self, command: Command) -> CommandResult:
        """See ``Sandbox.run``."""


async def check_interpreter(runner: Runner, program: Path) -> None:
    """It is a Python 3. Raises SandboxError naming what it said instead."""
    result = await runner.run(_python(program, _ASK_VERSION))
    if result.exit_code != 0 or _last_line(result) != "3":
        raise SandboxError(
            f"{program} is no Python 3 (-c '{_ASK_VERSION}' ended with {result.exit_code}: "
            f"{_last_line(result) or 'no output'}); name an interpreter by --python, or mend .venv"
        )


async def why_no_pytest(runner: Runner, program: Path) -> str:
    """Why this interpreter cannot run pytest; empty when it can. Raises SandboxError."""
    result = await runner.run(_python(program, "import pytest"))
    said = _last_line(result)
    if result.exit_code == 0:
        return ""
    if said == "ModuleNotFoundError: No module named 'pytest'":
        return f"pytest is not installed for {program}"
    return f"pytest cannot be imported by {program}: {said}"


def _python(program: Path, code: str) -> Command:
    return Command(argv=[str(program), "-c", code], timeout_s=_LIMIT_S)


def _last_line(result: CommandResult) -> str:
    lines = result.output.strip().splitlines()
    return lines[-1].strip()[:_MAX_SHOWN] if lines else ""


def why_not_writable(root: Path, user: int, groups: Collection[int]) -> str:
    """Why tests cannot write to the project although the user could; empty when they can.

    Root alone loses by a sandbox: it has no capabilities there, and is an ordinary owner of files.
    """
    status = root.stat()
    mode = status.st_mode
    if status.st_uid == user:
        return ""
    is_writable = bool(mode & (stat.S_IWGRP if status.st_gid in groups else stat.S_IWOTH))
    if user != 0 or is_writable:
        return ""
    owner = status.st_uid
    return (
        f"tests cannot write to {root}: it belongs to user {owner}, and root has no special rights "
        f"in a sandbox; 'chown -R root {root}', or run this as its owner ('sudo -u \\#{owner}')"
    )


def own_groups() -> frozenset[int]:
    """Of this process."""
    return frozenset((os.getegid(), *os.getgroups()))
