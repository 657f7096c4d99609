"""The far end of one command line's connection: what it hears, and what it says to us."""

import asyncio
import json
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tightloop.cli.testing.asked import MAX_REQUEST_BYTES
from tightloop.sandbox.command_run import CommandRun

_PIECE_BYTES = 1 << 16
_MAX_WAITING_BYTES = 1 << 20
_REQUEST_LIMIT_S = 30.0


class Watched(Protocol):
    """Something under way that a person may interrupt: see ``RunningCommand``."""

    def send_signal(self, number: int) -> None: ...

    def kill(self) -> None: ...


class Channel:
    """Messages to one near end, in order; a slow one holds the command back, not our memory."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._waiting: deque[bytes] = deque()
        self._num_waiting_bytes = 0
        self._is_paused = False
        self._drained = asyncio.Event()
        self._drained.set()
        self._run: Watched | None = None
        self.num_interrupts = 0
        self.is_gone = False
        """Nobody is there any more: a closed terminal, a killed command."""

    @property
    def is_given_up(self) -> bool:
        """Whether the person no longer wants the run."""
        return self.is_gone or self.num_interrupts > 0

    def peer_is_ours(self) -> bool:
        """The same user, outside of every sandbox: those have a user namespace of their own."""
        packed = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, user, _ = struct.unpack("iII", packed)
        if user != os.getuid():
            return False
        try:
            return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
        except OSError:
            return False

    async def request(self) -> bytes:
        """The first message; empty when there is none, or it takes too long."""
        try:
            async with asyncio.timeout(_REQUEST_LIMIT_S):
                return await self._loop.sock_recv(self._connection, MAX_REQUEST_BYTES + 1)
        except OSError:  # TimeoutError is one
            return b""

    async def listen(self) -> None:
        """Hear interrupts until the other side goes; cancel it when the run is over."""
        while True:
            try:
                heard = await self._loop.sock_recv(self._connection, 16)
            except OSError:
                heard = b""
            if not heard:
                self.is_gone = True
                self._waiting.clear()
                self._drained.set()
                if self._run is not None:
                    self._run.kill()
                return
            self.num_interrupts += 1
            if self._run is not None:
                self._interrupt(self._run)

    def _interrupt(self, run: Watched) -> None:
        if self.num_interrupts == 1:
            run.send_signal(signal.SIGINT)
        else:
            run.kill()

    def watch(self, run: Watched | None) -> None:
        """Interrupts are for this run from now on. One that came before it counts too."""
        self._run = run
        if run is not None and self.is_gone:
            run.kill()
        elif run is not None and self.num_interrupts:
            self._interrupt(run)

    # -- what it hears

    def output(self, data: bytes) -> None:
        """For standard output."""
        self._say(b"o", data)

    def error(self, data: bytes) -> None:
        """For standard error."""
        self._say(b"e", data)

    def note(self, text: str) -> None:
        """A line for a person."""
        self.error(f"tightloop: {text}\n".encode(errors="replace"))

    def line(self, value: dict[str, Any]) -> None:
        """An object for a program, on standard output."""
        self.output(json.dumps(value).encode() + b"\n")

    def acknowledge(self) -> None:
        """The request has come, and is dealt with here."""
        self._post(b"a")

    def refuse(self, reason: str) -> None:
        """The request is for another process, to be started now."""
        self._post(b"r" + reason.encode(errors="replace"))

    async def end(self, code: int, text: str = "") -> None:
        """The last message, after all others have been taken."""
        last = f"tightloop: {text}\n" if text else ""
        self._post(b"x" + f"{code}\0{last}".encode(errors="replace"))
        await self._drained.wait()

    def _say(self, kind: bytes, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            self._post(kind + data[start : start + _PIECE_BYTES])

    def _post(self, message: bytes) -> None:
        if self.is_gone:
            return
        if not self._waiting:
            try:
                self._connection.send(message)
                return
            except BlockingIOError:
                self._loop.add_writer(self._connection.fileno(), self._on_room)
                self._drained.clear()
            except OSError:
                return  # ``listen`` sees the end, too
        self._waiting.append(message)
        self._num_waiting_bytes += len(message)
        if self._num_waiting_bytes > _MAX_WAITING_BYTES:
            self._pause()

    def _on_room(self) -> None:
        try:
            while self._waiting:
                self._connection.send(self._waiting[0])
                self._num_waiting_bytes -= len(self._waiting.popleft())
        except BlockingIOError:
            return
        except OSError:
            self._waiting.clear()
        self._num_waiting_bytes = 0
        self._loop.remove_writer(self._connection.fileno())
        self._drained.set()
        if self._is_paused and isinstance(self._run, CommandRun):
            self._run.resume_reading()
        self._is_paused = False

    def _pause(self) -> None:
        if not self._is_paused and isinstance(self._run, CommandRun):
            self._run.pause_reading()
            self._is_paused = True

    def close(self) -> None:
        """The connection is over."""
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()


class OutputTo:
    """An ``on_output`` that hands pieces on, to standard error when standard output is for programs."""

    def __init__(self, channel: Channel, *, is_for_programs: bool) -> None:
        self._take: Callable[[bytes], None] = channel.error if is_for_programs else channel.output

    def __call__(self, data: bytes) -> None:
        self._take(data)
