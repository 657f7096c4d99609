"""Private directories in the system's temporary one that go away also when their owner is killed.

Each has a lock that its owner holds. Whoever makes the next one removes those whose owner is dead,
and ends the processes that it had not come to end: an agent and its exec server may be killed at
the same moment, by the machine for want of memory, say.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tightloop.sandbox import locks
from tightloop.sandbox.layers import remove_tree
from tightloop.sandbox.strays import end_tagged

PREFIX = "tightloop-private-"
"""Nothing else is called so: whatever is, and has a free lock in it, is deleted."""


class PrivatePlace:
    """A new directory that nobody else can open. ``path`` is empty; the lock lies beside it."""

    def __init__(self) -> None:
        remove_abandoned()
        while True:
            self._root = Path(os.path.realpath(tempfile.mkdtemp(prefix=PREFIX)))
            try:
                lock_fd = locks.acquire(self._root / "lock")
            except FileNotFoundError:  # taken for an abandoned one before it was locked
                continue
            assert lock_fd is not None
            self._lock_fd = lock_fd
            break
        self.path = self._root / "tmp"
        self.path.mkdir(mode=0o700)

    def note_tag(self, tag: int) -> None:
        """Processes with this tag (see ``strays.py``) end with the owner of this directory."""
        (self._root / "tag").write_text(str(tag))

    def close(self) -> None:
        """The directory is gone. May be called twice."""
        if self._lock_fd >= 0:
            remove_tree(self._root)
            os.close(self._lock_fd)
            self._lock_fd = -1


def remove_abandoned() -> list[Path]:
    """No directory of this user is left whose owner is dead; those that were removed."""
    removed = []
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX)]
    for root in found:
        if not _is_ours(root) or not os.path.lexists(root / "lock"):
            continue
        with suppress(OSError):  # its owner removes it in this moment
            lock_fd = locks.acquire(root / "lock", wait=False)
            if lock_fd is not None:
                _end_processes(root)
                remove_tree(root)
                os.close(lock_fd)
                removed.append(root)
    return removed


def _end_processes(root: Path) -> None:
    with suppress(FileNotFoundError, ValueError):
        end_tagged(int((root / "tag").read_text()))


def _is_ours(root: Path) -> bool:
    """Others may make directories there too, and links."""
    try:
        status = root.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
