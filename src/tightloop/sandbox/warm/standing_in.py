# ruff: noqa: TID252 - started as a script, without the package above
"""Descriptors of a process that pytest was started in before anybody asked for the run.

What pytest prints until then goes to a stand-in. In the child of a run every descriptor that
leads to the stand-in, however it came about, leads to the run's output instead, and each nameless
file (pytest captures into such) is a new one, so that no two runs share a position.
"""

import os
import stat
from dataclasses import dataclass, field

from .child import HIGH_FD, follow_lines
from .recording import Refusal

Shape = tuple[int, ...]
"""What a program can tell of its output: columns and lines of a terminal, else nothing."""
_Identity = tuple[int, int, int]


def shape_of(fd: int) -> Shape:
    """The shape of an output. Raises OSError."""
    return tuple(os.get_terminal_size(fd)) if os.isatty(fd) else ()


class StandIn:
    """Takes what is printed, and looks like the output that it stands in for."""

    def __init__(self, shape: Shape) -> None:
        self._far = -1
        if shape:
            self._far, fd = os.openpty()
            _make_terminal(fd, shape)
            os.set_blocking(self._far, False)
            # more than a terminal holds fails instead of waiting for ever
            os.set_blocking(fd, False)
        else:
            fd = os.memfd_create("output", os.MFD_CLOEXEC)
        self.identity = _identity(os.fstat(fd))
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        self.fd = raised(fd)
        self._far = raised(self._far)
        follow_lines()

    def said(self) -> bytes:
        """Everything that was printed. To be called once."""
        if self._far < 0:
            return os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        pieces = []
        try:
            while piece := os.read(self._far, 1 << 16):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)


def raised(fd: int) -> int:
    """The same above the numbers that a run uses; -1 stays what it is."""
    import fcntl

    if fd < 0:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    os.close(fd)
    return moved


@dataclass(slots=True)
class Descriptors:
    """What is open below ``HIGH_FD`` before the first test runs."""

    outputs: list[int] = field(default_factory=list)
    nameless: dict[_Identity, list[int]] = field(default_factory=dict)
    others: list[int] = field(default_factory=list)

    @classmethod
    def of_now(cls, stand_in: StandIn) -> "Descriptors":
        """Raises Refusal for one that children would share."""
        found = cls()
        for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
            if fd >= HIGH_FD:
                continue
            try:
                status = os.fstat(fd)
            except OSError:
                continue  # that of the listing itself
            identity = _identity(status)
            if identity == stand_in.identity:
                found.outputs.append(fd)
            elif stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
                found.others.append(fd)
            elif stat.S_ISREG(status.st_mode) and not status.st_nlink and not status.st_size:
                found.nameless.setdefault(identity, []).append(fd)
            else:
                raise Refusal(f"{os.readlink(f'/proc/self/fd/{fd}')} stays open")
        return found

    def hand_over(self, output: int, kept: list[int]) -> None:
        """In the child: to the run. ``output`` and ``kept`` lie above ``HIGH_FD``."""
        for fd in self.outputs:
            os.dup2(output, fd, inheritable=os.get_inheritable(fd))
        for fds in self.nameless.values():
            fresh = raised(os.memfd_create("captured", os.MFD_CLOEXEC))
            for fd in fds:
                os.dup2(fresh, fd, inheritable=os.get_inheritable(fd))
            os.close(fresh)
        mine = [*self.outputs, *self.others, *(fd for fds in self.nameless.values() for fd in fds)]
        first = 0
        for fd in [*sorted({*mine, *kept}), 4096]:
            if first < fd:  # nothing up to 0 would be everything
                os.closerange(first, fd)
            first = fd + 1


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_dev, status.st_ino, status.st_rdev)


def _make_terminal(fd: int, shape: Shape) -> None:
    import fcntl
    import struct
    import termios
    import tty

    tty.setraw(fd)
    columns, lines = shape
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
