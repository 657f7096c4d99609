"""One step of finding out what a machine allows, done for real in a process of its own.

Namespaces, filters and mounts made here end with the process. The last line of its output is one
JSON object: ``{"ok": true, "seen": ...}``, or ``{"ok": false, "step": ..., "error": ...}`` naming
the first thing that was refused.
"""

import ctypes
import errno
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tightloop.sandbox import layers, overlay, seccomp
from tightloop.sandbox.interface import SandboxError

_NEWNS, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_FICLONE = 0x40049409
_MNT_DETACH = 2
_FUSE_LIMIT_MS = 5000
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_GET_ACTION_AVAIL, _RET_USER_NOTIF = 2, 0x7FC00000
_AF_NETLINK = 16
_SECCOMP_NUMBERS = {"x86_64": 317, "aarch64": 277}


class Step(Exception):
    """Something was refused; the first word of the report says what was being done."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(name)
        self.name = name
        self.error = error


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _do(name: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise Step(name, OSError(code, os.strerror(code)))


def _enter(flags: int) -> None:
    """New namespaces; a new user namespace maps this user to itself as 0."""
    uid, gid = os.geteuid(), os.getegid()
    _do("unshare", _libc().unshare(flags))
    if flags & _NEWUSER:
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        except OSError as error:
            raise Step("uid_map", error) from error


def _private_mounts() -> None:
    _do("private mounts", _libc().mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


def user_namespace(_arguments: list[str]) -> str:
    """A user namespace in which this process may do something: mount."""
    _enter(_NEWUSER | _NEWNS)
    _private_mounts()
    return "made, mapped, and mounts allowed inside"


def net_namespace(_arguments: list[str]) -> str:
    """A network namespace whose loopback device is up and answers."""
    _enter(_NEWUSER | _NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        try:
            request = struct.pack("16sh14x", b"lo", 0)
            flags = struct.unpack("16sh14x", fcntl.ioctl(device, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(device, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
        except OSError as error:
            raise Step("lo up", error) from error
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise Step("loopback connection", error) from error
    return "made, loopback up and connected"


def proc_mount(_arguments: list[str]) -> str:
    """A fresh /proc for a new process namespace."""
    _enter(_NEWUSER | _NEWNS | _NEWPID)
    _private_mounts()
    child = os.fork()
    if child == 0:
        result = _libc().mount(b"proc", b"/proc", b"proc", 0, None)
        os._exit(ctypes.get_errno() if result else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise Step("mount /proc", OSError(code, os.strerror(code)))
    return "a fresh /proc can be mounted"


def seccomp_filter(_arguments: list[str]) -> str:
    """Our own filter, installed; a netlink socket is then refused with EPERM."""
    libc = _libc()
    _do("no_new_privs", libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    action = ctypes.c_uint32(_RET_USER_NOTIF)
    number = _SECCOMP_NUMBERS[os.uname().machine]
    has_notify = libc.syscall(number, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0
    try:
        seccomp.install(seccomp.program((seccomp.AF_UNIX,)))
    except OSError as error:
        raise Step("install", error) from error
    try:
        socket.socket(_AF_NETLINK, socket.SOCK_RAW).close()
    except OSError as error:
        if error.errno != errno.EPERM:
            raise Step("filter", error) from error
    else:
        raise Step("filter", OSError(0, "a netlink socket was made under the filter"))
    return f"filter works; user notification {'available' if has_notify else 'missing'}"


def overlay_mount(arguments: list[str]) -> str:
    """An overlay on a directory: read through, write, delete, see the marks beneath.

    Arguments: the directory, and ``user`` for a user namespace, ``root`` for none.
    """
    directory, how = Path(arguments[0]), arguments[1]
    place = Path(tempfile.mkdtemp(prefix="tightloop-probe-", dir=directory))
    try:
        child = os.fork()
        if child == 0:
            _report(lambda: _try_overlay(place, _NEWUSER if how == "user" else 0))
        os.waitpid(child, 0)
    finally:
        layers.remove_tree(place)
    sys.exit(0)


def _try_overlay(place: Path, flags: int) -> str:
    base, upper, work, target = (place / name for name in ("base", "upper", "work", "target"))
    for path in (base, upper, work, target):
        path.mkdir()
    (base / "old").write_text("old")
    _enter(flags | _NEWNS)
    _private_mounts()
    try:
        overlay.mount(base, upper, work, target)
    except OSError as error:
        raise Step("mount", error) from error
    except SandboxError as error:
        raise Step("mount", OSError(0, str(error))) from error
    try:
        (target / "new").write_text((target / "old").read_text())
        (target / "old").unlink()
    except OSError as error:
        raise Step("write", error) from error
    marks = overlay.changed_candidates(base, upper)
    if marks != {"old", "new"}:
        raise Step("marks", OSError(0, f"the upper layer shows {sorted(marks)}"))
    return "mounted, written through, deletions marked"


def fuse_overlayfs(arguments: list[str]) -> str:
    """An overlay by a program and not by the kernel, on a directory: read through, write."""
    directory = Path(arguments[0])
    program = shutil.which("fuse-overlayfs", path=os.environ.get("PATH", os.defpath))
    if program is None:
        raise Step("fuse-overlayfs", OSError(errno.ENOENT, "not installed"))
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Step("/dev/fuse", error) from error
    place = Path(tempfile.mkdtemp(prefix="tightloop-probe-", dir=directory))
    try:
        child = os.fork()
        if child == 0:
            _report(lambda: _try_fuse(program, place))
        os.waitpid(child, 0)
    finally:
        layers.remove_tree(place)
    sys.exit(0)


def _try_fuse(program: str, place: Path) -> str:
    base, upper, work, target = (place / name for name in ("base", "upper", "work", "target"))
    for path in (base, upper, work, target):
        path.mkdir()
    (base / "old").write_text("old")
    _enter(_NEWUSER | _NEWNS)
    _private_mounts()
    options = f"lowerdir={base},upperdir={upper},workdir={work}"
    # In the foreground, so that it ends with this process's namespace and is ours to end.
    server = subprocess.Popen(
        [program, "-f", "-o", options, str(target)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        if not _is_mounted(target, server):
            said = server.stderr.read().decode(errors="replace").strip() if server.stderr else ""
            raise Step("mount", OSError(0, said[-200:] or "it said nothing"))
        try:
            (target / "new").write_text((target / "old").read_text())
        except OSError as error:
            raise Step("write", error) from error
        return "mounted and written through"
    finally:
        _libc().umount2(os.fsencode(target), _MNT_DETACH)
        server.kill()
        server.wait()


def _is_mounted(target: Path, server: subprocess.Popen[bytes]) -> bool:
    """Whether it becomes so; waits for the change of the list of mounts, or the program's end."""
    with open("/proc/self/mountinfo", "rb") as mounts:
        poll = select.poll()
        poll.register(mounts, select.POLLERR | select.POLLPRI)
        if server.stderr is not None:
            poll.register(server.stderr, select.POLLHUP)
        while not os.path.ismount(target):
            if server.poll() is not None or not poll.poll(_FUSE_LIMIT_MS):
                return False
    return True


def reflink(arguments: list[str]) -> str:
    """A copy that shares its blocks."""
    with (
        tempfile.TemporaryFile(dir=arguments[0]) as source,
        tempfile.TemporaryFile(dir=arguments[0]) as copy,
    ):
        source.write(b"x" * 65536)
        source.flush()
        try:
            fcntl.ioctl(copy, _FICLONE, source.fileno())
        except OSError as error:
            raise Step("FICLONE", error) from error
    return "files can be copied by reference"


STEPS: dict[str, Callable[[list[str]], str]] = {
    "user_namespace": user_namespace,
    "net_namespace": net_namespace,
    "proc_mount": proc_mount,
    "seccomp_filter": seccomp_filter,
    "overlay_mount": overlay_mount,
    "fuse_overlayfs": fuse_overlayfs,
    "reflink": reflink,
}


def _report(step: Callable[[], str]) -> NoReturn:
    """Print what came of the step, and end this process."""
    try:
        said: dict[str, object] = {"ok": True, "seen": step()}
    except Step as refused:
        code = errno.errorcode.get(refused.error.errno or 0, "")
        text = f"{code} {refused.error.strerror or refused.error}".strip()
        said = {"ok": False, "step": refused.name, "error": text}
    except OSError as error:
        said = {"ok": False, "step": "preparing", "error": str(error)}
    os.write(1, json.dumps(said).encode() + b"\n")
    os._exit(0)


def main() -> NoReturn:
    """Run the step that the first argument names with the others as its arguments."""
    name, *arguments = sys.argv[1:]
    _report(lambda: STEPS[name](arguments))
