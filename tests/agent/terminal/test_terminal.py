import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.terminal.emulator import Emulator
from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.painter import Cursor, Size
from tightloop.agent.terminal.styled import line
from tightloop.agent.terminal.terminal import Terminal

ENVIRON = {"TERM": "xterm-256color"}
ROOT = Path(__file__).parents[3]


class Pty:
    """A pseudo-terminal: the program's end is ``fd``, the other one is read into an emulator."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.master, self.fd = pty.openpty()
        self.emulator = Emulator(columns, rows)
        self.written = b""
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """Without telling anybody."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if self.emulator.size != Size(columns, rows):
            self.emulator.resize(columns, rows)

    def read(self) -> bytes:
        """What was written meanwhile; waits for something."""
        try:
            data = os.read(self.master, 65_536)
        except OSError:
            return b""
        self.written += data
        self.emulator.feed(data)
        return data

    def read_until(self, text: str) -> None:
        """Until ``text`` is among the rows."""
        while text not in "\n".join(self.emulator.rows()):
            assert self.read(), self.written

    def read_all(self) -> None:
        """Until nobody has the other end any more."""
        while self.read():
            pass

    @property
    def mode(self) -> list[object]:
        """The line discipline."""
        return list(termios.tcgetattr(self.fd))


@pytest.fixture
def terminal_pair() -> Iterator[Pty]:
    found = Pty()
    yield found
    os.close(found.master)
    with contextlib.suppress(OSError):
        os.close(found.fd)


async def until(pair: Pty, text: str) -> None:
    """Let the loop run until ``text`` is on the screen."""
    loop = asyncio.get_running_loop()
    while text not in "\n".join(pair.emulator.rows()):
        readable = loop.create_future()
        loop.add_reader(pair.master, readable.set_result, None)
        await readable
        loop.remove_reader(pair.master)
        pair.read()


async def test_keys_go_in_and_rows_come_out(terminal_pair: Pty) -> None:
    """The first paint comes before the loop has anything, keys typed before it are not lost."""
    before = terminal_pair.mode
    os.write(terminal_pair.master, b"early\n")
    keys: asyncio.Queue[Key] = asyncio.Queue()
    with Terminal(ENVIRON, input_fd=terminal_pair.fd, output_fd=terminal_pair.fd) as terminal:
        assert terminal.has_keys
        terminal.screen.set_live([line("> ")], Cursor(0, 2))
        terminal.screen.draw()
        await until(terminal_pair, ">")
        terminal.attach(keys.put_nowait)
        found = [await keys.get(), await keys.get()]
        assert [Key("text", "early"), Key("ctrl-j")] == found
        os.write(terminal_pair.master, b"\x1b[200~a\rb\x1b[201~\x03\x1b[A\x1b")
        found = [await keys.get() for _ in range(4)]
        assert [Key("paste", "a\nb"), Key("ctrl-c"), Key("up"), Key("esc")] == found
        terminal.screen.append([line("done")])
        await until(terminal_pair, "done")
    assert before == terminal_pair.mode


async def test_a_resize_redraws(terminal_pair: Pty) -> None:
    """SIGWINCH brings a frame of the new size, nobody has to ask for it."""
    sizes: list[Size] = []
    with Terminal(ENVIRON, input_fd=terminal_pair.fd, output_fd=terminal_pair.fd) as terminal:

        def on_frame(size: Size) -> None:
            sizes.append(size)
            terminal.screen.set_live([line(f"{size.columns} x {size.rows}")])

        terminal.screen.on_frame = on_frame
        terminal.attach(lambda key: None)
        await until(terminal_pair, "80 x 24")
        terminal_pair.resize(40, 10)
        os.kill(os.getpid(), signal.SIGWINCH)
        await until(terminal_pair, "40 x 10")
        assert terminal_pair.emulator.rows() == ["40 x 10"]
    assert Size(80, 24) in sizes


async def test_a_dumb_terminal_has_lines_only(terminal_pair: Pty) -> None:
    """It stays in line mode, and what it gets has no escape sequence."""
    before = terminal_pair.mode
    keys: asyncio.Queue[Key] = asyncio.Queue()
    dumb = {"TERM": "dumb"}
    with Terminal(dumb, input_fd=terminal_pair.fd, output_fd=terminal_pair.fd) as terminal:
        assert not terminal.has_keys
        assert before == terminal_pair.mode
        terminal.attach(keys.put_nowait)
        terminal.screen.append([line("hello")])
        os.write(terminal_pair.master, b"fix it\n")
        assert [Key("text", "fix it"), Key("enter")] == [await keys.get(), await keys.get()]
        await until(terminal_pair, "hello")
    assert b"\x1b" not in terminal_pair.written


async def test_pipes(tmp_path: Path) -> None:
    """Lines of a file in, plain rows out, and the end of the file is Ctrl-D."""
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_text("one\ntwo")
    keys: asyncio.Queue[Key] = asyncio.Queue()
    with source.open() as read, sink.open("w") as written:
        found: list[Key] = []
        with Terminal(ENVIRON, input_fd=read.fileno(), output_fd=written.fileno()) as terminal:
            terminal.attach(keys.put_nowait)
            terminal.screen.append([line("row")])
            while not found or found[-1].name != "ctrl-d":
                found.append(await keys.get())
    one, two = Key("text", "one"), Key("text", "two")
    assert [one, Key("enter"), two, Key("enter"), Key("ctrl-d")] == found
    assert sink.read_text() == "row\n"


async def test_a_terminal_that_goes_away_is_no_error() -> None:
    """Keys end, and what is still drawn is dropped."""
    pair = Pty()
    keys: asyncio.Queue[Key] = asyncio.Queue()
    with Terminal(ENVIRON, input_fd=pair.fd, output_fd=pair.fd) as terminal:
        terminal.attach(keys.put_nowait)
        os.close(pair.master)
        assert Key("ctrl-d") == await keys.get()
        terminal.screen.append([line("into nothing")])
        terminal.screen.draw()
    os.close(pair.fd)


@pytest.fixture
def run(terminal_pair: Pty) -> Iterator["Run"]:
    running = Run(terminal_pair)
    yield running
    running.close()


class Run:
    """``program`` in a terminal."""

    def __init__(self, pair: Pty) -> None:
        self.pair = pair
        self.before = pair.mode
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, how: str) -> "subprocess.Popen[bytes]":
        """Returns when it is ready."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.terminal.program", how],
            stdin=self.pair.fd,
            stdout=self.pair.fd,
            stderr=self.pair.fd,
            cwd=ROOT,
            env={**os.environ, **ENVIRON},
            start_new_session=True,
        )
        self.pair.read_until("ready")
        return self._process

    def close(self) -> None:
        """It does not outlive the test."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


ENDS = {"return": 0, "exception": 1, "sys.exit": 3, "SIGTERM": -15, "SIGHUP": -1}


@pytest.mark.parametrize(("how", "code"), ENDS.items())
def test_the_terminal_is_as_before_after_every_end(run: Run, how: str, code: int) -> None:
    """Line discipline, paste mode, cursor, autowrap; the live region is gone."""
    process = run.start(how)
    assert run.before != run.pair.mode
    os.write(run.pair.master, b"x\r")
    run.pair.read_until("key enter")
    if how.startswith("SIG"):
        process.send_signal(getattr(signal, how))
    else:
        os.write(run.pair.master, b"\x1b")
    assert code == process.wait()
    assert run.before == run.pair.mode
    os.write(run.pair.fd, b"the shell goes on\r\n")
    run.pair.read_until("the shell goes on")
    emulator = run.pair.emulator
    expected = ["ready", "key text x", "key enter"]
    assert expected == emulator.rows()[:3]
    if how != "exception":
        assert [*expected, "the shell goes on"] == emulator.rows()
    assert emulator.is_cursor_shown
    assert emulator.wraps
    for pair in ((b"\x1b[?2004h", b"\x1b[?2004l"), (b"\x1b[>1u", b"\x1b[<u")):
        on, off = [run.pair.written.rfind(sequence) for sequence in pair]
        assert 0 <= on < off


def test_ctrl_z_stops_and_comes_back(run: Run) -> None:
    """The shell finds the terminal as it was; afterwards keys and the live region are back."""
    process = run.start("shell")
    os.write(run.pair.master, b"\x1a")
    run.pair.read_until("stopped, echo True")
    run.pair.read_until("working")
    os.write(run.pair.master, b"y")
    run.pair.read_until("key text y")
    assert run.pair.emulator.rows()[:3] == ["ready", "stopped, echo True", "key text y"]
    os.write(run.pair.master, b"\x1b")
    assert process.wait() == 0
    assert run.before == run.pair.mode
