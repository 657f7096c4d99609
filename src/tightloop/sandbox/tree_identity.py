"""Which tree a command ran on: everything that a workspace holds beyond its base, by content.

Two workspaces over one base with equal trees give a command the same files. Only the layer of the
changes is read, so the cost is that of what was changed. What tools cache is told apart: it is no
part of the tree, because it must not change what a command comes to.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tightloop.sandbox.entries import CACHE_DIRECTORIES, read_below, read_entry
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import Workspace

MAX_BYTES = 64 << 20
_GIT_INDEX = ".git/index"
_OPAQUE = "user.overlay.opaque"


@dataclass(frozen=True, slots=True)
class Tree:
    """``entries`` by relative path, directories with a slash behind; ``caches`` likewise.

    A value is kind, mode and content, the latter as its whole BLAKE2b digest. ``times`` in ns of
    files that were written, if only with what they held before; not of caches nor of git's own.
    """

    entries: Mapping[str, bytes]
    caches: Mapping[str, bytes]
    times: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Short for logs; trees are compared by their entries."""
        hashed = hashlib.blake2b(digest_size=8)
        for path, value in sorted(self.entries.items()):
            hashed.update(path.encode("utf-8", "surrogateescape") + b"\0" + value)
        return hashed.hexdigest()

    def is_same(self, other: "Tree") -> bool:
        """Whether a command finds the same files in both."""
        return self.entries == other.entries

    def has_same_times(self, other: "Tree") -> bool:
        """Whether it also finds them equally old, which decides what make builds."""
        return self.times == other.times


def changed_between(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[str]:
    """Paths that are new, gone or different, in order."""
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )


def read_tree(workspace: Workspace, max_bytes: int = MAX_BYTES) -> Tree:
    """What the workspace holds now. Nothing may be writing there meanwhile.

    Raises SandboxError when it is no overlay, or has changed more than ``max_bytes``.
    """
    if workspace.layers is None:
        raise SandboxError(
            f"workspace {str(workspace.path)!r} is a copy: its changes are not kept apart"
        )
    base, upper = workspace.layers
    entries: dict[str, bytes] = {}
    caches: dict[str, bytes] = {}
    times: dict[str, int] = {}
    num_left = max_bytes
    for name, status in _walk(upper):
        num_left -= status.st_size if stat.S_ISREG(status.st_mode) else 0
        if num_left < 0:
            raise SandboxError(f"more than {max_bytes} bytes were changed in the workspace")
        value = _value(base, upper / name, name, status)
        if value is not None and name == _GIT_INDEX:
            value = _index_value(base, upper / name)
        is_cache = bool(CACHE_DIRECTORIES.intersection(name.split("/")))
        if stat.S_ISREG(status.st_mode) and not is_cache and not name.startswith(".git/"):
            times[name] = status.st_mtime_ns
        if value is None:
            continue
        shown = f"{name}/" if stat.S_ISDIR(status.st_mode) else name
        (caches if is_cache and not os.path.lexists(base / name) else entries)[shown] = value
    return Tree(entries, caches, times)


def _walk(upper: Path) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(upper / directory) as found:
            for entry in found:
                name = f"{directory}/{entry.name}" if directory else entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(name)
                yield name, status


def _value(base: Path, path: Path, name: str, status: os.stat_result) -> bytes | None:
    """What tells this entry of the layer from others; None when it is as in the base."""
    mode = status.st_mode
    below = base / name
    if stat.S_ISDIR(mode):
        mark = b"opaque" if _is_opaque(path) else b""
        if not mark and _is_directory_with(below, stat.S_IMODE(mode)):
            return None
        return b"directory %o " % stat.S_IMODE(mode) + mark
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        return b"special %o %d" % (mode, status.st_rdev)  # 0:0 marks a deletion
    entry = read_entry(path)
    if entry is None:
        raise SandboxError(f"{str(path)!r} changes while the tree is read")
    old = read_below(base, name)
    if old == entry and stat.S_IMODE(os.lstat(below).st_mode) == stat.S_IMODE(mode):
        return None
    kind = b"link" if entry.is_link else b"file %o" % stat.S_IMODE(mode)
    return kind + b" " + hashlib.blake2b(entry.content).digest()


def _is_directory_with(place: Path, mode: int) -> bool:
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == mode


def _index_value(base: Path, path: Path) -> bytes | None:
    """What git's index says, if that is another thing than in the base; git status rewrites it."""
    old, new = read_below(base, _GIT_INDEX), read_entry(path)
    told = [staged_in(entry.content) if entry is not None else b"" for entry in (old, new)]
    return None if told[0] == told[1] else b"index " + hashlib.blake2b(told[1]).digest()


def staged_in(index: bytes) -> bytes:
    """An index without what git notes of the files' status: names, modes, contents and flags.

    As it is when it is not understood: other versions than 2 and 3, or other hashes than SHA-1.
    See gitformat-index(5).
    """
    if index[:4] != b"DIRC" or int.from_bytes(index[4:8]) not in (2, 3):
        return index
    kept: list[bytes] = []
    at = 12
    for _ in range(int.from_bytes(index[8:12])):
        flags = int.from_bytes(index[at + 60 : at + 62])
        name_at = at + 62 + (2 if flags & 0x4000 else 0)
        end = index.find(b"\0", name_at)
        length = flags & 0xFFF
        if end < 0 or (length < 0xFFF and end - name_at != length):
            return index
        kept += (index[at + 24 : at + 28], index[at + 40 : end + 1])
        at += (end - at + 8) // 8 * 8
    return b"".join(kept)


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
