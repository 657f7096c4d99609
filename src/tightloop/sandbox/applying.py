"""Writes a result into the user's tree: all of it or nothing.

Everything is checked and written beside the tree first. Then a journal says what will be moved,
the old files are saved under second names, and the new ones are renamed over them. Renaming the
journal to ``done.json`` is the one step that decides: before it everything is undone, after it
everything is kept, whoever dies when. Every step of undoing may be cut short and done again.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from tightloop.sandbox.entries import Change, Entry, open_parent, read_below
from tightloop.sandbox.interface import SandboxError

_PREFIX = "tightloop-apply-"
_JOURNAL, _DONE = "journal.json", "done.json"


class WorkspaceConflict(SandboxError):
    """The user changed these files meanwhile; nothing was written. ``paths`` names them."""

    def __init__(self, paths: Sequence[str]) -> None:
        names = ", ".join(repr(path) for path in paths)
        super().__init__(f"changed by you meanwhile, nothing was written: {names}")
        self.paths = tuple(paths)


@dataclass(frozen=True, slots=True)
class _Move:
    """One path to replace. ``number`` names its staged, its saved file and its saved directory."""

    number: int
    path: str
    has_new: bool
    has_old: bool
    has_directory: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the journal holds. ``made`` are directories that the tree does not have yet."""

    moves: tuple[_Move, ...]
    made: tuple[str, ...]


def apply_changes(
    changes: Sequence[Change], tree: Path, *, force: bool = False, is_durable: bool = True
) -> list[str]:
    """The tree holds every change; returns the paths that were written.

    ``before`` of each change is what the tree is expected to hold. Raises WorkspaceConflict when
    it holds something else (unless ``force``) or when a directory on the way is a symbolic link
    or a file that stays. A file that is replaced is never missing in between. What is not
    ``is_durable`` need not outlive the machine's power: a view does not outlive its process.
    """
    with _alone(tree):
        pending = [change for change in changes if read_below(tree, change.path) != change.after]
        seen = {change.path: _signature(tree / change.path) for change in pending}
        _check(pending, tree, force)
        if not pending:
            return []
        staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_staging_parent(tree)))
        plan = _plan(pending, tree)
        try:
            for move, change in zip(plan.moves, pending, strict=True):
                if change.after is not None:
                    new = staging / f"new-{move.number}"
                    _stage(new, change.after, tree / change.path, is_durable=is_durable)
            _write_journal(staging, plan)
            _move_all(plan, staging, tree, {} if force else seen)
            (staging / _JOURNAL).rename(staging / _DONE)
        except BaseException:
            if (staging / _JOURNAL).exists():
                _take_back(plan, staging, tree)
            else:  # nothing has been moved yet
                shutil.rmtree(staging, ignore_errors=True)
            raise
        _finish(plan, staging, tree)
    return [move.path for move in plan.moves]


def recover(tree: Path) -> int:
    """Undoes applications that a crash cut short, and tidies up after those that were done.

    Returns how many were undone. Waits for one that is under way in another process. Raises
    SandboxError when something stands in the way of a saved file.
    """
    num_undone = 0
    with _alone(tree):
        for staging in sorted(_staging_parent(tree).glob(_PREFIX + "*")):
            if (staging / _JOURNAL).exists():
                _take_back(_read_plan(staging / _JOURNAL), staging, tree)
                num_undone += 1
            elif (staging / _DONE).exists():
                _finish(_read_plan(staging / _DONE), staging, tree)
            else:
                shutil.rmtree(staging, ignore_errors=True)
    return num_undone


def _staging_parent(tree: Path) -> Path:
    """On the file system of the tree, and where git does not see it if there is such a place."""
    inside_git = tree / ".git"
    return inside_git if inside_git.is_dir() and not inside_git.is_symlink() else tree


@contextlib.contextmanager
def _alone(tree: Path) -> Iterator[None]:
    """No other process applies to this tree, or undoes, meanwhile. Leaves no file behind."""
    fd = os.open(_staging_parent(tree), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Network file systems may refuse to lock a directory; then nothing guards against a
        # second process, as for any other program there.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


# -- before anything is touched


def _check(pending: Sequence[Change], tree: Path, force: bool) -> None:
    removed = {change.path for change in pending if change.after is None}
    conflicts = []
    for change in pending:
        target = tree / change.path
        if (not force and read_below(tree, change.path) != change.before) or (
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
    if not _is_directory(target):
        return False
    left = [
        Path(directory, name).relative_to(tree).as_posix()
        for directory, _, names in os.walk(target)
        for name in names
    ]
    return any(name not in removed for name in left)


def _is_directory(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _signature(place: Path) -> tuple[int, int, int, int] | None:
    """Changes whenever somebody writes or replaces the file there."""
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def _plan(pending: Sequence[Change], tree: Path) -> _Plan:
    moves = []
    made: dict[str, None] = {}
    for number, change in enumerate(pending):
        target = tree / change.path
        # What a link shows there now is elsewhere; the link itself goes before anything comes.
        is_there = not _is_behind_link(change.path, tree) and os.path.lexists(target)
        has_new, is_directory = change.after is not None, is_there and _is_directory(target)
        has_old = is_there and not is_directory
        moves.append(_Move(number, change.path, has_new, has_old, has_new and is_directory))
        parts = change.path.split("/")[:-1] if has_new else []
        parents = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        made.update(dict.fromkeys(name for name in parents if not _is_directory(tree / name)))
    return _Plan(tuple(moves), tuple(made))


def _stage(path: Path, entry: Entry, target: Path, *, is_durable: bool) -> None:
    """The new entry, with the old file's permissions and owner where there is one."""
    if entry.is_link:
        path.symlink_to(os.fsdecode(entry.content))
        return
    # Commands may be running in a workspace: what they put there meanwhile is not written to.
    with open(path, "xb") as file:
        file.write(entry.content)
        file.flush()
        if is_durable:  # else a power cut may leave an empty file behind the rename
            os.fsync(file.fileno())
        like = target.stat() if target.exists() and not target.is_symlink() else None
        mode = like.st_mode & 0o777 if like else 0o644
        mode = mode | (mode & 0o444) >> 2 if entry.is_executable else mode & ~0o111
        os.fchmod(file.fileno(), mode)
        owner = _owner((target, *target.parents))
        if owner is not None:
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        # Python's byte code is found by size and whole second: two versions of one second are one to it.
        if like is not None and os.fstat(file.fileno()).st_mtime_ns // 10**9 <= int(like.st_mtime):
            os.utime(file.fileno(), (int(like.st_mtime) + 1, int(like.st_mtime) + 1))


def _owner(places: Sequence[Path]) -> os.stat_result | None:
    """Of the first that is there: root leaves no files of its own in somebody's tree."""
    if os.geteuid() != 0:
        return None
    return next(place for place in places if place.exists()).stat()


def _write_journal(staging: Path, plan: _Plan) -> None:
    half_written = staging / "journal.part"
    with open(half_written, "w") as file:
        json.dump({"moves": [astuple(move) for move in plan.moves], "made": plan.made}, file)
        file.flush()
        os.fsync(file.fileno())
    half_written.rename(staging / _JOURNAL)
    fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_plan(journal: Path) -> _Plan:
    """What was written there, if it can be ours.

    A tree may come with such a file, from whoever packed it: then it must not move files about.
    """
    try:
        said = json.loads(journal.read_text())
        plan = _Plan(tuple(_Move(*fields) for fields in said["moves"]), tuple(said["made"]))
    except (ValueError, TypeError, KeyError):
        raise _not_ours(journal.parent) from None
    paths = [*(move.path for move in plan.moves), *plan.made]
    has_numbers = all(type(move.number) is int for move in plan.moves)
    if journal.parent.is_symlink() or not has_numbers or not all(map(_is_below, paths)):
        raise _not_ours(journal.parent)
    return plan


def _is_below(path: object) -> bool:
    """Whether a diff can have such a path: relative, nowhere upwards, nothing of git's own."""
    parts = path.split("/") if isinstance(path, str) else [""]
    return not {"", ".", "..", ".git"}.intersection(parts)


def _not_ours(staging: Path) -> SandboxError:
    return SandboxError(
        f"{str(staging)!r} was not made by tightloop and would change other files: look at it, "
        "and remove it"
    )


# -- forwards


def _move_all(
    plan: _Plan, staging: Path, tree: Path, seen: dict[str, tuple[int, int, int, int] | None]
) -> None:
    for move in plan.moves:
        target = tree / move.path
        if move.path in seen and _signature(target) != seen[move.path]:
            raise WorkspaceConflict([move.path])
        if move.has_old:
            with _parent(tree, move.path) as (directory, name):
                _save(directory, name, staging / f"old-{move.number}")
    for move in plan.moves:
        if move.has_old and not move.has_new:
            with (
                _parent(tree, move.path) as (directory, name),
                contextlib.suppress(FileNotFoundError),
            ):
                os.unlink(name, dir_fd=directory)
    for path in plan.made:
        _make_directory(tree, path)
    for move in plan.moves:
        if not move.has_new:
            continue
        target = tree / move.path
        if move.has_directory:
            _set_aside(target, staging / f"dir-{move.number}")
        elif not move.has_old and os.path.lexists(target):
            raise WorkspaceConflict([move.path])
        with _parent(tree, move.path) as (directory, name):
            os.rename(staging / f"new-{move.number}", name, dst_dir_fd=directory)


@contextlib.contextmanager
def _parent(tree: Path, path: str) -> Iterator[tuple[int, str]]:
    """The directory that holds it and its name there; no link leads out of the tree on the way."""
    directory = open_parent(tree, path)
    if directory is None:  # it was there when everything was checked
        raise WorkspaceConflict([path])
    try:
        yield directory, path.rpartition("/")[2]
    finally:
        os.close(directory)


def _make_directory(tree: Path, path: str) -> None:
    with _parent(tree, path) as (directory, name):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
        owner = _owner([(tree / path).parent])
        if owner is not None:
            ids = (owner.st_uid, owner.st_gid)
            os.chown(name, *ids, dir_fd=directory, follow_symlinks=False)


def _save(directory: int, name: str, saved: Path) -> None:
    """A second name for the old file, so that it need not go away before the new one comes."""
    try:
        os.link(name, saved, src_dir_fd=directory, follow_symlinks=False)
    except OSError:  # a file system without hard links, or a file of somebody else
        os.rename(name, saved, src_dir_fd=directory)


def _set_aside(directory: Path, saved: Path) -> None:
    """The directory, which holds nothing but directories any more, has the other name."""
    try:
        directory.rename(saved)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # An overlay does not rename what its lower layers hold. With all permissions kept:
        half_made = saved.with_suffix(".part")
        shutil.copytree(directory, half_made)
        half_made.rename(saved)
        _remove_directories(directory)


def _remove_directories(directory: Path) -> None:
    for place, _, _ in os.walk(directory, topdown=False):
        os.rmdir(place)


def _finish(plan: _Plan, staging: Path, tree: Path) -> None:
    """Directories that held only removed files go with them, as git does it; staging too."""
    for move in plan.moves:
        if not move.has_new and not _is_behind_link(move.path, tree):
            _remove_empty(tree / move.path, tree)
    _clear(staging, _DONE)


def _remove_empty(path: Path, tree: Path) -> None:
    for parent in path.parents:
        if parent == tree:
            return
        try:
            parent.rmdir()
        except OSError:
            return


def _clear(staging: Path, journal: str) -> None:
    """Staging is gone, the journal first: what it names must not vanish before it."""
    (staging / journal).unlink(missing_ok=True)
    shutil.rmtree(staging, ignore_errors=True)


# -- backwards


def _take_back(plan: _Plan, staging: Path, tree: Path) -> None:
    """The tree is as it was, and staging is gone.

    Nothing is deleted on the way: new files go back to staging, so a second attempt after a
    crash cannot take a restored file for a new one.
    """
    try:
        for move in reversed(plan.moves):
            # Behind a link nothing was placed: the link would have gone first.
            if move.has_new and not move.has_old and not _is_behind_link(move.path, tree):
                _unplace(move, staging, tree / move.path)
        for name in reversed(plan.made):
            if not _goes_through_link(name, tree):
                with contextlib.suppress(OSError):  # never made, or not ours alone
                    (tree / name).rmdir()
        for move in plan.moves:
            saved = staging / f"old-{move.number}"
            if move.has_old and os.path.lexists(saved):
                if _is_behind_link(move.path, tree):
                    raise _not_ours(staging)
                saved.rename(tree / move.path)
    except OSError as error:
        raise SandboxError(
            f"a half-done application cannot be undone: {error}; move away what stands there, "
            f"then start again (the saved files are in {str(staging)!r})"
        ) from error
    _clear(staging, _JOURNAL)


def _is_behind_link(path: str, tree: Path) -> bool:
    parent = os.path.dirname(path)
    return parent != "" and _goes_through_link(parent, tree)


def _goes_through_link(name: str, tree: Path) -> bool:
    """A link that is back in its place must not lead to a directory that was never ours."""
    return os.path.realpath(tree / name) != os.path.join(os.path.realpath(tree), name)


def _unplace(move: _Move, staging: Path, target: Path) -> None:
    new, directory = staging / f"new-{move.number}", staging / f"dir-{move.number}"
    if move.has_directory and not directory.exists():
        return
    was_placed = not os.path.lexists(new)
    if was_placed and os.path.lexists(target) and not _is_directory(target):
        target.rename(new)
    if move.has_directory:
        if _is_directory(target):  # it was being set aside
            _remove_directories(target)
        directory.rename(target)
