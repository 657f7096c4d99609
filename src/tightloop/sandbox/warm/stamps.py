"""Whether files have changed, without trusting modification times and sizes alone."""

import hashlib
import os
import stat
import time
from collections.abc import Iterator

Status = tuple[int, ...]

_YOUNG_NS = 2_000_000_000
_MAX_FILES = 30_000
_TOOL_DIRECTORIES = frozenset(
    (".git", ".hg", ".svn", "__pycache__", "node_modules", ".tox", ".nox", ".hypothesis")
)
_TOOL_CACHES = ("cache",)  # .pytest_cache, .mypy_cache, .ruff_cache


class TooManyFiles(Exception):
    """The tree is too large to be looked through before every run."""


def is_below(path: str, directory: str) -> bool:
    """Whether a path lies in a directory; whole components, not string prefixes."""
    return path == directory or path.startswith(directory + os.sep)


def stamp(path: str) -> Status:
    """Changes whenever the file does, or the names in the directory; empty when it is gone.

    Cached byte code does not count: running tests elsewhere with the same interpreter makes it.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return (hash(frozenset(os.listdir(path)) - {"__pycache__"}), status.st_ino)
    except OSError:
        return ()
    return _of(status)


def digest(path: str) -> bytes:
    """A hash of the content; empty when it cannot be read, or is no file.

    Opened without waiting: a fifo would else hold this process until somebody writes.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return hashlib.blake2b(file.read(), digest_size=16).digest()
    except OSError:
        pass
    return b""


class Seen:
    """One file as it was. A write in the same clock tick leaves times and size as they were, so
    a file that was young when it was looked at is compared by content until it has aged."""

    __slots__ = ("content", "status")

    def __init__(self, path: str) -> None:
        # a directory only has to be there: what is in it is listed anyway
        self.status = () if path.endswith(os.sep) else stamp(path)
        self.content = digest(path) if is_young(self.status) else None

    def has_changed(self, path: str) -> bool:
        """Whether the file is another one now."""
        if path.endswith(os.sep):
            return False
        status = stamp(path)
        if status != self.status:
            return True
        if self.content is None:
            return False
        if digest(path) != self.content:
            return True
        if not is_young(status):
            self.content = None  # from now on every write shows in the times
        return False


def is_young(status: Status) -> bool:
    """Whether a file (not a directory) changed so lately that another change may not show."""
    if len(status) < 4:
        return False
    # Compared with file times, which are wall time; it decides what is hashed, nothing else.
    return time.time_ns() - status[1] < _YOUNG_NS


class Tree:
    """Every file of a directory as it was, tool caches and environments left out.

    Raises TooManyFiles.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.seen = {path: Seen(path) for path in files_below(root)}

    def changes(self) -> tuple[str, list[str]]:
        """A new or missing path (empty when there is none), and the files that have changed."""
        now = set(files_below(self.root))
        listing = now ^ self.seen.keys()
        if listing:
            return min(listing), []
        return "", [path for path, seen in self.seen.items() if seen.has_changed(path)]


def files_below(root: str) -> Iterator[str]:
    """Paths of files and links, and of directories with a trailing slash."""
    waiting, num_files = [root], 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                listing = list(entries)
        except OSError:
            continue
        for entry in listing:
            num_files += 1
            if num_files > _MAX_FILES:
                raise TooManyFiles(f"more than {_MAX_FILES} files in {root}")
            if not entry.is_dir(follow_symlinks=False):
                if not entry.name.endswith((".pyc", "~", ".swp")):
                    yield entry.path
            elif not is_tools(entry.name, entry.path):
                yield entry.path + os.sep
                waiting.append(entry.path)


def is_tools(name: str, path: str) -> bool:
    """Whether a directory belongs to a tool or is an environment of its own."""
    return (
        name in _TOOL_DIRECTORIES
        or (name.startswith(".") and name.endswith(_TOOL_CACHES))
        or os.path.exists(os.path.join(path, "pyvenv.cfg"))
    )


def _of(status: os.stat_result) -> Status:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
