"""P: processes."""

import ctypes
import os
import platform
import signal
import struct
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.attacks.inside.calls import call, syscall

Values = Mapping[str, Any]

_PTRACE_SEIZE = 0x4206
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_CLONE = {"x86_64": 56, "aarch64": 220}
_PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270}
_PIDFD_GETFD = 438
_CLONE3 = 435


def status(values: Values) -> str:
    """What the kernel says of the process itself."""
    with open("/proc/self/status") as file:
        said = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    names = ("NoNewPrivs", "CapEff", "CapPrm", "Seccomp")
    found = [int(said[name], 16) for name in names]
    return "locked" if found == [1, 0, 0, 2] else "free"


def trace(values: Values) -> None:
    """A process of the host is traced; that ends with this process."""
    call("ptrace", _PTRACE_SEIZE, values["victim"], None, None)


def read_memory(values: Values) -> str:
    """What a process of the host has in its memory."""
    size = len(b"hush-hush")
    buffer = ctypes.create_string_buffer(size)
    ours = struct.pack("QQ", ctypes.addressof(buffer), size)
    theirs = struct.pack("QQ", values["victim_address"], size)
    number = _PROCESS_VM_READV[platform.machine()]
    syscall(
        number,
        values["victim"],
        ours,
        ctypes.c_ulong(1),
        theirs,
        ctypes.c_ulong(1),
        ctypes.c_ulong(0),
    )
    return buffer.raw.decode()


def read_memory_file(values: Values) -> str:
    """The same by its file."""
    with open(f"/proc/{values['victim']}/mem", "rb", buffering=0) as file:
        file.seek(values["victim_address"])
        return file.read(len(b"hush-hush")).decode()


def take_descriptor(values: Values) -> None:
    """A copy of what a process of the host has open."""
    fd = os.pidfd_open(values["victim"])
    os.close(syscall(_PIDFD_GETFD, fd, 1, 0))


def list_processes(values: Values) -> str:
    """Whether a process of the host is among those that are visible."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if b"attacks-victim" in file.read():
                        return "ok"
            except FileNotFoundError:  # it has ended meanwhile
                continue
    return "only its own"


def signal_agent(values: Values) -> None:
    """A signal that does nothing, as any other would."""
    os.kill(values["owner"], signal.SIGCONT)


def signal_other(values: Values) -> None:
    """The same to another process of the user."""
    os.kill(values["victim"], signal.SIGCONT)


def new_user_namespace(values: Values) -> None:
    """With all capabilities in it."""
    call("unshare", _CLONE_NEWUSER)


def clone_user_namespace(values: Values) -> None:
    """The same for a child."""
    number = _CLONE[platform.machine()]
    _end(syscall(number, _CLONE_NEWUSER | signal.SIGCHLD, None, None, None, None))


def clone3_user_namespace(values: Values) -> None:
    """The same by a call whose arguments a filter cannot see."""
    arguments = struct.pack("11Q", _CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, *(0,) * 6)
    _end(syscall(_CLONE3, arguments, ctypes.c_size_t(len(arguments))))


def _end(pid: int) -> None:
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def enter_namespace(values: Values) -> None:
    """A mount namespace by its name; it is its own."""
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    call("setns", fd, _CLONE_NEWNS)


def run_as_owner(values: Values) -> str:
    """A set-uid program of root's. Its loader tells what it was given, but not if it is privileged."""
    directory = "/usr/bin"
    for name in ("su", "mount", "passwd", "chsh", "sudo"):
        path = f"{directory}/{name}"
        if os.path.exists(path) and os.stat(path).st_mode & 0o4000:
            done = subprocess.run(
                [path, "--version"],
                env={"LD_SHOW_AUXV": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            return "no privilege" if "AT_SECURE" in done.stdout else "ok"
    raise FileNotFoundError(2, "no set-uid program", directory)
