"""The near end of one command under way: its streams, its time limit, and how it ended.

Everything happens in callbacks of the event loop, so that a command ends properly although
nobody waits for it. What comes from inside is not trusted: a descriptor that is no terminal is
refused, and output is kept in bounded memory.
"""

import asyncio
import fcntl
import os
import socket
import stat
import struct
import termios
import tty
from collections.abc import Callable, Mapping
from typing import Any

from tightloop.sandbox.exec_server import receive
from tightloop.sandbox.interface import Command, CommandResult, SandboxError, Terminal
from tightloop.sandbox.output import HeadAndTail
from tightloop.sandbox.redaction import Redactor
from tightloop.trace.clock import now_ns

KILL_LIMIT_S = 10.0
_READ_BYTES = 1 << 16
_LEFT_IN_PIPE = 64  # reads after the end: more than a pipe can hold means a writer escaped
_MAX_REPORT_BYTES = 4 << 20
_ECHO_S = 0.05  # what a terminal shows does not wait longer than this
_END_OF_FILE = b"\x04"  # what ^D sends, in a terminal that nobody has set up differently
_PTMX = os.makedev(5, 2)


class CommandRun:
    """A ``RunningCommand`` of a persistent sandbox.

    ``post`` sends a message about this command inside. ``give_up`` is called when the inside
    does not end the command within ``KILL_LIMIT_S`` of being told to. What ``redactor`` knows is
    in no output.
    """

    def __init__(
        self,
        number: int,
        command: Command,
        max_output_bytes: int,
        on_output: Callable[[bytes], None] | None,
        post: Callable[[dict[str, Any]], None],
        give_up: Callable[[], None],
        redactor: Redactor | None = None,
    ) -> None:
        self.number = number
        self._loop = asyncio.get_running_loop()
        self._command = command
        self._kept = HeadAndTail(max_output_bytes)
        self._on_output = on_output
        self._redactor = redactor or Redactor()
        self._stream = self._redactor.stream() if redactor else None
        self._echo: asyncio.TimerHandle | None = None
        self._post = post
        self._give_up = give_up
        self._output_fd = -1
        self._input_fd = -1  # that of the output for a terminal
        self._report_fd = -1
        self._report = bytearray()
        self._channel: socket.socket | None = None  # by which a terminal comes out
        self._unsent = bytearray()
        self._is_input_ending = False
        self._is_input_broken = False
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_timed_out = False
        self._started_ns = now_ns()
        self._outcome: CommandResult | SandboxError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # -- the start, in this order: open, the request goes inside, begin

    def open(self, passed: list[int], *, has_terminals: bool, has_report: bool) -> None:
        """Our ends of the streams are there; the ends for the inside are added to ``passed``.

        ``has_terminals`` tells that the inside makes its own; then a channel for one is passed.
        ``has_report`` asks for the pipe of a report instead of one for input.
        """
        if self._command.terminal is not None:
            self._open_terminal(passed, has_terminals)
            return
        if self._command.screen is not None:
            self._output_fd, writing = open_screen(self._command.screen)
        else:
            self._output_fd, writing = os.pipe2(os.O_CLOEXEC)
        passed.append(writing)
        os.set_blocking(self._output_fd, False)
        if self._command.is_stdin_open:
            reading, self._input_fd = os.pipe2(os.O_CLOEXEC)
            passed.append(reading)
            os.set_blocking(self._input_fd, False)
        elif has_report:
            self._report_fd, reporting = os.pipe2(os.O_CLOEXEC)
            passed.append(reporting)
            os.set_blocking(self._report_fd, False)
        elif self._command.stdin:
            passed.append(sealed_file(self._command.stdin))

    def _open_terminal(self, passed: list[int], has_terminals: bool) -> None:
        if has_terminals:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._channel.setblocking(False)
            passed.append(theirs.detach())
            return
        master, slave = os.openpty()
        passed.append(slave)
        self._use_terminal(master)
        assert self._command.terminal is not None
        self.resize(self._command.terminal)

    async def begin(self) -> None:
        """The request has been sent: listen, and let the time limit run.

        Raises TimeoutError when the inside makes no terminal.
        """
        if self._command.timeout_s != float("inf"):
            self._timer = self._loop.call_later(self._command.timeout_s, self._on_timeout)
        if self._channel is not None:
            self._arrival = self._loop.create_future()
            self._loop.add_reader(self._channel.fileno(), self._take_terminal)
            async with asyncio.timeout(KILL_LIMIT_S):
                await self._arrival
        if self._outcome is not None or self._output_fd < 0:
            return
        self._loop.add_reader(self._output_fd, self._on_readable)
        if self._report_fd >= 0:
            self._loop.add_reader(self._report_fd, self._on_report)
        if self._command.stdin and self._input_fd >= 0:
            self._unsent += self._command.stdin
            self._push()

    def _take_terminal(self) -> None:
        """The terminal that was made inside is ours; none comes when the program did not start."""
        if self._channel is None:
            return
        try:
            _, fds = receive(self._channel)
        except OSError:
            fds = []
        self._close_channel()
        for fd in fds[1:]:
            os.close(fd)
        if fds and is_terminal_master(fds[0]):
            self._use_terminal(fds[0])
        elif fds:
            os.close(fds[0])

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _use_terminal(self, master: int) -> None:
        os.set_blocking(master, False)
        self._output_fd = self._input_fd = master

    # -- the end

    def finish(self, end: Mapping[str, Any]) -> None:
        """The inside says that every process of the command is gone."""
        if self._outcome is not None:
            return
        ended_ns = now_ns()
        try:
            self._take_terminal()  # its end may be read before its beginning
            for _ in range(_LEFT_IN_PIPE):
                if not self._read_once():
                    break
            self._let_go()
            while self._report_fd >= 0 and self._on_report():
                pass
        finally:
            self._release()
            self._settle(end, ended_ns)

    def _settle(self, end: Mapping[str, Any], ended_ns: int) -> None:
        output = self._kept.text()
        try:
            code = int(end["code"])
            if end["op"] == "failed":
                output += self._redactor.text(f"{end['message']}\n")
        except (KeyError, TypeError, ValueError):
            self.fail(SandboxError(f"the exec server said no exit code: {end!r:.200}"))
            return
        self._conclude(
            CommandResult(
                exit_code=code,
                output=output,
                started_ns=self._started_ns,
                ended_ns=ended_ns,
                is_truncated=self._kept.is_truncated,
                timed_out=self._is_timed_out,
                how=str(end.get("how", "spawn")),
                report=self._redactor.data(bytes(self._report)),
            )
        )

    def fail(self, reason: SandboxError) -> None:
        """The sandbox is over: whoever waits gets the reason."""
        if self._outcome is None:
            self._release()
            self._conclude(reason)

    def discard(self) -> None:
        """It is killed, and nothing more is heard of it. Does nothing after its end."""
        if self._outcome is None:
            self._post({"op": "kill", "id": self.number})
        if self._outcome is None:  # posting may have found the sandbox dead
            self._release()
            self._conclude(SandboxError(f"command {self.number} was cancelled"))

    def _conclude(self, outcome: CommandResult | SandboxError) -> None:
        self._outcome = outcome
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _release(self) -> None:
        """No descriptor, reader or timer is left; writers are woken."""
        for timer in (self._timer, self._echo):
            if timer is not None:
                timer.cancel()
        for fd in {self._output_fd, self._input_fd, self._report_fd} - {-1}:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            os.close(fd)
        self._output_fd = self._input_fd = self._report_fd = -1
        self._close_channel()
        self._is_input_broken |= bool(self._unsent)
        self._unsent.clear()
        self._wake_writers()

    def _on_timeout(self) -> None:
        self._is_timed_out = True
        self.kill()

    # -- output

    def pause_reading(self) -> None:
        """Whoever wants the output has no room: the command waits once its pipe is full."""
        if self._outcome is None and self._output_fd >= 0:
            self._loop.remove_reader(self._output_fd)

    def resume_reading(self) -> None:
        """There is room again. Does nothing after the end."""
        if self._outcome is None and self._output_fd >= 0:
            self._loop.add_reader(self._output_fd, self._on_readable)

    def _on_readable(self) -> None:
        if not self._read_once():
            # Closed by the command while it still runs: its end comes over the connection.
            self._loop.remove_reader(self._output_fd)

    def _read_once(self) -> bool:
        """Take what is there; False at the end of the file or when nothing is there."""
        if self._output_fd < 0:
            return False
        try:
            data = os.read(self._output_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nothing has the terminal open any more
            return False
        if data:
            self._hear(data)
        return bool(data)

    def _hear(self, data: bytes) -> None:
        """More output; of what may be the beginning of a secret, the end is waited for."""
        if self._stream is None:
            self._keep(data)
            return
        self._keep(self._stream.feed(data))
        if self._command.terminal is not None or self._command.screen is not None:
            if self._echo is not None:
                self._echo.cancel()
            self._echo = self._loop.call_later(_ECHO_S, self._let_go)

    def _let_go(self) -> None:
        """What was waited for does not come."""
        if self._stream is not None:
            self._keep(self._stream.end())

    def _keep(self, data: bytes) -> None:
        if data:
            self._kept.add(data)
            if self._on_output is not None:
                self._on_output(data)

    def _on_report(self) -> bool:
        """Take a piece of the report; False when none is there, or enough is."""
        try:
            data = os.read(self._report_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        self._report += data
        if not data or len(self._report) > _MAX_REPORT_BYTES:
            self._loop.remove_reader(self._report_fd)
            os.close(self._report_fd)
            self._report_fd = -1
        return bool(data)

    # -- input

    def _push(self) -> None:
        """Write what goes in; the rest when there is room."""
        fd = self._input_fd
        try:
            while self._unsent:
                del self._unsent[: os.write(fd, self._unsent[:_READ_BYTES])]
        except BlockingIOError:
            self._loop.add_writer(fd, self._push)
            return
        except OSError:  # EPIPE, or EIO for a terminal: nobody will read it
            self._unsent.clear()
            self._is_input_ending = self._is_input_broken = True
        self._loop.remove_writer(fd)
        if self._is_input_ending and fd != self._output_fd:
            os.close(fd)
            self._input_fd = -1
        self._wake_writers()

    def _wake_writers(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def write(self, data: bytes) -> None:
        """See ``RunningCommand.write``. Cancelled while it waits, the data still goes in."""
        self._check_input()
        if self._input_fd < 0 or self._is_input_ending:
            raise BrokenPipeError(f"command {self.number} has ended or reads no more input")
        self._unsent += data
        self._push()
        while self._unsent:
            if self._room is None:
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)
        if self._is_input_broken:
            raise BrokenPipeError(f"command {self.number} ended before it read its input")

    def close_stdin(self) -> None:
        """See ``RunningCommand.close_stdin``."""
        self._check_input()
        if self._input_fd < 0 or self._is_input_ending:
            return
        if self._input_fd == self._output_fd:
            self._unsent += _END_OF_FILE
        else:
            self._is_input_ending = True
        self._push()

    def _check_input(self) -> None:
        if not self._command.is_stdin_open and self._command.terminal is None:
            raise ValueError(
                f"command {self.number} was started without input: set is_stdin_open or terminal"
            )

    def resize(self, size: Terminal) -> None:
        """See ``RunningCommand.resize``."""
        if self._command.terminal is None:
            raise ValueError(f"command {self.number} has no terminal that could be resized")
        if self._output_fd >= 0:
            packed = struct.pack("HHHH", size.rows, size.columns, 0, 0)
            fcntl.ioctl(self._output_fd, termios.TIOCSWINSZ, packed)

    # -- what whoever started it may ask

    @property
    def has_ended(self) -> bool:
        """See ``RunningCommand.has_ended``."""
        return self._outcome is not None

    def output_so_far(self) -> str:
        """See ``RunningCommand.output_so_far``."""
        return self._kept.text()

    def send_signal(self, number: int) -> None:
        """See ``RunningCommand.send_signal``."""
        if self._outcome is None:
            self._post({"op": "signal", "id": self.number, "number": int(number)})

    def kill(self) -> None:
        """See ``RunningCommand.kill``."""
        if self._outcome is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(KILL_LIMIT_S, self._give_up)
        self._post({"op": "kill", "id": self.number})

    async def wait(self) -> CommandResult:
        """See ``RunningCommand.wait``."""
        if self._outcome is None:
            waiter = self._loop.create_future()  # a shield would cost one more turn of the loop
            self._waiters.append(waiter)
            await waiter
        if isinstance(self._outcome, CommandResult):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome


def sealed_file(data: bytes) -> int:
    """A descriptor of a file in memory that holds ``data`` and cannot be changed by anyone."""
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_screen(size: Terminal) -> tuple[int, int]:
    """Both ends of a terminal that shows output as it is, the near one first."""
    near, far = os.openpty()
    tty.setraw(far)
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
    return near, far


def is_terminal_master(fd: int) -> bool:
    """Whether the descriptor is the near end of a pseudo-terminal and nothing else."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _PTMX
