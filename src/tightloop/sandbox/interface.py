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
    ``max_memory_bytes`` and ``max_file_bytes`` hold per process and per file,
    ``max_total_memory_bytes`` for all processes together where a cgroup is delegated.
    ``is_read_only`` keeps the workspace as it is. ``proxy_socket`` is the unix socket of a proxy
    outside, the only way out while ``allow_network`` is False. Without ``has_unix_sockets`` no
    unix socket can be made inside, pairs excepted; Landlock alone never lets one be made.
    ``shown_from`` is the directory of the host that bubblewrap shows at ``workspace`` instead of the
    one of that name: a fork of it.
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
    is_read_only: bool = False
    proxy_socket: Path | None = None
    max_total_memory_bytes: int = 8 << 30
    has_unix_sockets: bool = True
    shown_from: Path | None = None


@dataclass(frozen=True, slots=True)
class Terminal:
    """Size of a terminal in characters."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one command that are tighter than the policy's; None leaves the policy's.

    ``max_output_bytes`` is for what is kept of the output. The others hold for each process of
    the command (``max_processes`` for all processes of the user, as the kernel counts), also
    when the value given is above the policy's, which then counts. ``max_cpu_s`` ends a process
    by SIGKILL after that many seconds of processor time.
    """

    max_memory_bytes: int | None = None
    max_processes: int | None = None
    max_file_bytes: int | None = None
    max_cpu_s: int | None = None
    max_output_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command: an argument vector, or a script for ``bash --norc -c``.

    ``cwd`` is relative to the workspace. ``timeout_s`` ends the whole process group; infinity
    means no time limit. ``stdin`` is what the command reads, then the end of the file, or, with
    ``is_stdin_open``, what ``RunningCommand.write`` sends. With ``terminal`` all three streams
    are a terminal of that size, the controlling one of a session of its own: input stays open,
    and output comes as a terminal gets it (``\\r\\n``, an echo of the input). With ``screen``
    there is no input, and only the output is a terminal, of that size, that changes nothing of
    it: programs choose colours and width for it, and a test run may still be a warm one. With
    ``is_reporting`` a warm test run, if the command becomes one, says how each test ended.
    """

    argv: Sequence[str] | None = None
    script: str | None = None
    cwd: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120.0
    stdin: bytes = b""
    is_stdin_open: bool = False
    terminal: Terminal | None = None
    screen: Terminal | None = None
    limits: Limits | None = None
    is_reporting: bool = False


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    ``exit_code`` is negative for a signal, as in ``subprocess``. ``output`` is stdout and stderr
    interleaved, decoded with replacement, truncated in the middle when ``is_truncated``.
    ``started_ns``/``ended_ns`` are clock readings; ``how`` says which path ran it, e.g.
    ``spawn``, ``single-use`` or ``warm-pytest-l1``. ``report`` has a JSON object a line for each
    test of a warm run that was asked for it, up to some megabytes.
    """

    exit_code: int
    output: str
    started_ns: int
    ended_ns: int
    is_truncated: bool = False
    timed_out: bool = False
    how: str = "spawn"
    report: bytes = b""


class RunningCommand(Protocol):
    """A command under way. It goes on when nobody waits for it; ``kill`` or its end ends it."""

    @property
    def has_ended(self) -> bool:
        """Whether ``wait`` has its answer already."""

    def output_so_far(self) -> str:
        """What ``CommandResult.output`` would be if the command ended now."""

    async def write(self, data: bytes) -> None:
        """The command can read ``data``; waits until all of it is in the pipe or terminal.

        Raises BrokenPipeError when the command has ended or no longer reads, ValueError when it
        was started with neither ``is_stdin_open`` nor ``terminal``.
        """

    def close_stdin(self) -> None:
        """The command sees the end of its input once it has read what was written before.

        In a terminal this is the end-of-file character, which counts at the start of a line.
        May be called twice, and after the end.
        """

    def resize(self, size: Terminal) -> None:
        """The terminal has the new size, and its programs get SIGWINCH.

        Raises ValueError for a command without a terminal; does nothing when it has ended.
        """

    def send_signal(self, number: int) -> None:
        """The command's process group gets the signal, as from ``kill(2)``."""

    def kill(self) -> None:
        """Every process of the command is ended; ``wait`` then tells how it ended."""

    async def wait(self) -> CommandResult:
        """How it ended. Cancelling the wait leaves the command alone; may be called again.

        Raises SandboxError when the sandbox died or was closed meanwhile.
        """


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


class InteractiveSandbox(Sandbox, Protocol):
    """A sandbox whose commands can be talked to while they run."""

    async def begin(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> RunningCommand:
        """Start one command and return at once; its time limit runs from now.

        A program that cannot be started is a result of ``wait``, as it is of ``run``.
        """


class SandboxError(Exception):
    """Isolation or the workspace cannot be had; the text names the remedy."""


class SandboxTooSlow(SandboxError):
    """It did not start in time, which says nothing about whether it works here."""
