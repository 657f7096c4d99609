"""Mounts that show a directory at a second place, and who else sees what is mounted there.

Facts: mount(2), mount_namespaces(7), kernel Documentation/filesystems/sharedsubtree.rst. All of
it needs CAP_SYS_ADMIN in the namespace of the calling process (see ``own_namespace.py``).
"""

import ctypes
import functools
import os
from pathlib import Path

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SLAVE, _MS_SHARED = 1 << 12, 1 << 14, 1 << 18, 1 << 19, 1 << 20
_MNT_DETACH = 2


def bind(source: Path, target: Path) -> None:
    """``target`` shows what ``source`` does, with everything mounted below; all at once.

    Like the others here it raises OSError that says what was tried.
    """
    _mount(source, target, _MS_BIND | _MS_REC, "showing it elsewhere")


def set_read_only(target: Path) -> None:
    """What is mounted at ``target`` cannot be written to there; for bind mounts."""
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _mount(None, target, flags, "making it read-only")


def set_private(target: Path) -> None:
    """What is mounted below ``target`` from now on shows nowhere else."""
    _mount(None, target, _MS_PRIVATE, "making it private")


def set_shared(target: Path) -> None:
    """What is mounted below ``target`` from now on shows also in copies made of it since."""
    _mount(None, target, _MS_SHARED, "sharing it")


def set_all_receiving() -> None:
    """No mount of this process's namespace shows in another one; theirs still show here."""
    _mount(None, Path("/"), _MS_SLAVE | _MS_REC, "keeping mounts to this process")


def unmount(target: Path) -> bool:
    """The uppermost mount at ``target`` is gone, with all below it; False if there is none.

    Files that are open keep what they need until they are closed.
    """
    return bool(_libc()["umount2"](os.fsencode(target), _MNT_DETACH) == 0)


def mount(
    source: bytes | None, target: Path, kind: bytes | None, flags: int, options: bytes | None
) -> int:
    """The system call: 0, or the number of the error."""
    arguments = (source, os.fsencode(target), kind, ctypes.c_ulong(flags), options)
    return 0 if _libc()["mount"](*arguments) == 0 else ctypes.get_errno()


def _mount(source: Path | None, target: Path, flags: int, what: str) -> None:
    code = mount(None if source is None else os.fsencode(source), target, None, flags, None)
    if code:
        raise OSError(code, f"{what}: {os.strerror(code)}", str(target))


@functools.cache
def _libc() -> ctypes.CDLL:
    """Loaded once: it makes a class each time. By index a function is looked up at each call,
    which is what tests see of it that kill a process right before."""
    return ctypes.CDLL(None, use_errno=True)
