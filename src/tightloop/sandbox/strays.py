"""Ends processes of a sandbox whose exec server was killed before it could end them.

With bubblewrap the kernel does that: the death of a namespace's first process ends all others.
Without namespaces they would live on as orphans. They are known by their tag, a resource limit
that every process of a sandbox inherits (see ``Server.tag_children`` in ``exec_server.py``).
"""

import os
from pathlib import Path

from tightloop.sandbox.exec_server import NUM_TAGS, end_process, tag_of

_MAX_ROUNDS = 200


def end_tagged(tag: int) -> int:
    """No process with a tag of this sandbox is alive; returns how many were ended.

    Takes some microseconds per process of the machine, so it belongs into a thread. Gives up
    after many rounds, should they multiply faster than they can be ended.
    """
    num_ended = 0
    for _ in range(_MAX_ROUNDS):
        alive = [pid for pid in _pids() if _is_tagged(pid, tag) and not _is_zombie(pid)]
        if not alive:
            break
        for pid in alive:
            end_process(pid)
        num_ended += len(alive)
    return num_ended


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _is_tagged(pid: int, tag: int) -> bool:
    # One below: the number 0 is that of the warm test process.
    return 0 < tag_of(pid, tag - 1) < NUM_TAGS


def _is_zombie(pid: int) -> bool:
    """Dead, but its parent has not asked for its exit code; it can take a while, or for ever."""
    try:
        status = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return True
    return status.rpartition(") ")[2][:1] in ("Z", "X")
