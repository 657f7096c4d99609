"""A real kill at any step that touches the file system, for tests of what is left then."""

import os
import signal
import sys
from collections.abc import Callable, Set

STEPS = frozenset(
    {
        *("open", "tempfile.mkdtemp", "tempfile.mkstemp", "shutil.rmtree", "fcntl.flock"),
        *("subprocess.Popen", "ctypes.dlsym"),  # the latter right before a mount or its end
        *(f"os.{name}" for name in ("rename", "link", "symlink", "remove", "mkdir", "rmdir")),
        *("os.chmod", "os.utime"),
    }
)
"""Audit events (documentation of Python, "Audit events table")."""


def is_killed(step: int, work: Callable[[], object], steps: Set[str] = STEPS) -> bool:
    """Whether a child that does the work was killed right before its step of this number.

    With all that it had started. False: the work has fewer steps and was done. ``steps`` are
    the audit events that count.
    """
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        num_done = 0

        def count(event: str, _arguments: object) -> None:
            nonlocal num_done
            if event in steps:
                if num_done == step:
                    os.killpg(0, signal.SIGKILL)
                num_done += 1

        status = 1
        try:
            sys.addaudithook(count)
            work()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(ended)
    assert code in (0, -signal.SIGKILL)
    return code != 0
