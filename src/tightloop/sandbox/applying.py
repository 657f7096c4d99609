"""Writes a result into the user's tree: all of it or nothing.

Everything is checked, then written beside the tree, then moved into place. A journal written
before the first move lets the next start undo a half-done one after a crash.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.entries import Change, Entry, read_entry
from tightloop.sandbox.interface import SandboxError

_PREFIX = "tightloop-apply-"
_JOURNAL = "journal.json"


class WorkspaceConflict(SandboxError):
    """The user changed these files meanwhile; nothing was written. ``paths`` names them."""

    def __init__(self, paths: Sequence[str]) -> None:
        names = ", ".join(repr(path) for path in paths)
        super().__init__(f"changed by you meanwhile, nothing was written: {names}")
        self.paths = tuple(paths)


@dataclass(frozen=True, slots=True)
class _Move:
    """One path to replace: ``number`` names its staged and its saved file."""

    number: int
    path: str
    has_new: bool


def apply_changes(changes: Sequence[Change], tree: Path, *, force: bool = False) -> list[str]:
    """The tree holds every change; returns the paths that were written.

    ``before`` of each change is what the tree is expected to hold. Raises WorkspaceConflict when
    it holds something else (unless ``force``) or when a directory on the way is a symbolic link
    or a file that stays.
    """
    pending = [change for change in changes if read_entry(tree / change.path) != change.after]
    _check(pending, tree, force)
    if not pending:
        return []
    staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_staging_parent(tree)))
    moves = [_Move(i, change.path, change.after is not None) for i, change in enumerate(pending)]
    try:
        for move, change in zip(moves, pending, strict=True):
            if change.after is not None:
                _stage(staging / f"new-{move.number}", change.after, tree / change.path)
        _write_journal(staging, tree, moves)
        _move_all(moves, staging, tree)
    except BaseException:
        _undo(moves, staging, tree)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    (staging / _JOURNAL).unlink()  # from here on it is done
    shutil.rmtree(staging, ignore_errors=True)
    return [move.path for move in moves]


def recover(tree: Path) -> int:
    """Undoes applications that a crash cut short; returns how many."""
    num_undone = 0
    for staging in sorted(_staging_parent(tree).glob(_PREFIX + "*")):
        journal = staging / _JOURNAL
        if journal.exists():
            moves = [_Move(*fields) for fields in json.loads(journal.read_text())]
            _undo(moves, staging, tree)
            num_undone += 1
        shutil.rmtree(staging, ignore_errors=True)
    return num_undone


def _staging_parent(tree: Path) -> Path:
    """On the file system of the tree, and where git does not see it if there is such a place."""
    inside_git = tree / ".git"
    return inside_git if inside_git.is_dir() and not inside_git.is_symlink() else tree


def _check(pending: Sequence[Change], tree: Path, force: bool) -> None:
    removed = {change.path for change in pending if change.after is None}
    conflicts = []
    for change in pending:
        target = tree / change.path
        if (not force and read_entry(target) != change.before) or (
            change.after is not None
            and (_is_blocked(change.path, tree, removed) or _stays_directory(target, tree, removed))
        ):
            conflicts.append(change.path)
    if conflicts:
        raise WorkspaceConflict(conflicts)


def _is_blocked(path: str, tree: Path, removed: set[str]) -> bool:
    """Whether a parent is a link or a file that this application does not remove."""
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        parent = "/".join(parts[:end])
        place = tree / parent
        if (place.is_symlink() or place.is_file()) and parent not in removed:
            return True
    return False


def _stays_directory(target: Path, tree: Path, removed: set[str]) -> bool:
    """Whether a directory with other files stands where a file must go."""
    if target.is_symlink() or not target.is_dir():
        return False
    left = [
        Path(directory, name).relative_to(tree).as_posix()
        for directory, _, names in os.walk(target)
        for name in names
    ]
    return any(name not in removed for name in left)


def _stage(path: Path, entry: Entry, target: Path) -> None:
    """The new entry, with the old file's permissions and owner where there is one."""
    if entry.is_link:
        path.symlink_to(os.fsdecode(entry.content))
        return
    path.write_bytes(entry.content)
    like = target if target.exists() and not target.is_symlink() else None
    mode = like.stat().st_mode & 0o777 if like else 0o644
    path.chmod(mode | (mode & 0o444) >> 2 if entry.is_executable else mode & ~0o111)
    if os.geteuid() == 0:
        owner = next(place for place in (target, *target.parents) if place.exists()).stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _write_journal(staging: Path, tree: Path, moves: Sequence[_Move]) -> None:
    half_written = staging / "journal.part"
    with open(half_written, "w") as file:
        json.dump([[move.number, move.path, move.has_new] for move in moves], file)
        file.flush()
        os.fsync(file.fileno())
    half_written.rename(staging / _JOURNAL)


def _move_all(moves: Sequence[_Move], staging: Path, tree: Path) -> None:
    for move in moves:
        target = tree / move.path
        if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
            target.rename(staging / f"old-{move.number}")
    for move in moves:
        if not move.has_new:
            _remove_empty(tree / move.path, tree)
    for move in moves:
        target = tree / move.path
        if move.has_new:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and not target.is_symlink():
                _remove_tree_of_directories(target)
            (staging / f"new-{move.number}").rename(target)


def _remove_tree_of_directories(directory: Path) -> None:
    for place, _, _ in os.walk(directory, topdown=False):
        os.rmdir(place)


def _remove_empty(path: Path, tree: Path) -> None:
    """Directories that held only removed files go with them, as git does it."""
    for parent in path.parents:
        if parent == tree:
            return
        try:
            parent.rmdir()
        except OSError:
            return


def _undo(moves: Sequence[_Move], staging: Path, tree: Path) -> None:
    for move in reversed(moves):
        target = tree / move.path
        was_placed = move.has_new and not os.path.lexists(staging / f"new-{move.number}")
        if was_placed and os.path.lexists(target):
            target.unlink()
            _remove_empty(target, tree)
    for move in moves:
        saved = staging / f"old-{move.number}"
        if os.path.lexists(saved):
            (tree / move.path).parent.mkdir(parents=True, exist_ok=True)
            saved.rename(tree / move.path)
