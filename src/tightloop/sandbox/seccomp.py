"""The seccomp filter, assembled as classic BPF in plain Python.

Rules: see design/0004-sandbox.md. A filter sees syscall numbers and register arguments only,
never what a pointer points to, so paths and socket addresses are the business of other layers.
Numbers: Linux ``syscall_64.tbl`` (x86-64) and ``asm-generic/unistd.h`` (aarch64).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45  # BPF_JSET
_RETURN = 0x06
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data, little endian low words
_ARG_BYTES = 8
_X32_BIT = 0x40000000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NAMESPACE_FLAGS = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SET_UID = 0o4000
_MAKES_FILE = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE: only then there is a mode to look at
_OPENAT2 = 437


@dataclass(frozen=True, slots=True)
class Architecture:
    """Audit word and syscall numbers of one machine type."""

    audit: int
    denied: dict[str, int]
    clone: int
    clone3: int
    ioctl: int
    socket: int
    socketpair: int
    has_x32: bool
    modes: dict[int, int]
    """Calls that take the permissions of a file, and which argument that is."""
    opens: dict[int, int]
    """Calls that may make a file, and which argument the flags are; the mode is the next one."""


_SAME_EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
_NAMES = [
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "add_key",
    "request_key",
    "keyctl",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "delete_module",
    "finit_module",
    "swapon",
    "swapoff",
    "reboot",
    "acct",
    "quotactl",
    "open_by_handle_at",
]
_X86_64 = (
    "101 310 311 321 298 323 248 249 250 165 166 155 161 308 272 246 "
    "320 175 176 313 167 168 169 163 179 304"
)
_AARCH64 = (
    "117 270 271 280 241 282 217 218 219 40 39 41 51 268 97 104 "
    "294 105 106 273 224 225 142 89 60 265"
)


def _table(numbers: str) -> dict[str, int]:
    values = [int(number) for number in numbers.split()]
    return dict(zip(_NAMES, values, strict=True)) | _SAME_EVERYWHERE


ARCHITECTURES = {
    "x86_64": Architecture(
        0xC000003E,
        _table(_X86_64) | {"iopl": 172, "ioperm": 173},
        *(56, 435, 16, 41, 53, True),
        # creat, chmod, fchmod, mknod, mknodat, fchmodat, fchmodat2; open, openat
        {85: 1, 90: 1, 91: 1, 133: 1, 259: 2, 268: 2, 452: 2},
        {2: 1, 257: 2},
    ),
    "aarch64": Architecture(
        0xC00000B7,
        _table(_AARCH64),
        *(220, 435, 29, 198, 199, False),
        {52: 1, 33: 2, 53: 2, 452: 2},
        {56: 2},
    ),
}


_QUEUES = {
    # shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink
    "x86_64": (29, 30, 31, 67, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241),
    "aarch64": (194, 196, 195, 197, 190, 193, 191, 192, 186, 189, 188, 187, 180, 181),
}
"""Calls that reach queues, semaphores and memory of other programs, which have no path."""


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _deny(error: int) -> bytes:
    return _op(_RETURN, _ERRNO | error)


def _family_rule(number: int, families: Iterable[int]) -> bytes:
    """Only these families may be made by this call; the others get EPERM."""
    allowed = [
        _op(_JUMP_EQUAL, family, 0, 1) + _op(_RETURN, _ALLOW) for family in sorted(set(families))
    ]
    body = _op(_LOAD_WORD, _ARG0) + b"".join(allowed) + _deny(errno.EPERM)
    return _op(_JUMP_EQUAL, number, 0, len(body) // 8) + body


def _argument_rule(number: int, offset: int, tests: Iterable[tuple[int, int]]) -> bytes:
    """EPERM when one of the (jump, value) tests holds for the argument, else allowed."""
    denials = [_op(jump, value, 0, 1) + _deny(errno.EPERM) for jump, value in tests]
    body = _op(_LOAD_WORD, offset) + b"".join(denials) + _op(_RETURN, _ALLOW)
    return _op(_JUMP_EQUAL, number, 0, len(body) // 8) + body


def _open_rule(number: int, flags: int) -> bytes:
    """EPERM for a file that would be made with the set-uid bit; the mode is garbage otherwise."""
    offset = _ARG0 + _ARG_BYTES * flags
    body = _op(_LOAD_WORD, offset) + _op(_JUMP_ANY_BIT, _MAKES_FILE, 1, 0) + _op(_RETURN, _ALLOW)
    body += _op(_LOAD_WORD, offset + _ARG_BYTES) + _op(_JUMP_ANY_BIT, _SET_UID, 0, 1)
    body += _deny(errno.EPERM) + _op(_RETURN, _ALLOW)
    return _op(_JUMP_EQUAL, number, 0, len(body) // 8) + body


def program(
    socket_families: Iterable[int], machine: str | None = None, *, has_queues: bool = True
) -> bytes:
    """The filter as an array of ``struct sock_filter``, ready for bwrap or ``install``.

    ``socket_families`` are those that ``socket()`` may make; ``socketpair()`` may always make
    unix sockets, which reach nobody. Without ``has_queues`` no System V or POSIX queues can be
    used: where no namespace keeps those of the host apart. Raises KeyError for a machine without
    a table.
    """
    machine = machine or platform.machine()
    arch = ARCHITECTURES[machine]
    denied = {*arch.denied.values(), *(() if has_queues else _QUEUES[machine])}
    parts = [
        _op(_LOAD_WORD, _ARCH),
        _op(_JUMP_EQUAL, arch.audit, 1, 0),
        _op(_RETURN, _KILL_PROCESS),
        _op(_LOAD_WORD, _NR),
    ]
    if arch.has_x32:
        parts += [_op(_JUMP_GREATER_EQUAL, _X32_BIT, 0, 1), _deny(errno.EPERM)]
    for number in sorted(denied):
        parts += [_op(_JUMP_EQUAL, number, 0, 1), _deny(errno.EPERM)]
    # These hide flags and mode behind a pointer; after ENOSYS their users take clone and openat.
    for number in (arch.clone3, _OPENAT2):
        parts += [_op(_JUMP_EQUAL, number, 0, 1), _deny(errno.ENOSYS)]
    # A program that runs as its owner is a way out that waits for somebody else to take it.
    # Not set-gid: on directories it is common and harmless, and the filter cannot tell.
    parts += [_open_rule(number, flags) for number, flags in arch.opens.items()]
    parts += [
        _argument_rule(number, _ARG0 + _ARG_BYTES * mode, [(_JUMP_ANY_BIT, _SET_UID)])
        for number, mode in arch.modes.items()
    ]
    parts += [
        _argument_rule(arch.clone, _ARG0, [(_JUMP_ANY_BIT, _NAMESPACE_FLAGS)]),
        _argument_rule(arch.ioctl, _ARG1, [(_JUMP_EQUAL, _TIOCSTI), (_JUMP_EQUAL, _TIOCLINUX)]),
        _family_rule(arch.socket, socket_families),
        _family_rule(arch.socketpair, (AF_UNIX,)),
        _op(_RETURN, _ALLOW),
    ]
    return b"".join(parts)


def install(filter_program: bytes) -> None:
    """The calling thread and all its children to come are under the filter, for good.

    Needs no_new_privs. Raises OSError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(filter_program, len(filter_program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    header = Program(len(filter_program) // 8, ctypes.addressof(buffer))
    pr_set_seccomp, mode_filter = 22, 2
    if libc.prctl(pr_set_seccomp, mode_filter, ctypes.byref(header), 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the kernel refused the seccomp filter: {os.strerror(code)}")
