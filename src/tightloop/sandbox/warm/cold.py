# ruff: noqa: TID252 - started as a script, without the package above
"""A cold run that says per test how it ended: what warm verdicts are checked against.

An interpreter of its own with nothing resident. Like a warm run it believes no cached code of the
project, which may be stale for edits within one second.
"""

import fcntl
import os
import sys
from typing import Any, NoReturn

from .child import HIGH_FD, become_cold, end_child, register, run_pytest
from .compiled import Codes
from .report import Lines, OutcomePlugin


def main() -> NoReturn:
    """``cold REPORT WORKSPACE PROGRAM ARGUMENT...``; PROGRAM is the python or the pytest script."""
    _, _, report, workspace, program, *args = sys.argv
    opened = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    os.close(opened)
    is_module = not os.path.basename(program).startswith("pytest")
    request: dict[str, Any] = {
        "args": args,
        "program": program,
        "is_module": is_module,
        "is_script": False,
        "cwd": os.getcwd(),
        "environment": {},
    }
    become_cold(request, os.path.realpath(workspace), Codes())
    register([OutcomePlugin(Lines(fd))])
    end_child(run_pytest("" if is_module else program))
