"""Landlock through its three system calls; no external program.

The only wall of one kind of isolation (``confine.py``), the second one of bubblewrap's, where the
exec server loads this file by its path: standard library only, and no module that is slow to import.

Facts: Linux ``include/uapi/linux/landlock.h`` and Documentation/userspace-api/landlock.rst.
Not covered by any ABI so far: chmod, utime, setxattr, stat; UDP; unix sockets with a path
before ABI 9; subtrees that are stricter than their parent. The seccomp filter stands beside it.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_RULE_PATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15  # truncate, ioctl_dev
_FS_BY_ABI = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_FS_NEWEST = 0xFFFF
_FIRST_WITH_REFER = 2
_SIZE_BY_ABI = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
NOT_COVERED = (
    "chmod, utime and extended attributes of your files outside",
    "names of files and processes of the host can be seen",
    "protected paths of the workspace can be changed",
    "directories that the policy hides within the workspace are shown",
)
"""What it leaves open as the only layer, whatever its version."""
READ = _EXECUTE | _READ_FILE | _READ_DIR
SECOND_LAYER_REMEDY = "Linux 5.19 or later with 'landlock' in the kernel's lsm= list has it"
NO_SECOND_LAYER = "no Landlock beneath the mounts, so one mistake in them is enough"


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


def restrict(read: Iterable[str], write: Iterable[str], *, allow_network: bool) -> None:
    """This process and its children may use only these places from now on.

    Paths that do not exist are left out. Needs no_new_privs. Raises OSError where Landlock is
    missing.
    """
    version = abi()
    rights = handled_rights(version)
    network = 0 if allow_network or version < 4 else 3
    scopes = 3 if version >= 6 else 0
    attributes = struct.pack("<QQQ", rights, network, scopes)[: _SIZE_BY_ABI.get(version, 24)]
    rules = [(path, READ & rights) for path in read] + [(path, rights) for path in write]
    _restrict(attributes, rules)


def restrict_writing(places: Iterable[str | int]) -> int:
    """Elsewhere this process and its children can write, make, rename and remove nothing any more.

    A place is a path, left out where there is none, or an open directory. Reading is not handled at
    all rather than allowed everywhere: opening a file to read it costs nothing more then. Returns
    the version of Landlock, or 0 when nothing was done: before version 2 nothing could be renamed
    from one directory to another. Needs no_new_privs; raises OSError when it is refused.
    """
    version = abi()
    if version < _FIRST_WITH_REFER:
        return 0
    rights = handled_rights(version) & ~READ
    attributes = struct.pack("<Q", rights)
    _restrict(attributes, [(place, rights) for place in places])
    return version


def _restrict(attributes: bytes, rules: Iterable[tuple[str | int, int]]) -> None:
    ruleset = _call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for place, rights in rules:
            _allow(ruleset, place, rights)
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, place: str | int, rights: int) -> None:
    try:
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC) if isinstance(place, str) else os.dup(place)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, fd)
        _call(_ADD_RULE, ctypes.c_int(ruleset), _RULE_PATH, rule, ctypes.c_uint32(0))
    finally:
        os.close(fd)
