"""What a kind of isolation must say so that the exec server can be started inside it."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tightloop.sandbox.interface import Policy
from tightloop.sandbox.places import SERVER


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one exec server.

    ``fds`` stay open in the new process and are closed here afterwards. ``note_tag`` is called
    before the start with the tag of its processes, ``clean_up`` when the sandbox has ended. The
    exec server gives up writing anywhere but in ``writable`` before it serves, with Landlock; None
    for a kind that does without, or has done so already.
    """

    argv: Sequence[str]
    fds: Sequence[int] = ()
    extra_environment: dict[str, str] = field(default_factory=dict)
    clean_up: Callable[[], None] = lambda: None
    note_tag: Callable[[int], None] = lambda tag: None
    writable: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of isolation.

    ``prepare`` raises SandboxError when the machine lacks what it needs. ``is_confined`` kinds
    must show no capabilities, no_new_privs and a seccomp filter from inside.
    """

    name: str
    prepare: Callable[[Policy, dict[str, str], int], Launch]
    is_confined: bool
    remedy: str


def server_argv(fd: int) -> list[str]:
    """Command line of the exec server, with an interpreter that reads nothing of the user's."""
    python = str(Path(os.path.realpath(sys.executable)))
    return [python, "-I", "-S", "-B", str(SERVER), str(fd)]
