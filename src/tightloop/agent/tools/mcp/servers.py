"""All configured servers of a conversation: begun together in the background, ended together.

The list of tools is fixed when the conversation begins. A server whose list is known from the last
time is not waited for; of the others, those that have not answered within a bound are left out and
said so. All go on starting, so that the first call finds them ready and the next conversation has
their lists.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tightloop.agent.tools.mcp.catalogue import Catalogue
from tightloop.agent.tools.mcp.configuration import McpTable
from tightloop.agent.tools.mcp.server import Listed, McpError, McpServer
from tightloop.agent.tools.mcp.tool import McpTool

MAX_TOOLS = 100
"""Of all servers together. Source: the OpenAI API takes 128 tools in one request."""
NO_LIBRARY = (
    "MCP servers are configured, and the package mcp is not installed: pip install 'tightloop[mcp]'"
)
STARTING, READY, FAILED = "starting", "ready", "failed"


@dataclass(slots=True)
class ServerState:
    """What a person may know of a server. ``num_tools`` are those that the conversation has."""

    name: str
    state: str = STARTING
    num_tools: int = 0
    reason: str = ""


@dataclass(slots=True)
class _Entry:
    server: McpServer
    state: ServerState
    known: list[Listed] | None
    task: "asyncio.Task[list[Listed] | None] | None" = None


class McpServers:
    """``directory`` is where they are started, ``state_dir`` keeps their lists and what they write
    to standard error; ``note`` takes lines for a person."""

    def __init__(
        self,
        tables: Mapping[str, McpTable],
        directory: Path,
        state_dir: Path,
        note: Callable[[str], None],
    ) -> None:
        self._catalogue = Catalogue(state_dir / "mcp")
        self._note = note
        self._entries = [
            _Entry(
                McpServer(name, table, _start_directory(table, directory), state_dir / "mcp" / f"{name}.log"),
                ServerState(name),
                self._catalogue.load(name, table),
            )
            for name, table in sorted(tables.items())
        ]  # fmt: skip

    @property
    def states(self) -> list[ServerState]:
        """One for each server, by name."""
        return [entry.state for entry in self._entries]

    def begin(self) -> None:
        """Start those in the background whose list is not known. Without the library, says so and starts
        none."""
        if self._entries and find_spec("mcp") is None:
            self._note(NO_LIBRARY)
            for entry in self._entries:
                entry.known, entry.state.state, entry.state.reason = None, FAILED, NO_LIBRARY
            return
        self._start(entry for entry in self._entries if entry.known is None)

    async def tools(self, wait_s: float, *, sees: bool = False) -> list[McpTool]:
        """The conversation's tools, by server and name; waits ``wait_s`` seconds at most, and only
        for servers whose list is not known. The others are started now: before, they would take
        the processor from what the first turn waits for."""
        waited = [e.task for e in self._entries if e.known is None and e.task is not None]
        if waited:
            await asyncio.wait(waited, timeout=wait_s)
        tools: list[McpTool] = []
        for entry in self._entries:
            found = self._settle(entry, wait_s)
            fitting = found[: max(MAX_TOOLS - len(tools), 0)]
            if len(fitting) < len(found):
                self._note(
                    f"mcp {entry.state.name}: {len(found) - len(fitting)} of {len(found)} tools are "
                    f"left out: {MAX_TOOLS} is the limit; name the wanted ones in its key tools"
                )
            entry.state.num_tools = len(fitting)
            tools += [McpTool(entry.server, listed, sees=sees) for listed in fitting]
        self._start(e for e in self._entries if e.task is None and e.state.state == STARTING)
        return list({tool.name: tool for tool in tools}.values())

    async def settled(self) -> None:
        """Returns once each server has come up or failed."""
        if tasks := [entry.task for entry in self._entries if entry.task is not None]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """End all of them."""
        if not self._entries:
            return
        tasks = [entry.task for entry in self._entries if entry.task is not None]
        for task in tasks:
            task.cancel()
        async with asyncio.TaskGroup() as group:
            for entry in self._entries:
                group.create_task(entry.server.close())
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, entries: Iterable[_Entry]) -> None:
        for entry in entries:
            entry.task = asyncio.create_task(self._list(entry), name=f"mcp {entry.state.name}")

    def _settle(self, entry: _Entry, wait_s: float) -> list[Listed]:
        """What the conversation gets of a server."""
        if entry.known is not None:
            return entry.known
        task = entry.task
        if task is not None and task.done() and not task.cancelled():
            return task.result() or []
        if task is not None:
            self._note(
                f"mcp {entry.state.name}: no answer within {wait_s:g} s, so this conversation goes "
                "without its tools; the next one has them if it comes up"
            )
        return []

    async def _list(self, entry: _Entry) -> list[Listed] | None:
        """Start a server and have it list its tools; None when it cannot."""
        name, server = entry.state.name, entry.server
        try:
            listed = await server.list_tools()
        except McpError as error:
            entry.state.state, entry.state.reason = FAILED, str(error)
            self._note(f"mcp {name}: {error}")
            return None
        entry.state.state = READY
        if entry.known is not None and sorted(entry.known, key=_by_name) == listed:
            return entry.known
        try:
            self._catalogue.save(name, server.table, listed)
        except OSError as error:
            self._note(f"mcp {name}: its list cannot be kept: {error.strerror}")
        if entry.known is not None:
            self._note(
                f"mcp {name}: its tools have changed; the next conversation has the new ones"
            )
        return listed


def _by_name(listed: Listed) -> str:
    return listed.name


def _start_directory(table: McpTable, directory: Path) -> Path:
    return directory if table.directory is None else Path(table.directory).expanduser()
