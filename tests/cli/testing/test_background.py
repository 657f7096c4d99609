"""The background process itself: who it serves, and when it ends."""

import asyncio
import os
import socket
from pathlib import Path

from tests.cli.testing.projects import Project
from tightloop.cli.testing.asked import Asked, ask
from tightloop.cli.testing.background import Background


async def exchange(state: Path, asked: Asked, data: bytes | None = None) -> list[bytes]:
    """All that is said to one connection."""
    loop = asyncio.get_running_loop()
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.setblocking(False)
        place = os.open(state, os.O_PATH | os.O_DIRECTORY)
        try:
            await loop.sock_connect(connection, f"/proc/self/fd/{place}/{asked.name}.sock")
        finally:
            os.close(place)
        await loop.sock_sendall(connection, asked.encode() if data is None else data)
        while message := await loop.sock_recv(connection, 1 << 17):
            heard.append(message)
            if message[:1] == b"x":
                break
    return heard


class Alive:
    """A background process in this one, with short minutes."""

    def __init__(self, project: Project, minute_s: float, policy: str = "") -> None:
        self.state = project.state / "test"
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.asked = ask("test", ["-q"], project.environment, str(project.root))
        self.asked.rows = self.asked.columns = ""
        self.asked.policy = policy
        background = Background(self.state, self.asked, minute_s=minute_s, quiet_s=0.0)
        self._reading, writing = os.pipe()
        self.task = asyncio.create_task(background.serve(writing))

    async def said(self) -> bytes:
        """That it listens, or why not."""
        try:
            return await asyncio.to_thread(os.read, self._reading, 4096)
        finally:
            os.close(self._reading)

    async def stop(self) -> None:
        """As ``--stop``."""
        self.asked.action = "stop"
        assert await exchange(self.state, self.asked) == [b"a", b"x0\0"]
        await self.task


async def test_it_ends_by_itself_when_nobody_wants_anything(project: Project) -> None:
    """After the idle time, and not while a check is under way; its socket is gone then."""
    alive = Alive(project, minute_s=0.001)
    assert await alive.said() == b"ready"
    await alive.task
    assert [path.suffix for path in alive.state.iterdir() if path.suffix == ".sock"] == []


async def test_only_requests_that_fit_are_served(project: Project) -> None:
    """Garbage hears nothing, another project is sent away, and neither ends it."""
    alive = Alive(project, minute_s=60.0)
    assert await alive.said() == b"ready"
    assert await exchange(alive.state, alive.asked, b"garbage") == []
    other = alive.asked.encode().replace(b"\0workspace", b"\0x").replace(b"PATH=", b"PATH=/x:")
    assert await exchange(alive.state, alive.asked, other) == [
        b"rthis background process is for another project"
    ]
    heard = await exchange(alive.state, alive.asked)
    assert (heard[0], heard[-1][:3]) == (b"a", b"x0\0")
    await alive.stop()


async def test_another_version_takes_over(project: Project) -> None:
    """It stops listening at once, so that the next one can; the near end is told why."""
    alive = Alive(project, minute_s=60.0)
    assert await alive.said() == b"ready"
    newer = alive.asked.encode().replace(alive.asked.protocol.encode(), b"9 9.9", 1)
    assert await exchange(alive.state, alive.asked, newer) == [
        b"rstarting anew: another version of tightloop asks"
    ]
    await alive.task


async def test_a_version_with_other_words_takes_over(project: Project) -> None:
    """Its request cannot be read here, and never could be: nobody may be sent away for ever."""
    alive = Alive(project, minute_s=60.0)
    assert await alive.said() == b"ready"
    assert await exchange(alive.state, alive.asked, b"2 9.9\0other\0words") == [
        b"rstarting anew: another version of tightloop asks"
    ]
    await alive.task


async def test_what_stands_in_the_way_is_said_to_who_started_it(project: Project) -> None:
    """And nothing is left."""
    alive = Alive(project, minute_s=60.0, policy="nosuch")
    assert b"there is no policy 'nosuch'" in await alive.said()
    await alive.task
    assert [path.suffix for path in alive.state.iterdir() if path.suffix == ".sock"] == []
