"""A real ``tightloop`` behind a pseudo-terminal, and what a person would see there."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import pyte

from tightloop.trace.clock import now_ns

PROGRAM = os.environ.get("TIGHTLOOP_PROGRAM", "-m tightloop").split()
LIMIT_S = 25.0
"""When to give up waiting for a screen: no statement about how fast it has to be."""


class Seen:
    """A process and the screen it draws. ``env`` is added to a small environment of its own."""

    def __init__(
        self,
        words: list[str],
        cwd: Path,
        *,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=100_000, ratio=0.01)
        self.raw = b""
        """Everything that was written to the terminal."""
        self._stream = pyte.ByteStream(self.screen)
        self.status: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environment = {
                "TERM": "xterm-256color", "PATH": os.environ["PATH"], "LANG": "C.UTF-8",
                "HOME": str(cwd.parent), **(env or {}),
            }  # fmt: skip
            try:
                os.chdir(cwd)
                os.execve(sys.executable, [sys.executable, *PROGRAM, *words], environment)
            finally:
                os._exit(127)
        self.resize(columns, rows)

    def __enter__(self) -> "Seen":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.fd)

    def resize(self, columns: int, rows: int) -> None:
        """The window has this size now."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, size)
        self.screen.resize(rows, columns)

    def type(self, text: str) -> None:
        """As if it came from a keyboard."""
        os.write(self.fd, text.encode())

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def rows(self) -> list[str]:
        """What is on the screen."""
        return [row.rstrip() for row in self.screen.display]

    @property
    def text(self) -> str:
        """All that can be seen, and by scrolling back."""
        width = self.screen.columns
        above = [
            "".join(row[column].data for column in range(width)).rstrip()
            for row in self.screen.history.top
        ]
        return "\n".join([*above, *self.rows]).rstrip()

    @property
    def cursor(self) -> tuple[int, int]:
        return self.screen.cursor.y, self.screen.cursor.x

    def until(self, wanted: str | Callable[["Seen"], bool]) -> None:
        """Return once this can be seen. Fails with the screen when it never comes."""
        end_ns = now_ns() + round(LIMIT_S * 1e9)
        while not (wanted in self.text if isinstance(wanted, str) else wanted(self)):
            left_s = (end_ns - now_ns()) / 1e9
            if left_s <= 0 or not self.read(left_s):
                raise AssertionError(f"{wanted!r} was never seen; instead:\n{self.text}")

    def until_gone(self, unwanted: str) -> None:
        """Return once this is not on the screen."""
        self.until(lambda seen: unwanted not in "\n".join(seen.rows))

    def _feed(self, data: bytes) -> None:
        """pyte takes the switches of the keyboard protocol for text."""
        self.raw += data
        self._stream.feed(data.replace(b"\x1b[>1u", b"").replace(b"\x1b[<u", b""))

    def read(self, timeout_s: float) -> bool:
        """Take what was written; False when nothing came, or nothing more will."""
        ready, _, _ = select.select([self.fd], [], [], timeout_s)
        if not ready:
            return False
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self._feed(data)
        return bool(data)

    def wait(self) -> int:
        """Its exit status, as a shell has it, once it has ended; all output is read."""
        while self.read(LIMIT_S):
            pass
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.status = 128 - code if code < 0 else code
        return self.status


def script_file(path: Path, answers: list[Any], replies: Mapping[str, Any] | None = None) -> str:
    """A model that gives these answers; see ``engine.script_file``."""
    path.write_bytes(orjson.dumps({"answers": answers, "replies": replies or {}}))
    return f"scripted:{path}"


@contextmanager
def chat(
    repo: Path, *words: str, model: str = "scripted", approval: str = "full", **more: Any
) -> Iterator[Seen]:
    """A chat about this directory, whose state is beside it; commands run without a question."""
    state = str(repo.parent / "state")
    options = ["--model", model, "--state-dir", state, "--sandbox", "none", "--approval", approval]
    with Seen([*options, *words], repo, **more) as seen:
        yield seen
