"""Isolation behind one interface.

A ``Sandbox`` is persistent: it is entered once per session, and commands then start inside it
without paying for isolation again. ``isolation.py`` picks the strongest kind the machine allows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Policy:
    """What the inside may do. Paths are host paths.

    ``workspace`` is the only writable directory that outlives the sandbox. ``protected`` are
    paths below it that stay read-only. ``max_output_bytes`` bounds what one command may return
    (head and tail are kept). ``read_only`` are tool chains that must stay readable although they
    lie in a hidden place such as the home directory; ``hidden`` are directories to hide besides
    the usual ones. ``warm_tests`` lets plain pytest commands run in a fork of a warm interpreter.
    ``max_memory_bytes`` and ``max_file_bytes`` hold per process and per file.
    """

    workspace: Path
    protected: tuple[Path, ...] = ()
    allow_network: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    max_memory_bytes: int = 4 << 30
    max_processes: int = 512
    max_file_bytes: int = 1 << 30
    max_output_bytes: int = 256 << 10
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    warm_tests: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """One command: an argument vector, or a script for ``bash --norc -c``.

    ``cwd`` is relative to the workspace. ``timeout_s`` ends the whole process group.
    """

    argv: Sequence[str] | None = None
    script: str | None = None
    cwd: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    ``exit_code`` is negative for a signal, as in ``subprocess``. ``output`` is stdout and stderr
    interleaved, decoded with replacement, truncated in the middle when ``is_truncated``.
    ``started_ns``/``ended_ns`` are clock readings; ``how`` says which path ran it, e.g.
    ``spawn`` or ``warm-pytest``.
    """

    exit_code: int
    output: str
    started_ns: int
    ended_ns: int
    is_truncated: bool = False
    timed_out: bool = False
    how: str = "spawn"


class Sandbox(Protocol):
    """A persistent isolated place to run commands in. Methods run on one event loop."""

    kind: str
    """``bubblewrap``, ``landlock`` or ``none``: shown to the user in every run."""

    async def start(self) -> None:
        """Be ready for commands. Raises ``SandboxError`` naming what is missing and the fix."""

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command to its end; output pieces are also handed on as they arrive.

        Cancelling the awaiting task kills the process group. Several may run at once.
        """

    async def close(self) -> None:
        """End every process inside. May be called twice."""


class SandboxError(Exception):
    """Isolation or the workspace cannot be had; the text names the remedy."""
