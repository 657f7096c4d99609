"""Landlock through its three system calls; no external program.

Facts: Linux ``include/uapi/linux/landlock.h`` and Documentation/userspace-api/landlock.rst.
Not covered by any ABI so far: chmod, utime, setxattr, stat; UDP; unix sockets with a path
before ABI 9; subtrees that are stricter than their parent. The seccomp filter stands beside it.
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_RULE_PATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15  # truncate, ioctl_dev
_FS_BY_ABI = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_FS_NEWEST = 0xFFFF
_SIZE_BY_ABI = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
NOT_COVERED = (
    "chmod, utime and extended attributes of your files outside",
    "names of files and processes of the host can be seen",
    "protected paths of the workspace can be changed",
    "directories that the policy hides within the workspace are shown",
)
"""What it leaves open as the only layer, whatever its version."""
READ = _EXECUTE | _READ_FILE | _READ_DIR


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock call {number}: {os.strerror(code)}")
    return result


def abi() -> int:
    """Version of Landlock that the kernel offers; 0 without."""
    try:
        return _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def handled_rights(version: int) -> int:
    """All file rights that this version knows."""
    return _FS_BY_ABI.get(version, _FS_NEWEST)


def restrict(read: Iterable[Path], write: Iterable[Path], *, allow_network: bool) -> None:
    """This process and its children may use only these places from now on.

    Paths that do not exist are left out. Needs no_new_privs. Raises OSError where Landlock is
    missing.
    """
    version = abi()
    rights = handled_rights(version)
    network = 0 if allow_network or version < 4 else 3
    scopes = 3 if version >= 6 else 0
    attributes = struct.pack("<QQQ", rights, network, scopes)[: _SIZE_BY_ABI.get(version, 24)]
    ruleset = _call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path in read:
            _allow(ruleset, path, READ & rights)
        for path in write:
            _allow(ruleset, path, rights)
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, place)
        _call(_ADD_RULE, ctypes.c_int(ruleset), _RULE_PATH, rule, ctypes.c_uint32(0))
    finally:
        os.close(place)


def readable_roots(hidden: Sequence[Path], root: Path = Path("/")) -> list[Path]:
    """The fewest directories and files that cover ``root`` except everything in ``hidden``.

    A rule covers a whole subtree, so a directory that holds a hidden one is replaced by its
    other entries.
    """
    if root in hidden:
        return []
    if not any(path.is_relative_to(root) for path in hidden):
        return [root]
    roots: list[Path] = []
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except PermissionError:  # closed to this user anyway
        return []
    for entry in entries:
        if not entry.is_symlink():
            roots += readable_roots(hidden, Path(entry.path))
    return roots
