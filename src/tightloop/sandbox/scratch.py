"""Private places of a sandbox, brought back to how they were between two uses of it.

Standard library only: the exec server loads this file by its path, where it is needed at all. No
command may be running meanwhile. What cannot be brought back is said, and the sandbox is then not
used again.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

_IPC_LISTS = ("shm", "sem", "msg")


class Scratch:
    """Remembers what is in the places when it is made. Places that do not exist are left out."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = [place for place in places if os.path.isdir(place)]
        self._before = self._listing()
        self._queues_before = _queues()

    def clear(self) -> str:
        """All that was made since is gone; or why that is not so, or what else has changed."""
        for place in self._places:
            for path, status in _entries(place):
                if path not in self._before:
                    _remove(path, status)
        now = self._listing()
        for path in sorted(now.keys() ^ self._before.keys()):
            return f"{path} was {'removed' if path in self._before else 'made'} by a command"
        for path, known in self._before.items():
            if now[path] != known:
                return f"{path} was changed by a command"
        for kind, number in sorted(_queues() - self._queues_before):
            return f"System V object {number} ({kind}) was left by a command"
        return ""

    def _listing(self) -> dict[str, tuple[int, ...]]:
        return {
            path: _identity(status) for place in self._places for path, status in _entries(place)
        }


def _entries(place: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below on the same file system, the deepest first; mount points are not listed."""
    device = os.lstat(place).st_dev
    directories = [place]
    found = []
    while directories:
        directory = directories.pop()
        try:
            entries = _listed(directory)
        except PermissionError:  # closed by a command
            os.chmod(directory, 0o700)
            entries = _listed(directory)
        for path, status in entries:
            if status.st_dev != device:
                continue
            found.append((path, status))
            if stat.S_ISDIR(status.st_mode):
                directories.append(path)
    yield from reversed(found)


def _listed(directory: str) -> list[tuple[str, os.stat_result]]:
    with os.scandir(directory) as entries:
        return [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]


def _identity(status: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(status.st_mode):
        return (status.st_mode, status.st_ino)
    return (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _remove(path: str, status: os.stat_result) -> None:
    with contextlib.suppress(OSError):  # what is still there afterwards is reported
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)


def _queues() -> set[tuple[str, str]]:
    """Kinds and numbers of shared memory, semaphores and queues, which outlive their processes."""
    found = set()
    for kind in _IPC_LISTS:
        with contextlib.suppress(OSError), open(f"/proc/sysvipc/{kind}") as file:
            found |= {(kind, line.split()[1]) for line in file.read().splitlines()[1:]}
    return found
