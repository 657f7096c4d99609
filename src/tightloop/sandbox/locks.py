"""Locks between processes: a file that one of them holds, free again when its holder dies."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def acquire(path: Path, *, wait: bool = True) -> int | None:
    """A descriptor that holds the lock file; None when another holds it and ``wait`` is off.

    Closing it releases the lock. Whoever holds it may unlink the file: those who waited for that
    one notice, and take the file that is there then.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_there(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(path: Path, *, keep_file: bool = True) -> Iterator[None]:
    """The only one in here, over all processes and threads. The directory must exist."""
    fd = acquire(path)
    assert fd is not None
    try:
        yield
    finally:
        if not keep_file:
            path.unlink(missing_ok=True)
        os.close(fd)


def is_free(path: Path) -> bool:
    """Nobody holds the lock file now, or there is none. Makes no file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
