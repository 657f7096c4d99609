"""Copy on write by overlayfs: one mount, and a diff that costs only what changed.

Facts: kernel Documentation/filesystems/overlayfs.rst. ``userxattr`` makes marks the same with
and without privilege; ``volatile`` skips syncs, for layers that are used once.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tightloop.sandbox import mounts
from tightloop.sandbox.entries import files_below
from tightloop.sandbox.interface import SandboxError

_MS_NOSUID, _MS_NODEV = 2, 4
_UNSAFE = frozenset(",:\\\n")  # separators of the mount options


def mount(
    base: Path, upper: Path, work: Path, target: Path, *, between: Sequence[Path] = ()
) -> None:
    """``target`` shows base, what is ``between`` (topmost first) and upper; writes go to upper only.

    Raises OSError when the kernel refuses (no privilege, unsuitable file system), SandboxError
    for a path that cannot be put into mount options.
    """
    lowers = [*between, base]
    for path in (*lowers, upper, work):
        if _UNSAFE & set(str(path)):
            raise SandboxError(
                f"state directory {str(path)!r} has a comma, colon, backslash or line feed in it: "
                "choose another one"
            )
    below = ":".join(map(str, lowers))
    options = f"lowerdir={below},upperdir={upper},workdir={work},userxattr,volatile"
    flags = _MS_NOSUID | _MS_NODEV
    code = mounts.mount(b"overlay", target, b"overlay", flags, os.fsencode(options))
    if code:
        raise OSError(code, f"mounting an overlay at {str(target)!r}: {os.strerror(code)}")


def changed_candidates(base: Path, upper: Path) -> set[str]:
    """Paths that may differ from base, by walking the upper layer only.

    A character device 0:0 marks a deletion, an ``opaque`` directory hides base's directory.
    Raises SandboxError for marks of nested overlays, which cannot be trusted here.
    """
    found: set[str] = set()
    waiting = [("", True)]
    while waiting:
        directory, is_in_base = waiting.pop()
        with os.scandir(upper / directory) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                below = (
                    _mode(base / name) if is_in_base else 0
                )  # what a link leads to is not base's
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory:
                    waiting.append((name, stat.S_ISDIR(below)))
                if not is_directory or _is_opaque(upper / name):
                    found.add(name)
                    if stat.S_ISDIR(below):
                        found |= files_below(base, name)
                elif below and not stat.S_ISDIR(below):
                    found.add(name)  # a file that became a directory
    return found


def _mode(path: Path) -> int:
    """Kind and permissions; 0 where nothing is."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _is_opaque(directory: Path) -> bool:
    try:
        mark = os.getxattr(directory, "user.overlay.opaque", follow_symlinks=False)
    except OSError:
        return False
    if mark != b"y":
        raise SandboxError(f"layer {str(directory)!r} has an unknown mark {mark!r}: discard it")
    return True


def special_files(upper: Path) -> list[str]:
    """Fifos, sockets and devices that were made: reported, never exported."""
    special = []
    for name in sorted(files_below(upper, "")):
        status = os.lstat(upper / name)
        is_whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) or is_whiteout):
            special.append(name)
    return special
