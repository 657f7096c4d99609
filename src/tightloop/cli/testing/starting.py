"""Starts the background process of a project, once, whoever else wants to at the same moment."""

import _socket
import contextlib
import fcntl
import os
import sys
from pathlib import Path

from tightloop.cli.testing.asked import Asked
from tightloop.cli.testing.link import Gone, Unusable, connect, write

_READY = b"ready"


def start(state: str, request: Asked) -> _socket.socket:
    """A connection to a process that serves such requests, made now if there is none.

    Who comes second waits for the first. Raises Unusable with the reason when it does not start.
    """
    os.makedirs(state, mode=0o700, exist_ok=True)
    lock = os.open(f"{state}/{request.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return connect(state, request.name)
        except Gone:
            pass
        _spawn(state, request)
        try:
            return connect(state, request.name)
        except Gone:
            raise Unusable(
                f"the background process ended at once: see {log_of(state, request)}"
            ) from None
    finally:
        os.close(lock)


def log_of(state: str, request: Asked) -> Path:
    """What the process says that nobody is there to read."""
    return Path(state, f"{request.name}.log")


def _spawn(state: str, request: Asked) -> None:
    """It listens. The file of one that died is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{state}/{request.name}.sock")
    asked = os.memfd_create("request", os.MFD_CLOEXEC)
    reading, writing = os.pipe()
    try:
        write(asked, request.encode())
        os.lseek(asked, 0, os.SEEK_SET)
        for fd in (asked, writing):
            os.set_inheritable(fd, True)
        log = os.fspath(log_of(state, request))
        # -P: no module of the current directory is taken for one of ours or of Python's.
        argv = [sys.executable, "-P", "-m", "tightloop.cli.testing.background"]
        os.posix_spawn(
            sys.executable,
            [*argv, state, str(asked), str(writing)],
            own_environment(request.root),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # a ^C, and the end of the terminal, are not for it
        )
        os.close(writing)
        writing = -1
        said = b""
        while piece := os.read(reading, 4096):
            said += piece
    finally:
        for fd in (asked, reading, writing):
            if fd >= 0:
                os.close(fd)
    if said != _READY:
        reason = said.decode(errors="replace").strip()
        raise Unusable(reason or f"the background process ended: see {log_of(state, request)}")


def own_environment(root: str) -> dict[str, str]:
    """Ours, without places of the project on the search path: its modules run in the sandbox only."""
    environment = dict(os.environ)
    own = os.fspath(Path(__file__).parents[3])
    kept = [
        place
        for place in environment.pop("PYTHONPATH", "").split(os.pathsep)
        if place == own or (os.path.isabs(place) and not Path(place).is_relative_to(root))
    ]
    if kept:
        environment["PYTHONPATH"] = os.pathsep.join(kept)
    return environment


def tell_ready(fd: int, problem: str = "") -> None:
    """From the background process: it listens, or why it cannot."""
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, problem.encode(errors="replace") if problem else _READY)
    os.close(fd)
