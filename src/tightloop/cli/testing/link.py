"""The near end's side of the connection: how to get one, who is there, what a person is told.

Like all of the near end it imports next to nothing; see ``near.py``.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys

MAX_MESSAGE_BYTES = 1 << 17
ANSWER_LIMIT_S = 30.0  # on a machine with far too much to do
_SO_PEERCRED, _CREDENTIALS_BYTES = 17, 12


class Gone(Exception):
    """The background process is not there, or not any more; nothing of the run has begun."""


class Unusable(Exception):
    """No run is possible; the text says why."""


def connect(state: str, name: str) -> _socket.socket:
    """To a background process of this user. Raises Gone, or Unusable for a place that is not ours.

    By way of the directory's descriptor: a path for a socket may have 107 bytes only.
    """
    try:
        place = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise Gone from None
    try:
        status = os.fstat(place)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise Unusable(
                f"{state} must belong to you alone: remove it, or make it yours with mode 0700"
            )
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(ANSWER_LIMIT_S)
            connection.connect(f"/proc/self/fd/{place}/{name}.sock")
            if peer(connection)[1] != os.getuid():
                raise Unusable(f"{state}/{name}.sock is served by another user")
        except OSError:
            connection.close()
            raise Gone from None
        except Unusable:
            connection.close()
            raise
        return connection
    finally:
        os.close(place)


def peer(connection: _socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the kernel says."""
    data = connection.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS_BYTES)
    return int.from_bytes(data[:4], sys.byteorder), int.from_bytes(data[4:8], sys.byteorder)


def end_silent(connection: _socket.socket) -> None:
    """A process of ours that took a connection and says nothing is of no use to anybody."""
    pid, user = peer(connection)
    if pid and user == os.getuid():
        say(f"the background process {pid} does not answer: ended")
        try:
            os.kill(pid, _signal.SIGKILL)
        except OSError:
            return  # it ended by itself meanwhile


def say(text: str) -> None:
    """One line for a person."""
    write(2, f"tightloop: {text}\n".encode(errors="replace"))


def write(fd: int, data: bytes) -> None:
    """All of it. Raises BrokenPipeError when nobody reads standard output any more."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # whoever shares the terminal has set it so
            wait_for_room(fd)
        except OSError as error:
            if fd != 1:
                return  # a verdict counts without its words
            raise BrokenPipeError from error


def wait_for_room(fd: int) -> None:
    """Something can be written."""
    import select

    select.select([], [fd], [])
