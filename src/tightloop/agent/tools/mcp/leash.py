"""Runs a program and ends everything that it started, once it or the parent of this process is gone.

``PYTHON -I -S leash.py PARENT_PID COMMAND [ARGUMENT ...]``. The program has the standard streams for
itself. The kernel tells of the parent's end also after ``kill -9``, and hands over processes whose own
parent has ended, so that nothing stays behind. Source: prctl(2), PR_SET_PDEATHSIG and
PR_SET_CHILD_SUBREAPER. Runs by its path, without the package: standard library only.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_S = 1.0
"""Between SIGTERM and SIGKILL, when the parent is gone."""
_HEARD = (signal.SIGTERM, signal.SIGCHLD)


def main(parent_pid: int, command: list[str]) -> int:
    """The program's status, as a shell has it."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent_pid:  # it was gone before
        return 1
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    pid = os.fork()
    if pid == 0:
        _become(command)
    os.close(0)
    os.close(1)
    status = None
    while status is None:
        if signal.sigwait(_HEARD) == signal.SIGTERM:
            os.kill(pid, signal.SIGTERM)
            signal.sigtimedwait([signal.SIGCHLD], GRACE_S)
            break
        status = _reaped().get(pid)
    _end_all()
    return 143 if status is None else os.waitstatus_to_exitcode(status) % 256


def _become(command: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _reaped() -> dict[int, int]:
    """The statuses of all children that have ended."""
    found: dict[int, int] = {}
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found[ended[0]] = ended[1]
    except ChildProcessError:
        pass
    return found


def _end_all() -> None:
    """No process is left of all that were started. Killing one hands its children over."""
    while children := _children():
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except (ProcessLookupError, ChildProcessError):
                continue


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # no Linux, or a kernel without it: at least the group
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        return []


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
