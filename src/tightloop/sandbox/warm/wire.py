"""Messages over a SOCK_SEQPACKET connection: JSON, with descriptors beside it."""

import array
import json
import socket
from collections.abc import Sequence
from typing import Any

MAX_MESSAGE_BYTES = 200_000
_MAX_FDS = 4


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One message and its descriptors, closed on exec; None at the end of the connection."""
    size = socket.CMSG_SPACE(array.array("i", [0] * _MAX_FDS).itemsize * _MAX_FDS)
    data, extra, _, _ = connection.recvmsg(MAX_MESSAGE_BYTES, size, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return (json.loads(data) if data else None), list(fds)


def send(connection: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """One message, whole."""
    data = json.dumps(message).encode()
    if fds:
        socket.send_fds(connection, [data], fds)
    else:
        connection.sendall(data)
