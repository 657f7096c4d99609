"""What a path of a tree holds, and how two trees differ."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

CACHE_DIRECTORIES = frozenset(
    {"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"}
)
"""Left out of a result when they are new: tools make them, nobody wants them back."""

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


def read_entry(path: Path | str, *, dir_fd: int | None = None) -> Entry | None:
    """The entry there; None for nothing, a directory, a fifo, a socket or a device.

    Links on the way are followed: for what commands can change it is ``read_below`` that is wanted.
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
        return Entry(file.read(), is_executable=bool(status.st_mode & stat.S_IXUSR))


def read_below(root: Path, name: str) -> Entry | None:
    """The entry with this relative path; None as well for what only a link on the way leads to.

    Such a file is not the tree's. It may be of the host, where the link came from a command.
    """
    *parents, last = name.split("/")
    directory = os.open(root, _DIRECTORY)
    try:
        for parent in parents:
            above = directory
            try:
                directory = os.open(parent, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            except OSError as error:
                if error.errno in _NOTHING_THERE:
                    return None
                raise
            os.close(above)
        return read_entry(last, dir_fd=directory)
    finally:
        os.close(directory)


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


def compare(before: Path, after: Path, candidates: set[str]) -> list[Change]:
    """The candidates that really differ, in order; version control's own files left out.

    A touch or a copy on write makes a candidate, but no change.
    """
    changes = []
    for path in sorted(candidates):
        parts = path.split("/")
        if ".git" in parts:
            continue
        old, new = read_below(before, path), read_below(after, path)
        if old == new or (old is None and CACHE_DIRECTORIES.intersection(parts)):
            continue
        changes.append(Change(path, old, new))
    return changes
