"""One process at a time goes on with a conversation: a lock file beside it says who has it.

The lock ends with its holder, however that ends; see ``sandbox.locks``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tightloop.harness.backend import UsageError
from tightloop.harness.record import threads_directory
from tightloop.sandbox.locks import acquire
from tightloop.trace.clock import wall_label


class ThreadHeld(UsageError):
    """Another process is at this conversation; the text says which."""


@contextmanager
def held(state_dir: Path, thread_id: str, verb: str) -> Iterator[None]:
    """Nobody else goes on with the conversation meanwhile. Raises ThreadHeld, and never waits."""
    path = threads_directory(state_dir) / f"{thread_id}.lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = acquire(path, wait=False)
    if fd is None:
        raise ThreadHeld(
            f"the conversation {thread_id} is open in {_holder(path)}: wait until it is left there, "
            "or begin another one from what it has said so far (exec --fork)"
        )
    try:
        about = {"pid": os.getpid(), "verb": verb, "since": wall_label()[:19]}
        os.ftruncate(fd, 0)
        os.write(fd, msgspec.json.encode(about))
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _holder(path: Path) -> str:
    try:
        about = msgspec.json.decode(path.read_bytes(), type=dict[str, str | int])
        return f"process {about['pid']} (tightloop {about['verb']}, since {about['since']} UTC)"
    except (OSError, ValueError, KeyError):  # it has only just begun, or has only just ended
        return "another process"
