"""A child that waits for a run must hold what its parent held, and end with it."""

import os
import select
import socket

from tightloop.sandbox.warm.spare import Spare, own_pages
from tightloop.sandbox.warm.wire import receive, send


def test_pages_of_its_own_hold_the_same() -> None:
    """Nothing but their owner changes."""
    kept = bytearray(b"x" * (1 << 20))
    pid = os.fork()
    if not pid:
        own_pages()
        os._exit(0 if kept == b"x" * (1 << 20) else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_answer_is_its_own_and_a_dead_one_gives_none() -> None:
    """Whoever asks then forks for the run."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        receive(theirs)
        theirs.send(b"r")
        request, fds = receive(theirs)
        send(theirs, {"state": "colder", "reason": f"{request and request['id']} {len(fds)}"})
        receive(theirs)
        os._exit(0)
    theirs.close()
    spare = Spare(pid, ours)
    assert not spare.is_ready()
    send(ours, {})
    select.select([ours], [], [])
    assert spare.is_ready()
    assert spare.is_ready()
    assert spare.ask({"id": 1}, [0]) == {"state": "colder", "reason": "1 1"}
    assert spare.ask({"id": 2}, [0]) is None
    spare.end()
