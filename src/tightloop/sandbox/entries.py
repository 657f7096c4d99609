"""What a path of a tree holds, and how two trees differ."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.interface import SandboxError

CACHE_DIRECTORIES = frozenset(
    {"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"}
)
"""Left out of a result when they are new: tools make them, nobody wants them back."""

MAX_BYTES = 1 << 30
"""What a result may hold: all of it is in memory while it is shown or applied."""

_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # the latter two for a link


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a symbolic link, as version control sees it. ``content`` of a link: its target."""

    content: bytes
    is_executable: bool = False
    is_link: bool = False

    @property
    def git_mode(self) -> str:
        """The mode that git writes into patches."""
        if self.is_link:
            return "120000"
        return "100755" if self.is_executable else "100644"


@dataclass(frozen=True, slots=True)
class Change:
    """One path whose entry differs; None where there is no file. ``path`` is relative, with /."""

    path: str
    before: Entry | None
    after: Entry | None


class TooLarge(SandboxError):
    """More than was asked for at most."""


def read_entry(
    path: Path | str, *, dir_fd: int | None = None, max_bytes: int | None = None
) -> Entry | None:
    """The entry there; None for nothing, a directory, a fifo, a socket or a device.

    Links on the way are followed: for what commands can change it is ``read_below`` that is wanted.
    Raises TooLarge for a file of more than ``max_bytes``.
    """
    try:
        status = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return Entry(os.fsencode(os.readlink(path, dir_fd=dir_fd)), is_link=True)
        if not stat.S_ISREG(status.st_mode):
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(path, flags, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(fd, "rb") as file:
        if max_bytes is not None and os.fstat(fd).st_size > max_bytes:
            raise TooLarge(f"{str(path)!r} has more than {max_bytes} bytes")
        return Entry(file.read(), is_executable=bool(status.st_mode & stat.S_IXUSR))


def read_below(root: Path, name: str, *, max_bytes: int | None = None) -> Entry | None:
    """The entry with this relative path; None as well for what only a link on the way leads to.

    Such a file is not the tree's. It may be of the host, where the link came from a command.
    Raises what ``read_entry`` raises.
    """
    directory = open_parent(root, name)
    if directory is None:
        return None
    try:
        return read_entry(name.rpartition("/")[2], dir_fd=directory, max_bytes=max_bytes)
    finally:
        os.close(directory)


def has_entry(root: Path, name: str) -> bool:
    """Whether ``read_below`` finds something: a file or a link."""
    directory = open_parent(root, name)
    if directory is None:
        return False
    try:
        last = name.rpartition("/")[2]
        mode = os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode
        return stat.S_ISREG(mode) or stat.S_ISLNK(mode)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return False
        raise
    finally:
        os.close(directory)


def open_parent(root: Path, name: str) -> int | None:
    """A descriptor of the directory that the relative path is in; None where there is none.

    One that a link on the way leads to does not count, also if it is put there in this moment.
    """
    directory = os.open(root, _DIRECTORY)
    for parent in name.split("/")[:-1]:
        above = directory
        try:
            directory = os.open(parent, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                return None
            raise
        finally:
            os.close(above)
    return directory


def files_below(root: Path, relative: str) -> set[str]:
    """Relative paths of all files and links below a directory, links not followed."""
    found: set[str] = set()
    waiting = [relative]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                else:
                    found.add(name)
    return found


def compare(
    before: Path, after: Path, candidates: set[str], *, max_bytes: int = MAX_BYTES
) -> list[Change]:
    """The candidates that really differ, in order; version control's own files left out.

    A touch or a copy on write makes a candidate, but no change. Raises TooLarge when all of them
    hold more than ``max_bytes``, old and new content counted: a file may be large and take no room.
    """
    changes = []
    num_left = max_bytes
    for path in sorted(candidates):
        parts = path.split("/")
        if ".git" in parts:
            continue
        try:
            old = read_below(before, path, max_bytes=max_bytes)
            new = read_below(after, path, max_bytes=max_bytes)
        except TooLarge as error:
            raise _too_large(path, max_bytes) from error
        if old == new or (old is None and CACHE_DIRECTORIES.intersection(parts)):
            continue
        num_left -= sum(len(entry.content) for entry in (old, new) if entry is not None)
        if num_left < 0:
            raise _too_large(path, max_bytes)
        changes.append(Change(path, old, new))
    return changes


def _too_large(path: str, max_bytes: int) -> TooLarge:
    return TooLarge(
        f"more than {max_bytes} bytes were changed, not all of {path!r} among them: "
        "delete large files, or let git ignore them"
    )
