"""Messages and descriptors come out as they went in."""

import os
import socket

from tightloop.sandbox.warm.wire import receive, send


def test_a_message_with_descriptors_and_the_end() -> None:
    """Descriptors are closed on exec: a command would inherit them otherwise."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = os.pipe()
    send(ours, {"id": 1}, fds)
    send(ours, {"id": 2})
    message, passed = receive(theirs)
    assert (message, len(passed)) == ({"id": 1}, 2)
    assert not any(os.get_inheritable(fd) for fd in passed)
    assert receive(theirs) == ({"id": 2}, [])
    ours.close()
    assert receive(theirs) == (None, [])
    theirs.close()
    for fd in (*fds, *passed):
        os.close(fd)
