"""All planned files or none: staged beside their targets, checked, renamed, undone on any error."""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.agent.patch.paths import FileState, Root, identity_of


@dataclass(slots=True)
class PlannedFile:
    """A path the patch looked at: what was there and what shall be. ``content`` None: no file."""

    path: str
    original: FileState | None
    content: bytes | None
    mode: int | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the disk must change."""
        if self.original is None or self.content is None:
            return (self.original is None) != (self.content is None)
        return self.content != self.original.content or self.mode not in (None, self.original.mode)


class ChangedMeanwhileError(Exception):
    """A file differs from what was read when the patch was planned."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def commit(root: Root, files: Sequence[PlannedFile], max_bytes: int) -> None:
    """Make the disk as planned, or leave it as it was.

    Order: stage every new content in a temporary file, compare every original once more, rename
    into place, remove. Raises ``ChangedMeanwhileError`` and ``PatchError`` (``io_error``,
    ``forbidden_path``); either way nothing has changed, or the failure says what could not be
    undone.
    """
    transaction = _Transaction(root)
    try:
        staged = [(file, transaction.stage(file)) for file in files if file.is_changed]
        now = check_originals(root, files, max_bytes)
        for file, temporary in staged:
            transaction.put(file, temporary, now[file.path])
    except BaseException as error:
        problems = transaction.roll_back()
        if isinstance(error, OSError) or (problems and isinstance(error, Exception)):
            raise _io_error(error, problems, transaction.current) from error
        raise
    finally:
        transaction.close()


def _io_error(error: BaseException, problems: list[str], path: str | None) -> PatchError:
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    message = f"cannot write: {reason}"
    if problems:
        message += f"; the way back failed too: {'; '.join(problems)}"
    return PatchError(Failure("io_error", message, file=path, is_undone=not problems))


def check_originals(
    root: Root, files: Sequence[PlannedFile], max_bytes: int
) -> dict[str, FileState | None]:
    """The files as they are now. Raises ``ChangedMeanwhileError`` when one is not what the plan
    was made for."""
    found: dict[str, FileState | None] = {}
    for file in files:
        try:
            now = root.read(file.path, max_bytes)
        except (PatchError, OSError) as error:
            raise ChangedMeanwhileError(file.path) from error
        if (now and now.content) != (file.original and file.original.content):
            raise ChangedMeanwhileError(file.path)
        found[file.path] = now
    return found


class _Transaction:
    """The undo list and the descriptors of one commit."""

    def __init__(self, root: Root) -> None:
        self.current: str | None = None
        self._root = root
        self._token = f".tightloop-{secrets.token_hex(6)}"
        self._num_names = 0
        self._parents: dict[str, int] = {}
        self._directories: list[str] = []
        self._undo: list[Callable[[], None]] = []
        self._leftovers: list[tuple[str, int]] = []

    def stage(self, file: PlannedFile) -> str:
        """Write the new content beside its target; the temporary's name, empty for a removal."""
        self.current = file.path
        parent = self._parent(file.path)
        if file.content is None:
            return ""
        name = self._new_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o666, dir_fd=parent)
        self._leftovers.append((name, parent))
        with os.fdopen(descriptor, "wb") as target:
            target.write(file.content)
            target.flush()
            self._adopt_facts(descriptor, file)
        return name

    def _adopt_facts(self, descriptor: int, file: PlannedFile) -> None:
        """Keep mode and owner, and make the modification time move on by a whole second.

        Python's bytecode caches compare the source's size and time in whole seconds, so two
        edits of equal size within one second would run stale code.
        """
        if file.mode is not None:
            os.fchmod(descriptor, file.mode & 0o777)
        before = file.original
        if before is None:
            return
        if (before.uid, before.gid) != (os.geteuid(), os.getegid()):
            with suppress(PermissionError):
                os.fchown(descriptor, before.uid, before.gid)
        if int(os.fstat(descriptor).st_mtime) <= before.mtime_s:
            os.utime(descriptor, (before.mtime_s + 1, before.mtime_s + 1))

    def put(self, file: PlannedFile, temporary: str, now: FileState | None) -> None:
        """Rename into place, or away when the file shall go; the way back is noted first.

        ``now`` is what was found there last. What came there since is put back, and
        ``ChangedMeanwhileError`` raised.
        """
        self.current = file.path
        parent, name = self._parent(file.path), os.path.basename(file.path)
        if now is None:
            self._put_new(file.path, name, temporary, parent)
            return
        backup = self._new_name()
        self._leftovers.append((backup, parent))
        if file.content is None:
            os.rename(name, backup, src_dir_fd=parent, dst_dir_fd=parent)
        else:
            _link(name, backup, parent)
        self._undo.append(lambda: os.rename(backup, name, src_dir_fd=parent, dst_dir_fd=parent))
        self._check_same(backup, parent, now, file.path)
        if file.content is not None:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            self._check_same(backup, parent, now, file.path)  # written to until it was replaced

    def _put_new(self, path: str, name: str, temporary: str, parent: int) -> None:
        try:
            os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError as error:
            raise ChangedMeanwhileError(path) from error
        except OSError:  # a file system without hard links
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        self._undo.append(lambda: os.unlink(name, dir_fd=parent))

    def _check_same(self, backup: str, parent: int, now: FileState, path: str) -> None:
        facts = os.stat(backup, dir_fd=parent, follow_symlinks=False)
        if identity_of(facts) != now.identity:
            raise ChangedMeanwhileError(path)

    def roll_back(self) -> list[str]:
        """Undo what was done, last first; what could not be undone, in words."""
        problems: list[str] = []
        for step in reversed(self._undo):
            try:
                step()
            except OSError as error:
                problems.append(str(error))
        if problems:  # the backups are the only copies now
            self._leftovers.clear()
            problems.append(f"the former files are kept under names '{self._token}-*'")
        self._remove_leftovers()
        for directory in reversed(self._directories):
            with suppress(OSError, PatchError):  # not empty any more: someone else uses it now
                parent = self._root.open_parent(directory)
                try:
                    os.rmdir(os.path.basename(directory), dir_fd=parent)
                finally:
                    os.close(parent)
        return problems

    def close(self) -> None:
        """Remove temporaries and backups, close descriptors."""
        self._remove_leftovers()
        for descriptor in self._parents.values():
            os.close(descriptor)
        self._parents.clear()

    def _remove_leftovers(self) -> None:
        for name, parent in self._leftovers:
            with suppress(OSError):
                os.unlink(name, dir_fd=parent)
        self._leftovers.clear()

    def _parent(self, path: str) -> int:
        directory = os.path.dirname(path)
        if directory not in self._parents:
            self._parents[directory] = self._root.open_parent(path, self._directories)
        return self._parents[directory]

    def _new_name(self) -> str:
        self._num_names += 1
        return f"{self._token}-{self._num_names}"


def _link(name: str, backup: str, parent: int) -> None:
    """A second name for the file; where hard links are not to be had, its only one for now."""
    try:
        os.link(name, backup, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except OSError:
        os.rename(name, backup, src_dir_fd=parent, dst_dir_fd=parent)
