"""System calls that Python has no function for."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """What the C function returned. Raises OSError when that is negative."""
    return checked(int(getattr(LIBC, name)(*arguments)))


def syscall(number: int, *arguments: object) -> int:
    """What the system call returned. Raises OSError when that is negative."""
    return checked(int(LIBC.syscall(number, *arguments)))


def checked(result: int) -> int:
    """The result, if it is not negative; else errno is raised."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
