"""Starts commands that posix_spawn cannot start: with a terminal, or with limits of their own.

Standard library only: the exec server loads this file by its path, where it is needed at all.
"""

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Mapping


def make_terminal(size: list[int], channel: int) -> int:
    """The far end of a new terminal; the near end goes out through the channel."""
    master, slave = os.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        with socket.socket(fileno=os.dup(channel)) as connection:
            socket.send_fds(connection, [b"t"], [master])
    except OSError:
        os.close(slave)
        raise
    finally:
        os.close(master)
    return slave


def fork_and_exec(
    program: str,
    argv: list[str],
    environment: Mapping[str, str],
    streams: tuple[int, int, bool],
    prepare: Callable[[], None],
) -> int:
    """The process id of the command. ``streams`` are what it reads from, what it writes to, and
    whether that is a terminal; ``prepare`` runs in the child, last before the program.

    Raises OSError when the program cannot be started.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            set_up_streams(streams)
            prepare()
            os.execve(program, argv, environment)
        except (OSError, ValueError) as error:
            tell(writing, error)
        finally:
            os._exit(127)
    os.close(writing)
    said = os.read(reading, 16)
    os.close(reading)
    if said:
        os.waitpid(pid, 0)
        raise OSError(int(said), os.strerror(int(said)), program)
    return pid


def set_up_streams(streams: tuple[int, int, bool]) -> None:
    """In the child: a group of its own, or a session with a terminal that controls it."""
    read, write, is_terminal = streams
    if is_terminal:
        os.setsid()
        fcntl.ioctl(read, termios.TIOCSCTTY, 0)
    else:
        os.setpgid(0, 0)
    os.dup2(read, 0)
    os.dup2(write, 1)
    os.dup2(write, 2)


def tell(writing: int, error: OSError | ValueError) -> None:
    """In the child: the parent gets the number of what stands in the way."""
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    os.write(writing, str(number).encode())
