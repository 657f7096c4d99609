"""``codex app-server``: JSON-RPC over standard input and output, one object per line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tests.e2e.codex import Codex, program
from tests.e2e.stock_clients import LIMIT_S, started

Message = dict[str, Any]


class AppServer:
    """A running one with a thread open. ``notifications`` are all so far, in order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.notifications: list[Message] = []
        self.thread_id = ""
        self._process = process
        self._num_requests = 0

    async def ask(self, method: str, **params: Any) -> Message:
        """Send a request; its result. Notifications that come before it are kept."""
        self._num_requests += 1
        number = self._num_requests
        await self._send({"id": number, "method": method, "params": params})
        while True:
            message = await self._read()
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message
                result: Message = message["result"]
                return result

    async def until(self, method: str, **wanted: Any) -> Message:
        """The first notification of one method, kept or still to come; its params."""
        seen = 0
        while True:
            for message in self.notifications[seen:]:
                if message["method"] == method and wanted.items() <= message["params"].items():
                    params: Message = message["params"]
                    return params
            seen = len(self.notifications)
            await self._read()

    async def turn(self, text: str) -> str:
        """Start a turn; its id."""
        started = await self.ask("turn/start", threadId=self.thread_id, input=words(text))
        turn_id: str = started["turn"]["id"]
        return turn_id

    async def open(self, cwd: str) -> None:
        """Introduce ourselves and open a thread."""
        await self.ask("initialize", clientInfo={"name": "test", "version": "1"})
        await self._send({"method": "initialized"})
        opened = await self.ask(
            "thread/start", cwd=cwd, approvalPolicy="never", sandbox="danger-full-access"
        )
        self.thread_id = opened["thread"]["id"]

    async def _send(self, message: Message) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(message) + b"\n")
        await self._process.stdin.drain()

    async def _read(self) -> Message:
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            line = await self._process.stdout.readline()
        assert line, "the app server ended"
        message: Message = orjson.loads(line)
        if "method" in message:
            self.notifications.append(message)
        return message


@asynccontextmanager
async def app_server(codex: Codex) -> AsyncIterator[AppServer]:
    """A thread in the project, driven as an editor would do it."""
    env = await codex.configure()
    async with started([program(), "app-server"], codex.home, env, talk=True) as process:
        server = AppServer(process)
        await server.open(str(codex.home.project))
        yield server


def words(text: str) -> list[Message]:
    """What a user said."""
    return [{"type": "text", "text": text}]
