"""Mounts of this process only, also for an ordinary user: it moves into a namespace of its own.

A mount that is made in another process's namespace cannot be seen from here under its own name
(through ``/proc/PID/root`` only, where links and ``realpath`` lead astray). So the agent itself
goes inside: its file tools, git and the sandboxes it starts see the mounts under their plain
paths, nobody else does, and the kernel takes the mounts away with the last process.

User and group stay what they were, other users' files look like those of ``nobody``. Commands do
not get the new rights: an ordinary user's capabilities end with ``execve``. Root needs a namespace
of mounts only, so that a kill leaves none behind.
"""

import contextlib
import ctypes
import os
import tempfile
from pathlib import Path

from tightloop.sandbox import layers, mounts, overlay
from tightloop.sandbox.interface import SandboxError

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_CAP_SYS_ADMIN = 21


def enter(state_dir: Path) -> str:
    """Overlays with layers in ``state_dir`` can be mounted from here on, or why they cannot.

    Call it once, early: the kernel allows it to processes with one thread only. A child tries
    everything first, so that a process that would gain nothing stays where it is. Returns an
    empty text when mounts are possible, also for a process that needs no namespace for it.
    """
    num_threads = len(os.listdir("/proc/self/task"))
    if _can_mount():
        if os.geteuid() == 0 and num_threads == 1:
            _leave_host_mounts()
        return ""
    if os.geteuid() == 0:
        # In there it could no longer give files to their owners, which apply does as root.
        return "root has no CAP_SYS_ADMIN here"
    if num_threads > 1:
        return f"the process has {num_threads} threads already"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="probe-", dir=os.path.realpath(state_dir)))
    try:
        reason = _tried_in_child(place)
    finally:
        layers.remove_tree(place)
    if reason:
        return reason
    _unshare()
    return ""


def _leave_host_mounts() -> None:
    """What root mounts from here on ends with this process; what the host mounts still shows."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) == 0:
        with contextlib.suppress(OSError):  # a root directory from chroot(2) is not a mount
            mounts.set_all_receiving()


def _can_mount() -> bool:
    with open("/proc/self/status") as lines:
        effective = next(line for line in lines if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1)


def _tried_in_child(place: Path) -> str:
    """What stands in the way; the child's mount ends with it."""
    names = ("base", "upper", "work", "view")
    directories = [place / name for name in names]
    for directory in directories:
        directory.mkdir()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _unshare()
            overlay.mount(*directories)
            (directories[3] / "file").write_text("x")
            os.write(write_end, b"ok")
        except (OSError, SandboxError) as error:
            os.write(write_end, f"no: {error}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as answers:
        answer = answers.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return "" if answer == "ok" else answer.removeprefix("no: ") or "the attempt ended too early"


def _unshare() -> None:
    """This process has user and mount namespaces of its own, and is the same user in them."""
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        code = ctypes.get_errno()
        raise SandboxError(
            f"no user namespace: {os.strerror(code)}; 'tightloop doctor' names the setting"
        )
    # The kernel asks for this order, and for setgroups to be off first (user_namespaces(7)).
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"{group} {group} 1"),
        ("uid_map", f"{user} {user} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
