"""F: files. Names of files that are made begin with the attack's number."""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from tests.attacks.inside.calls import call

Values = Mapping[str, Any]

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_FDCWD, _AT_SYMLINK_FOLLOW = -100, 0x400


def _make(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def write_readable(values: Values) -> None:
    """In a directory that is shown inside."""
    _make(f"{values['outside']}/F1-readable")


def write_home(values: Values) -> None:
    """In the home directory."""
    _make(f"{values['home']}/F1-home")


def write_parent(values: Values) -> None:
    """Beside the workspace."""
    _make(f"{os.path.dirname(values['workspace'])}/F1-parent")


def write_etc(values: Values) -> None:
    """An existing file is opened to be written, and left as it is."""
    os.close(os.open("/etc/passwd", os.O_WRONLY))


def write_tmp(values: Values) -> None:
    """In the host's directory for temporary files."""
    _make(f"{values['root']}/F2")


def write_through_link(values: Values) -> None:
    """A link made here leads to a readable directory."""
    os.symlink(values["outside"], "F3-link")
    _make("F3-link/F3")


def write_through_closed_link(values: Values) -> None:
    """A link made here leads to a directory that is not shown."""
    os.symlink(f"{values['closed']}/F3", "F3-closed")
    with open("F3-closed", "w"):
        pass


def hard_link(values: Values) -> None:
    """An outside file under a name in the workspace, then written by that name."""
    os.link(f"{values['outside']}/secret", "F6-hard")
    with open("F6-hard", "a"):
        pass


def hard_link_by_descriptor(values: Values) -> None:
    """The same of a file that is open already."""
    fd = os.open(f"{values['outside']}/secret", os.O_RDONLY)
    source = f"/proc/self/fd/{fd}".encode()
    call("linkat", _AT_FDCWD, source, _AT_FDCWD, b"F6-descriptor", _AT_SYMLINK_FOLLOW)


def dots(values: Values) -> None:
    """Up beyond the root, then down."""
    _make("../" * 40 + values["outside"][1:] + "/F8-dots")


def own_root(values: Values) -> None:
    """By the process's own root."""
    _make(f"/proc/self/root{values['outside']}/F8-root")


def own_directory(values: Values) -> None:
    """By the process's own working directory."""
    os.chdir(values["outside"])
    _make("/proc/self/cwd/F8-cwd")


def root_of_first(values: Values) -> str:
    """What the first process's root shows of a directory that is hidden here."""
    first = values["owner"] if values["backend"] == "none" else 1
    with open(f"/proc/{first}/root{values['closed']}/secret") as file:
        return file.read()


def root_of_owner(values: Values) -> str:
    """The same by the agent's root."""
    with open(f"/proc/{values['owner']}/root{values['closed']}/secret") as file:
        return file.read()


PROTECTED_FILES_OF_GIT = (
    *(".git/config", ".git/hooks", ".git/info", ".git/worktrees/other/commondir"),
    *(".git/modules/part/config", ".git/modules/part/hooks", "part/.git", ".gitmodules"),
)
PROTECTED_NAMES_OF_TOOLS = (
    *(".codex", ".agents", ".claude", ".vscode", ".idea", ".mcp.json", ".envrc", ".bashrc"),
    *(".npmrc", ".gitmodules", ".tightloop.toml"),
)


def change_git(values: Values) -> str:
    """Everything of git's that says what to run: appended to, or a file made in it."""
    return _each(PROTECTED_FILES_OF_GIT, _change)


def remove_git(values: Values) -> str:
    """The same, renamed away."""
    return _each(tuple(map(_mounted, PROTECTED_FILES_OF_GIT)), _move)


def _mounted(path: str) -> str:
    return ".git/worktrees" if path.startswith(".git/worktrees/") else path


def change_tools(values: Values) -> str:
    """Everything that editors and agents read."""
    return _each(PROTECTED_NAMES_OF_TOOLS, _change)


def remove_tools(values: Values) -> str:
    """The same, renamed away."""
    return _each(PROTECTED_NAMES_OF_TOOLS, _move)


def _move(path: str) -> None:
    os.rename(path, f"{path}-moved")
    os.rename(f"{path}-moved", path)


def _change(path: str) -> None:
    if os.path.isdir(path):
        path += "/F10"
    with open(path, "a") as file:
        file.write("\n")


def _each(paths: tuple[str, ...], act: Callable[[str], None]) -> str:
    """``ok`` when all could be done, else what came of all of them; a mixture names each."""
    outcomes = {}
    for path in paths:
        try:
            act(path)
            outcomes[path] = "ok"
        except OSError as error:
            outcomes[path] = _name(error)
    kinds = set(outcomes.values())
    return kinds.pop() if len(kinds) == 1 else f"mixed: {outcomes}"


def _name(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


def make_device(values: Values) -> None:
    """The null device under another name."""
    os.mknod("F14-device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))


def set_uid_by_chmod(values: Values) -> str:
    """A program that would run as its owner, whoever starts it."""
    _make("F14-chmod")
    return _set_uid_of("F14-chmod", lambda path: os.chmod(path, 0o6755))


def set_uid_at_once(values: Values) -> str:
    """The same, made so."""

    def make(path: str) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o6755))

    return _set_uid_of("F14-open", make)


def set_uid_by_mknod(values: Values) -> str:
    """The same as a node."""
    return _set_uid_of("F14-mknod", lambda path: os.mknod(path, stat.S_IFREG | 0o6755))


def _set_uid_of(path: str, act: Callable[[str], None]) -> str:
    act(path)
    return "ok" if os.stat(path).st_mode & stat.S_ISUID else "no bit"


def shared_memory(values: Values) -> None:
    """In the host's shared memory."""
    _make(values["shm"])


def whiteout(values: Values) -> None:
    """A mark in the upper layer that deletes a file of the base."""
    os.mknod(f"{values['upper']}/F16", stat.S_IFCHR, os.makedev(0, 0))


def whiteout_by_mount(values: Values) -> None:
    """The same through the mount."""
    os.mknod("F16-mount", stat.S_IFCHR, os.makedev(0, 0))


def remount_root(values: Values) -> None:
    """The root is mounted again, writable."""
    _own_mounts(values)
    call("mount", b"none", b"/", None, _MS_BIND | _MS_REMOUNT, None)


def mount_tmpfs(values: Values) -> None:
    """An ordinary mount."""
    _own_mounts(values)
    os.mkdir("F17")
    call("mount", b"none", b"F17", b"tmpfs", 0, None)


def bind_over(values: Values) -> None:
    """A bind mount over something that is shown."""
    _own_mounts(values)
    call("mount", b".", os.fsencode(values["outside"]), None, _MS_BIND, None)


def unmount_mask(values: Values) -> None:
    """What hides the home directory is taken away."""
    home = os.fsencode(values["home"])
    if values["backend"] == "none":
        _own_mounts(values)
        call("mount", b"none", home, b"tmpfs", 0, None)
    call("umount2", home, _MNT_DETACH)


def _own_mounts(values: Values) -> None:
    """The control may not touch the host's mounts; inside it is the mount itself that must fail."""
    if values["backend"] == "none":
        call("unshare", _CLONE_NEWNS)
        call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def change_mode(values: Values) -> None:
    """Permissions of a file outside, and back."""
    path = f"{values['outside']}/secret"
    before = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, 0o600)
    os.chmod(path, before)


def make_outside_set_uid(values: Values) -> None:
    """A file outside becomes a program that runs as its owner, and is what it was again."""
    path = f"{values['outside']}/secret"
    before = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, before | stat.S_ISUID)
    os.chmod(path, before)


def change_time(values: Values) -> None:
    """The times of a file outside, to what they are."""
    path = f"{values['outside']}/secret"
    about = os.stat(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def change_attribute(values: Values) -> None:
    """An extended attribute of a file outside, and away again."""
    path = f"{values['outside']}/secret"
    os.setxattr(path, "user.F19", b"x")
    os.removexattr(path, "user.F19")
