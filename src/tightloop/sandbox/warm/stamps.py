"""Whether files have changed, without trusting modification times and sizes alone."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator

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
    Nor do hidden directories of tools, which a first test run makes: no import can mean them.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            names = frozenset(name for name in os.listdir(path) if not _is_never_imported(name))
            return (hash(names), status.st_ino)
    except OSError:
        return ()
    return _of(status)


def _is_never_imported(name: str) -> bool:
    is_hidden = name.startswith(".")
    is_of_tools = name in _TOOL_DIRECTORIES or name.endswith(_TOOL_CACHES)
    return name == "__pycache__" or (is_hidden and is_of_tools)


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


class Listing:
    """The names in one directory; looked at anew when the directory has changed, or might have
    within the clock tick in which it was looked at."""

    __slots__ = ("is_sure", "names", "status")

    def __init__(self, directory: str) -> None:
        self.status = plain_stamp(directory)  # before the names: what comes between is a change
        self.names = frozenset(entries_of(directory))
        self.is_sure = bool(self.status) and not is_young(self.status)

    def changed(self, directory: str) -> str:
        """A path that is new or gone; empty when there is none."""
        if self.is_sure and plain_stamp(directory) == self.status:
            return ""
        now = Listing(directory)
        if now.names != self.names:
            return min(now.names ^ self.names)
        self.status, self.is_sure = now.status, now.is_sure
        return ""


class Tree:
    """Every file of a directory as it was, tool caches and environments left out.

    Raises TooManyFiles.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._listings = {root: Listing(root)}
        self.seen: dict[str, Seen] = {}
        waiting = [root]
        while waiting:
            for path in self._listings[waiting.pop()].names:
                self.seen[path] = Seen(path)
                if len(self.seen) > _MAX_FILES:
                    raise TooManyFiles(f"more than {_MAX_FILES} files in {root}")
                if path.endswith(os.sep):
                    waiting.append(path[:-1])
                    self._listings[path[:-1]] = Listing(path[:-1])
        self._watched = self.seen

    def watch_only(self, known: Callable[[str], bool]) -> None:
        """From now on only these files are said to have changed. New and missing ones are always."""
        self._watched = {path: seen for path, seen in self.seen.items() if known(path)}

    def lists(self, directory: str) -> bool:
        """Whether a new or missing name there is a change."""
        return directory in self._listings

    def changes(self) -> tuple[str, list[str]]:
        """A new or missing path (empty when there is none), and the files that have changed."""
        for directory, listing in self._listings.items():
            path = listing.changed(directory)
            if path:
                return path, []
        return "", [path for path, seen in self._watched.items() if seen.has_changed(path)]


def files_below(root: str) -> Iterator[str]:
    """Paths of files and links, and of directories with a trailing slash. Raises TooManyFiles."""
    waiting, num_files = [root], 0
    while waiting:
        for path in entries_of(waiting.pop()):
            num_files += 1
            if num_files > _MAX_FILES:
                raise TooManyFiles(f"more than {_MAX_FILES} files in {root}")
            yield path
            if path.endswith(os.sep):
                waiting.append(path[:-1])


def entries_of(directory: str) -> Iterator[str]:
    """The same, of one directory alone; nothing when it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            listing = list(entries)
    except OSError:
        return
    for entry in listing:
        if not entry.is_dir(follow_symlinks=False):
            if not entry.name.endswith((".pyc", "~", ".swp")):
                yield entry.path
        elif not is_tools(entry.name, entry.path):
            yield entry.path + os.sep


def plain_stamp(path: str) -> Status:
    """That of the file or directory itself; empty when it is gone."""
    try:
        return _of(os.stat(path))
    except OSError:
        return ()


def is_tools(name: str, path: str) -> bool:
    """Whether a directory belongs to a tool or is an environment of its own."""
    return (
        name in _TOOL_DIRECTORIES
        or (name.startswith(".") and name.endswith(_TOOL_CACHES))
        or os.path.exists(os.path.join(path, "pyvenv.cfg"))
    )


def _of(status: os.stat_result) -> Status:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
