"""Paths from a model, resolved below one root and nowhere else.

Two walls: the text is checked first, then the kernel resolves the parent directory with
``openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)``, and everything else happens relative to that
directory's descriptor. Without ``openat2`` (old kernels, filters, other systems) the parents are
walked one by one and any symlink among them is refused. Source: openat2(2), Linux 5.6.
"""

import ctypes
import errno
import functools
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.sandbox.risks import PROTECTED_NAMES

PROTECTED = PROTECTED_NAMES
"""Names no patch may touch at any depth."""

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_NUM_TRIES = 32
_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC  # none on macOS
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)  # costs as much as reading a source file


def forbidden(path: str, why: str) -> PatchError:
    """The refusal of a path."""
    return PatchError(Failure("forbidden_path", f"{path!r}: {why}", file=path))


def clean_path(
    text: str, root: Path, protected: Iterable[str] = PROTECTED, known_as: Path | None = None
) -> str:
    """``text`` as a normal relative path below ``root``; looks at no file.

    An absolute path is taken when it lies below ``root``, or below ``known_as`` if whoever writes paths
    knows the root by that name. Raises ``PatchError``
    ``forbidden_path`` for anything that could leave the root or that is protected.
    """
    if not text.strip():
        raise forbidden(text, "the path is empty")
    if _CONTROL.search(text):
        raise forbidden(text, "control characters in a path")
    if _DRIVE.match(text) or text.startswith("\\"):
        raise forbidden(text, "drive and network paths are not for this system")
    if text.endswith(("/", "/.", "/..")):
        raise forbidden(text, "a file is needed, not a directory")
    path = os.path.normpath(text)
    if os.path.isabs(path):
        bases = (str(known_as),) if known_as else (str(root), os.path.realpath(root))
        for base in bases:
            if path.startswith(base.rstrip("/") + "/"):
                path = os.path.relpath(path, base)
                break
        else:
            raise forbidden(text, f"outside the workspace {known_as or root}")
    if path == "." or path == ".." or path.startswith("../"):
        raise forbidden(text, "outside the workspace")
    check_protected(path, text, protected)
    return path


def check_protected(path: str, shown: str, protected: Iterable[str] = PROTECTED) -> None:
    """Raise ``forbidden_path`` when a part of ``path`` is protected in any spelling of case."""
    names = frozenset(name.casefold() for name in protected)
    for part in path.split("/"):
        # Trailing dots and spaces vanish on some file systems; git~1 is .git's short name there.
        name = part.casefold().rstrip(". ")
        if name in names or (name.startswith("git~") and ".git" in names):
            raise forbidden(shown, f"{part!r} is protected")


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read. ``identity`` changes when it is written to or replaced, as far as kind,
    size and modification time show."""

    content: bytes
    mode: int
    uid: int
    gid: int
    mtime_s: int
    identity: tuple[int, ...] = ()


class Root:
    """A directory whose inside can be read and changed, and nothing else. Close it after use."""

    def __init__(
        self, path: Path, protected: Iterable[str] = PROTECTED, *, use_openat2: bool = True
    ) -> None:
        self.path = path
        self.protected = frozenset(protected)
        self._descriptor = os.open(path, _DIRECTORY)
        try:
            self._real = _real_path(self._descriptor)
            self._has_openat2 = use_openat2
        except OSError:  # no /proc: followed links could not be checked for protected names
            self._real, self._has_openat2 = "", False

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, path: str, max_bytes: int) -> FileState | None:
        """The regular file at the clean ``path``; None when nothing is there.

        Raises ``PatchError`` for symlinks, directories, special files and files above
        ``max_bytes``.
        """
        try:
            parent = self.open_parent(path)
        except FileNotFoundError:
            return None
        try:
            return self._read_in(parent, path, max_bytes)
        except FileNotFoundError:
            return None
        finally:
            os.close(parent)

    def _read_in(self, parent: int, path: str, max_bytes: int) -> FileState:
        name = os.path.basename(path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise forbidden(path, "a symlink; name the file it points to") from error
            if error.errno in (errno.ENXIO, errno.ENODEV):
                raise forbidden(path, "not a regular file") from error
            raise
        facts = os.fstat(descriptor)
        refusal = _refusal(path, facts, max_bytes)
        if refusal is not None:
            os.close(descriptor)
            raise refusal
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(facts.st_size + 1)
            if len(content) > facts.st_size:  # it has grown since
                content += file.read(max_bytes - facts.st_size)
        if len(content) > max_bytes:
            raise _too_large(path, len(content), max_bytes)
        return FileState(
            content,
            stat.S_IMODE(facts.st_mode),
            facts.st_uid,
            facts.st_gid,
            int(facts.st_mtime),
            identity_of(facts),
        )

    def true_name(self, path: str) -> str:
        """The clean ``path`` with the symlinks among its parents followed: one name for one file.

        Directories that do not exist yet are taken as they are. Raises ``forbidden_path`` as
        ``open_parent`` does.
        """
        directory, name = os.path.split(path)
        while directory and self._has_openat2:  # the walk follows none
            try:
                descriptor = self._open_directory(directory, path)
            except FileNotFoundError:
                directory, above = os.path.split(directory)
                name = f"{above}/{name}"
                continue
            try:
                inside = os.path.relpath(_real_path(descriptor), self._real)
            finally:
                os.close(descriptor)
            check_protected("" if inside == "." else inside, path, self.protected)
            return os.path.normpath(f"{inside}/{name}")
        return path

    def open_parent(self, path: str, created: list[str] | None = None) -> int:
        """A descriptor of the directory that holds ``path``; the caller closes it.

        With ``created`` missing directories are made and their paths appended to it, outermost
        first. Raises FileNotFoundError without it, and ``forbidden_path`` when a symlink leads
        out of the root or into a protected place.
        """
        parts = path.split("/")[:-1]
        try:
            descriptor = self._open_directory("/".join(parts) or ".", path)
        except FileNotFoundError:
            if created is None:
                raise
            descriptor = self._make_directories(parts, path, created)
        try:
            if self._has_openat2:
                inside = os.path.relpath(_real_path(descriptor), self._real)
                check_protected("" if inside == "." else inside, path, self.protected)
        except PatchError:
            os.close(descriptor)
            raise
        return descriptor

    def _make_directories(self, parts: list[str], path: str, created: list[str]) -> int:
        descriptor = os.dup(self._descriptor)
        for number, name in enumerate(parts, 1):
            prefix = "/".join(parts[:number])
            try:
                child = self._open_directory(prefix, path)
            except FileNotFoundError:
                check_protected(prefix, path, self.protected)
                try:
                    os.mkdir(name, dir_fd=descriptor)
                    created.append(prefix)
                    child = self._open_directory(prefix, path)
                except BaseException:
                    os.close(descriptor)
                    raise
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            descriptor = child
        return descriptor

    def _open_directory(self, directory: str, path: str) -> int:
        try:
            if self._has_openat2:
                try:
                    return self._openat2(directory)
                except OSError as error:
                    if error.errno not in (errno.ENOSYS, errno.EPERM):
                        raise
                    self._has_openat2 = False
            return self._walk(directory)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise forbidden(path, "a symlink on the way is absolute or leads out") from error
            if error.errno == errno.ELOOP:
                raise forbidden(path, "a symlink on the way cannot be followed") from error
            if error.errno == errno.ENOTDIR:
                raise forbidden(path, "a parent is not a directory") from error
            raise

    def _openat2(self, directory: str) -> int:
        how = _OpenHow(_DIRECTORY, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        code = errno.EAGAIN
        for _ in range(_NUM_TRIES):
            descriptor: int = _libc().syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(self._descriptor),
                ctypes.c_char_p(os.fsencode(directory)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
            if descriptor >= 0:
                return descriptor
            code = ctypes.get_errno()
            if code != errno.EAGAIN:  # a rename somewhere raced with a ".." in a symlink
                break
        raise OSError(code, os.strerror(code), directory)

    def _walk(self, directory: str) -> int:
        """Component by component; with O_DIRECTORY a symlink gives ENOTDIR under O_NOFOLLOW."""
        descriptor = os.dup(self._descriptor)
        for name in directory.split("/"):
            try:
                child = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except NotADirectoryError as error:
                if stat.S_ISLNK(os.lstat(name, dir_fd=descriptor).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from error
                raise
            finally:
                os.close(descriptor)
            descriptor = child
        return descriptor


def identity_of(facts: os.stat_result) -> tuple[int, ...]:
    """See ``FileState.identity``. Without the inode: an overlay may give a file another one when it
    copies it up, which a hard link does."""
    return (stat.S_IFMT(facts.st_mode), facts.st_size, facts.st_mtime_ns)


def _refusal(path: str, facts: os.stat_result, max_bytes: int) -> PatchError | None:
    """Why a patch cannot work on this file; None when it can."""
    if stat.S_ISDIR(facts.st_mode):
        return forbidden(path, "a directory, not a file")
    if not stat.S_ISREG(facts.st_mode):
        return forbidden(path, "not a regular file")
    if facts.st_size > max_bytes:
        return _too_large(path, facts.st_size, max_bytes)
    return None


def _too_large(path: str, size: int, max_bytes: int) -> PatchError:
    text = f"{path!r}: {size} bytes or more; the limit is {max_bytes}"
    return PatchError(Failure("too_large", text, file=path))


def _real_path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")
