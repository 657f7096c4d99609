"""What a user does in the checkout while a workspace is open: seen at the cost of ``git status``.

A look names candidates: paths that git calls changed now, those that it called so at an earlier look, and
those in which the commit of this look differs from the one before. Only they are read. A directory
that is no git work tree is walked; a file is read again when its status has moved.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tightloop.sandbox.bases import Head, TreeState, git_head, run_git
from tightloop.sandbox.entries import CACHE_DIRECTORIES, Entry, files_below, read_below
from tightloop.sandbox.interface import SandboxError
from tightloop.trace.clock import unix_s

MAX_FILES = 10_000
MAX_BYTES = 256 << 20
"""What one look may bring: all of it is written into the view, and kept to tell later edits from it."""
_SETTLED_S = 2
"""A file written this long ago cannot be written again without another time of change."""
_STAGING = "tightloop-apply-"


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of following the user.

    ``taken`` came into the view, ``conflicts`` were changed on both sides and stay as they are in the
    view: each is named once for each version of the user's. ``moved`` says in words where the checkout
    went: another branch, other commits; else it is empty.
    """

    taken: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    moved: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.taken or self.conflicts or self.moved)


@dataclass(slots=True)
class Lookout:
    """Looks at one checkout again and again; ``exclude`` is a state directory that may lie inside."""

    repository: Path
    exclude: Path
    head: Head | None
    watched: set[str] = field(default_factory=set)
    statuses: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, state: TreeState, exclude: Path) -> "Lookout":
        """One for which the state, which a base was made of, was the first look."""
        head = Head(state.commit, state.branch) if state.commit is not None else None
        return cls(state.repository, exclude, head, set(state.overrides))

    def copy(self) -> "Lookout":
        """One that goes on from the same look."""
        statuses = dict(self.statuses)
        return Lookout(self.repository, self.exclude, self.head, set(self.watched), statuses)

    def look(self) -> tuple[set[str], str]:
        """Paths that may differ from what the last look saw, and where the checkout went, in words.

        Raises SandboxError when git fails, or when the directory has become or ceased to be a git
        work tree.
        """
        found = git_head(self.repository)
        if (found is None) != (self.head is None):
            raise SandboxError(
                f"{str(self.repository)!r} has become another kind of directory since this began "
                "(its .git came or went): begin a new conversation"
            )
        if found is None or self.head is None:
            return self._walked(), ""
        head, dirty = found
        candidates = dirty | self.watched
        if head.commit != self.head.commit:
            candidates |= self._between(self.head, head)
        moved = self._moved(self.head, head)
        self.head, self.watched = head, dirty
        return {path for path in candidates if not self._is_left_out(path)}, moved

    def keep(self, paths: Iterable[str]) -> None:
        """The next look names these in any case."""
        self.watched.update(paths)

    def _between(self, old: Head, new: Head) -> set[str]:
        words = ["diff-tree", "-r", "-z", "--name-only", "--no-renames"]
        try:
            listed = run_git([*words, str(old.commit), str(new.commit)], self.repository)
        except SandboxError:  # the old commit may have been collected; who knows what it had
            listed = run_git(["ls-files", "-z"], self.repository)
        return {os.fsdecode(name) for name in listed.split(b"\0") if name}

    def _moved(self, before: Head, head: Head) -> str:
        if head == before:
            return ""
        place = f"branch {head.branch!r}" if head.branch else "a detached HEAD"
        if head.branch != before.branch:
            return f"the checkout was switched to {place}, at {str(head.commit)[:10]}"
        words = ["rev-list", "--count", f"{before.commit}..{head.commit}"]
        listed = run_git(words, self.repository, accepted=(0, 128)).strip().decode()
        how = {"": "went to another commit", "0": "went back", "1": "has a new commit"}
        said = how.get(listed, f"has {listed} new commits")
        return f"the checkout's {place} {said}, at {str(head.commit)[:10]}"

    def _is_left_out(self, name: str) -> bool:
        return (self.repository / name).is_relative_to(self.exclude)

    def _walked(self) -> set[str]:
        """Of a plain directory: files whose status has moved, and those that have gone."""
        present: dict[str, tuple[int, ...]] = {}
        is_inside = self.exclude.is_relative_to(self.repository)
        for name in files_below(self.repository, ""):
            parts = name.split("/")
            if {".git", *CACHE_DIRECTORIES}.intersection(parts) or parts[0].startswith(_STAGING):
                continue
            if is_inside and self._is_left_out(name):
                continue
            status = status_of(self.repository / name)
            # One that was written just now may be written again without being seen: look again.
            present[name] = status if is_settled(status) else ()
        names = present.keys() | self.statuses.keys()
        moved = {name for name in names if present.get(name) != self.statuses.get(name)}
        moved |= {name for name, status in present.items() if not status}
        moved |= self.watched
        self.statuses, self.watched = present, set()
        return moved


def is_settled(status: tuple[int, ...]) -> bool:
    """Whether the file cannot be written again without another status."""
    return bool(status) and status[-1] < (unix_s() - _SETTLED_S) * 10**9


def status_of(path: Path) -> tuple[int, ...]:
    """Moves whenever the file is written or replaced: no change can set its last part back.

    Empty where there is nothing.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return (found.st_ino, found.st_size, found.st_mode, found.st_mtime_ns, found.st_ctime_ns)


def differing(
    tree: Path, paths: Iterable[str], known: Callable[[str], Entry | None]
) -> dict[str, Entry | None]:
    """What the tree holds where that is not what is ``known``, in order.

    Raises SandboxError when that is too much to follow.
    """
    found: dict[str, Entry | None] = {}
    num_bytes = 0
    for path in sorted(paths):
        entry = read_below(tree, path, max_bytes=MAX_BYTES)
        if entry == known(path):
            continue
        found[path] = entry
        num_bytes += len(entry.content) if entry is not None else 0
        if num_bytes > MAX_BYTES or len(found) > MAX_FILES:
            raise SandboxError(
                f"more than {MAX_FILES} files or {MAX_BYTES >> 20} MB of the checkout have changed "
                "since this began: end it and begin anew"
            )
    return found
