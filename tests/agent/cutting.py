"""A way to a server that is lost at a chosen place, and the agent on it with tools that count."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.events import CommandExecution, Event, ItemCompleted
from tightloop.agent.loop import Agent
from tightloop.agent.resilience import Patience
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import Tool, ToolContext
from tightloop.agent.turn import Limits
from tightloop.client.http import HttpTransport
from tightloop.client.session import Session
from tightloop.client.transport import Transport
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.scripted import Script, ScriptedEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
)
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.streams import Streams

MARK = b'"sequence_number":'
"""Once in each event, near its beginning."""


class Cutter:
    """Passes bytes on between a client and ``port``; ``async with`` it, then use ``port`` of its own.

    ``is_place`` is asked about how many marks a connection has brought from the server so far and all of
    them before it, each time one is about to be passed on; where it says True the connection is
    dropped ``more`` bytes after the mark, both ways and without a word. ``num_bytes`` cuts the first
    connection after so many bytes of the server instead. A dropped connection may lose what was written
    before, unless ``is_soft``.
    """

    def __init__(
        self,
        port: int,
        is_place: Callable[[int, int], bool] = lambda _here, _before: False,
        *,
        more: int = 0,
        num_bytes: int | None = None,
        is_soft: bool = False,
    ) -> None:
        self.upstream_port = port
        self._is_soft = is_soft
        self.num_marks = 0
        self.num_cuts = 0
        self.num_passed = 0
        self.on_cut: Callable[[], None] = lambda: None
        self.connected_again = asyncio.Event()
        self._num_connections = 0
        self._is_place = is_place
        self._more = more
        self._num_bytes = num_bytes
        self._server: asyncio.Server | None = None
        self._handling: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Cutter":
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_details: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._handling):
            task.cancel()
        if self._handling:
            await asyncio.wait(self._handling)

    @property
    def url(self) -> str:
        """Where clients go."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handling.add(task)
        self._num_connections += 1
        if self._num_connections > 1:
            self.connected_again.set()
        upstream = None
        try:
            down, upstream = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            async with asyncio.TaskGroup() as group:
                up = group.create_task(_copy(reader, upstream))
                await self._pass_on(down, writer)
                up.cancel()
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            if self._is_soft:
                writer.close()
            else:
                writer.transport.abort()
            if upstream is not None:
                upstream.transport.abort()
            self._handling.discard(task)

    async def _pass_on(self, down: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before, here, tail = self.num_marks, 0, b""
        cut_in: int | None = None
        while chunk := await down.read(1 << 16):
            if self._num_bytes is not None and not self.num_cuts:
                room = self._num_bytes - self.num_passed
                if len(chunk) >= room:
                    return self._cut(writer, chunk[:room])
            position = 0
            text = tail + chunk
            while cut_in is None and (found := text.find(MARK, position)) >= 0:
                position = found + len(MARK)
                here += 1
                self.num_marks += 1
                if self._is_place(here, before):
                    cut_in = max(0, found - len(tail) + self._more)
            if cut_in is not None:
                if cut_in <= len(chunk):
                    return self._cut(writer, chunk[:cut_in])
                cut_in -= len(chunk)
            tail = text[max(position, len(text) - len(MARK) + 1) :]
            self.num_passed += len(chunk)
            writer.write(chunk)
            await writer.drain()
        return None

    def _cut(self, writer: asyncio.StreamWriter, rest: bytes) -> None:
        writer.write(rest)
        self.num_cuts += 1
        self.on_cut()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


@dataclass
class Waits:
    """Pauses that take no time, and what they would have been. ``on_wait`` hears of each."""

    lengths_s: list[float] = field(default_factory=list)
    on_wait: Callable[[], None] = lambda: None
    max_tries: int = 8

    async def __call__(self, seconds: float) -> None:
        self.lengths_s.append(seconds)
        self.on_wait()
        await asyncio.sleep(0)

    def patience(self) -> Patience:
        """Without chance."""
        return Patience(max_tries=self.max_tries, chance=lambda: 0.5, sleep=self)


@dataclass
class Run:
    """An agent at the far end of a ``Cutter``."""

    agent: Agent
    session: Session
    engine: ScriptedEngine
    sandbox: Recorded
    waits: Waits
    workspace: Path
    num_changes: list[tuple[str, ...]] = field(default_factory=list)
    heard: list[Event] = field(default_factory=list)
    command_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, event: Event) -> None:
        self.heard.append(event)
        if isinstance(event, ItemCompleted) and isinstance(event.item, CommandExecution):
            self.command_ended.set()


def transport_to(kind: str, url: str) -> Transport:
    """``websocket`` or ``http``."""
    return WebSocketTransport(url) if kind == "websocket" else HttpTransport(url)


@asynccontextmanager
async def serving(
    script: Script, mode: str = "kept"
) -> AsyncIterator[tuple[Server, ScriptedEngine]]:
    """A server whose responses outlive their connection (``kept``), are ended with it but can be read
    (``ended``), or are gone (``gone``)."""
    engine = ScriptedEngine(script)
    endpoint = Endpoint(engine, resume_grace_s=10.0 if mode == "kept" else 0.0)
    if mode == "gone":
        endpoint.backstage.streams = Streams(max_ended=0)
    server = Server(endpoint, Access(KeyRing([]), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    try:
        yield server, engine
    finally:
        await server.stop(grace_s=0)


def port_of(server: Server) -> int:
    """Where it listens."""
    return int(server.url.removesuffix("/v1").rpartition(":")[2])


@asynccontextmanager
async def acting(
    url: str,
    kind: str,
    workspace: Path,
    engine: ScriptedEngine,
    *,
    limits: Limits | None = None,
    waits: Waits | None = None,
) -> AsyncIterator[Run]:
    """An agent with a patch tool and a command tool that only remembers."""
    waits = waits or Waits()
    sandbox = Recorded()
    tools: list[Tool] = [ExecCommand(), ApplyPatch()]
    session = Session(
        transport_to(kind, url), model="scripted", tools=[tool.definition() for tool in tools]
    )
    runs: list[Run] = []
    changes: list[tuple[str, ...]] = []
    agent = Agent(
        session,
        tools,
        ToolContext(workspace, sandbox, on_changed=changes.append),
        limits=replace(limits or Limits(), patience=waits.patience()),
        listener=lambda event: runs[0].listen(event),
    )
    runs.append(Run(agent, session, engine, sandbox, waits, workspace, changes))
    try:
        yield runs[0]
    finally:
        await session.close()


def is_whole(items: list[Item]) -> bool:
    """Whether every call has one output behind it, and every output a call before it."""
    waiting: list[str] = []
    for item in items:
        if isinstance(item, FunctionCall | CustomToolCall):
            waiting.append(item.call_id)
        elif isinstance(item, FunctionCallOutput | CustomToolCallOutput):
            if item.call_id not in waiting:
                return False
            waiting.remove(item.call_id)
    return not waiting
