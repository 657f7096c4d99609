"""What libraries write to standard error while the screen is in use goes into a file instead."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stray_output(path: Path) -> Iterator[None]:
    """Standard error is this file, if it would be a terminal; the file is removed if it stays empty."""
    if not os.isatty(2):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    os.set_inheritable(before, False)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.dup2(fd, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        if os.fstat(fd).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(fd)
