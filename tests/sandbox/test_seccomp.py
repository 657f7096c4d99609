"""The filter, run by a small interpreter of its own; the kernel runs it in test_isolation."""

import errno
import platform
import struct

import pytest

from tightloop.sandbox import seccomp

ALLOW = 0x7FFF0000
KILL = 0x80000000
INTERNET = (seccomp.AF_UNIX, seccomp.AF_INET, seccomp.AF_INET6)


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the program returns for a system call."""
    arch = seccomp.ARCHITECTURES[machine]
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    word = arch.audit if audit is None else audit
    data = struct.pack("<IIQ6Q", number, word, 0, *padded)
    program = seccomp.program(INTERNET, machine)
    at, register = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            register = struct.unpack_from("<I", data, value)[0]
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}
            at += if_true if holds[code] else if_false


def denied(error: int) -> int:
    """The return value that makes the call fail with this error."""
    return 0x00050000 | error


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_rules(machine: str) -> None:
    """Named calls are refused, namespace flags and odd sockets too, everything else passes."""
    arch = seccomp.ARCHITECTURES[machine]
    refused = {name: verdict(machine, number) for name, number in arch.denied.items()}
    assert set(refused.values()) == {denied(errno.EPERM)}
    assert verdict(machine, arch.clone3) == denied(errno.ENOSYS)
    assert verdict(machine, arch.clone, 0x00010000 | 17) == ALLOW
    assert verdict(machine, arch.clone, 0x10000000 | 17) == denied(errno.EPERM)
    assert verdict(machine, arch.ioctl, 0, 0x5413) == ALLOW
    assert verdict(machine, arch.ioctl, 0, 0x5412) == denied(errno.EPERM)
    families = {family for family in range(46) if verdict(machine, arch.socket, family) == ALLOW}
    assert families == set(INTERNET)
    assert verdict(machine, arch.socketpair, seccomp.AF_UNIX) == ALLOW
    assert verdict(machine, arch.socketpair, seccomp.AF_INET) == denied(errno.EPERM)
    assert verdict(machine, 64) in (ALLOW, denied(errno.EPERM))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_no_file_gets_the_set_uid_bit(machine: str) -> None:
    """However it is made; a mode that means nothing is not looked at."""
    arch = seccomp.ARCHITECTURES[machine]
    for number, mode in arch.modes.items():
        arguments = [0] * 6
        arguments[mode] = 0o100644
        assert verdict(machine, number, *arguments) == ALLOW
        arguments[mode] = 0o104755
        assert verdict(machine, number, *arguments) == denied(errno.EPERM)
        arguments[mode] = 0o2755
        assert verdict(machine, number, *arguments) == ALLOW
    for number, flags in arch.opens.items():
        for makes_file in (0o100, 0o20000000):
            arguments = [0] * 6
            arguments[flags : flags + 2] = [makes_file | 1, 0o644]
            assert verdict(machine, number, *arguments) == ALLOW
            arguments[flags + 1] = 0o4755
            assert verdict(machine, number, *arguments) == denied(errno.EPERM)
        arguments[flags] = 1
        assert verdict(machine, number, *arguments) == ALLOW
    assert verdict(machine, 437) == denied(errno.ENOSYS)


def test_another_architecture_is_killed() -> None:
    """Its numbers would mean other calls."""
    assert verdict("x86_64", 0, audit=0x40000003) == KILL
    assert verdict("x86_64", 0x40000000) == denied(errno.EPERM)


def test_this_machine_has_a_table() -> None:
    """And another one is refused by name."""
    assert seccomp.program(()) == seccomp.program((), platform.machine())
    with pytest.raises(KeyError, match="vax"):
        seccomp.program((), "vax")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_queues_can_be_denied(machine: str) -> None:
    """They have no path that another layer could look at."""
    with_queues = seccomp.program(INTERNET, machine)
    without = seccomp.program(INTERNET, machine, has_queues=False)
    assert len(without) == len(with_queues) + 14 * 2 * 8
    assert len(with_queues) // 8 < 4096  # BPF_MAXINSNS
