"""The background process of one project: takes requests until nobody has wanted anything for a while.

``python -m tightloop.cli.testing.background STATE REQUEST READY`` is started by ``starting.py``; the last
two are descriptors: of the first request, and of the pipe in which to say that it listens.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from tightloop.cli.testing import asked as asking
from tightloop.cli.testing.asked import Asked, decode
from tightloop.cli.testing.channel import Channel
from tightloop.cli.testing.session import NO_VERDICT, End, Session, Settings, open_session
from tightloop.cli.testing.starting import tell_ready
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.policies import PolicyError
from tightloop.sandbox.warmed import QUIET_S
from tightloop.trace.clock import now_ns

IDLE_MIN: Final = 30


class Background:
    """One listening socket, one session."""

    def __init__(
        self, state: Path, first: Asked, *, minute_s: float = 60.0, quiet_s: float = QUIET_S
    ) -> None:
        self._first = first
        self._path = state / f"{first.name}.sock"
        self._idle_min = int(first.idle_min or IDLE_MIN)
        self._minute_s = minute_s
        self._quiet_s = quiet_s
        self._ending = asyncio.Event()
        self._listener: socket.socket | None = None
        self._num_attended = 0
        self._idle: asyncio.TimerHandle | None = None
        self._started_ns = now_ns()

    async def serve(self, ready: int) -> None:
        """Until it is stopped, idle or out of date; then runs under way come to their end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop_listening)
        try:
            async with asyncio.TaskGroup() as tasks:
                settings = Settings.of(self._first, self._path.parent.parent, self._quiet_s)
                async with open_session(settings, tasks) as session:
                    self._listen()
                    tell_ready(ready)
                    ready = -1
                    await self._accept(session, tasks)
        except* (SandboxError, PolicyError, OSError) as group:
            if ready >= 0:
                tell_ready(ready, str(_first_of(group)))
            else:
                raise
        finally:
            self._close()

    def _listen(self) -> None:
        """By way of the directory's descriptor: a path for a socket may have 107 bytes only."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        place = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{place}/{self._path.name}")
        finally:
            os.close(place)
        self._listener.listen(16)

    async def _accept(self, session: Session, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        attended: set[asyncio.Task[None]] = set()
        stopped = tasks.create_task(_wait(self._ending))
        self._rest(session)
        while not self._ending.is_set():
            assert self._listener is not None
            coming = tasks.create_task(loop.sock_accept(self._listener))
            await asyncio.wait((coming, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                await asyncio.wait((coming,))
                break
            connection, _ = coming.result()
            one = tasks.create_task(self._attend(connection, session, tasks))
            attended.add(one)
            one.add_done_callback(attended.discard)
        self._close()
        if attended:
            await asyncio.wait(attended)

    async def _attend(
        self, connection: socket.socket, session: Session, tasks: asyncio.TaskGroup
    ) -> None:
        channel = Channel(connection)
        self._num_attended += 1
        if self._idle is not None:
            self._idle.cancel()
        listening: asyncio.Task[None] | None = None
        try:
            asked = await self._taken_on(channel, session)
            if asked is None:
                return
            listening = tasks.create_task(channel.listen())
            end = await self._answer(asked, channel, session)
            if end is not None:
                await channel.end(end.code, end.line)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.wait([listening])
            channel.close()
            self._num_attended -= 1
            self._rest(session)

    async def _taken_on(self, channel: Channel, session: Session) -> Asked | None:
        """The request, if it is for us; otherwise it has been told why not."""
        data = await channel.request()
        if not data or not channel.peer_is_ours():
            return None
        try:
            asked = decode(data)
        except ValueError:
            version = data.partition(b"\0")[0]
            if len(version.split()) == 2 and version != asking.PROTOCOL.encode():
                self._stop_listening()  # its words are not ours: it would never be served here
                channel.refuse("starting anew: another version of tightloop asks")
            return None
        reason = session.why_stale()
        if asked.protocol != asking.PROTOCOL:
            reason = "another version of tightloop asks"
        if reason and asked.action == asking.RUN:
            self._stop_listening()
            channel.refuse(f"starting anew: {reason}")
            return None
        if asked.action == asking.RUN and asked.identity != self._first.identity:
            channel.refuse("this background process is for another project")
            return None
        channel.acknowledge()
        return asked

    async def _answer(self, asked: Asked, channel: Channel, session: Session) -> End | None:
        """None when another process has to answer, which the near end has been told."""
        if asked.idle_min:
            self._idle_min = int(asked.idle_min)
        if asked.action == asking.STOP:
            self._stop_listening()
            return End(0)
        if asked.action == asking.STATUS:
            channel.line(self._status(session))
            return End(0)
        try:
            if asked.verb == "warm":
                return await session.warm(asked, channel)
            return await session.test(asked, channel)
        except SandboxError as error:
            if session.sandbox.is_alive:
                return End(NO_VERDICT, f"no verdict: {error}")
            self._stop_listening()
            channel.refuse(str(error))
            return None

    def _status(self, session: Session) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "root": str(session.root),
            "python": self._first.python or "python of the PATH",
            "policy": session.policy_name,
            "isolation": session.sandbox.kind,
            "runs": session.num_runs,
            "is_busy": session.is_busy,
            "last_check": session.checks.last,
            "age_s": (now_ns() - self._started_ns) / 1e9,
            "idle_min": self._idle_min,
        }

    def _rest(self, session: Session) -> None:
        """Nobody wants anything: it ends after a while, if that stays so."""
        if self._num_attended or self._ending.is_set():
            return
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._idle_min * self._minute_s, self._end_if_idle, session)

    def _end_if_idle(self, session: Session) -> None:
        if session.is_busy:
            self._rest(session)
        else:
            self._stop_listening()

    def _stop_listening(self) -> None:
        """Who comes now starts another one. May be called twice."""
        if self._idle is not None:
            self._idle.cancel()
        if self._listener is not None and not self._ending.is_set():
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._ending.set()

    def _close(self) -> None:
        """Nobody accepts any more: who had connected already sees the end, and starts another."""
        self._stop_listening()
        if self._listener is not None:
            self._listener.close()
            self._listener = None


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first_of(error) if isinstance(error, BaseExceptionGroup) else error


def main() -> None:
    """Serve; see the top of this file."""
    state, request, ready = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.chdir("/")
    with os.fdopen(request, "rb") as file:
        first = decode(file.read())
    asyncio.run(_serve(state, first, ready))


async def _serve(state: Path, first: Asked, ready: int) -> None:
    await Background(state, first).serve(ready)


if __name__ == "__main__":
    main()
