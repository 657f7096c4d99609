"""One MCP server: started or reached, asked, and begun anew with the next call when it has ended.

A connection lives in a task of its own, because the library's scopes must be left by the task that
entered them; calls come from any task. The library is imported when the first server is begun.
"""

import asyncio
import importlib
import logging
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightloop.agent.tools.mcp import leash
from tightloop.agent.tools.mcp.configuration import (
    McpConfigError,
    McpTable,
    headers_of,
    variables_of,
)
from tightloop.agent.tools.mcp.content import Answer

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams
    from mcp.client.client import Client

MAX_PAGES = 20
CLOSE_S = 6.0
"""The library itself waits 2 s for a server to end, 2 s more after SIGTERM, then kills it."""
_MAX_REASON_CHARS = 300


class McpError(Exception):
    """A server cannot be used, or a call failed; the text is for the model and for the user."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool as its server lists it. ``is_reading`` is the server's own word."""

    name: str
    description: str
    schema: dict[str, Any]
    is_reading: bool = False


class McpServer:
    """A server by its table. ``directory`` is where it is started; ``log`` gets what it writes to
    standard error. ``close`` ends it and everything that it started."""

    def __init__(self, name: str, table: McpTable, directory: Path, log: Path) -> None:
        self.name = name
        self.table = table
        self.num_starts = 0
        self._directory = directory
        self._log = log
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False

    async def lost(self) -> None:
        """Returns once there is no connection that could be used."""
        if self._connection is not None:
            await self._connection.over.wait()

    async def list_tools(self) -> list[Listed]:
        """All tools, those alone that the table allows, by name. Raises McpError."""
        connection = await self._connected()
        listed: list[Listed] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(self.table.start_timeout_s):
                for _ in range(MAX_PAGES):
                    page = await connection.client.list_tools(cursor=cursor)
                    listed += [_listed(tool) for tool in page.tools]
                    cursor = page.next_cursor
                    if not cursor:
                        break
        except TimeoutError as error:
            seconds = self.table.start_timeout_s
            raise McpError(f"it did not list its tools within {seconds:g} s") from error
        except Exception as error:
            raise McpError(self._why(error)) from error
        return sorted(self._allowed(listed), key=lambda tool: tool.name)

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Answer:
        """One call. Cancelling tells the server to stop. Raises McpError; a server that has ended
        is begun anew by the next call, never by this one: it may have had an effect already."""
        connection = await self._connected()
        from mcp.shared.exceptions import MCPError

        try:
            result = await connection.client.call_tool(
                tool, dict(arguments), read_timeout_seconds=self.table.call_timeout_s
            )
        except MCPError as error:
            raise self._failure(error, error.code, connection) from error
        except Exception as error:
            self._give_up(connection)
            raise McpError(f"the server {self.name} broke off: {self._why(error)}") from error
        blocks = [
            block.model_dump(by_alias=True, mode="json", exclude_none=True)
            for block in result.content
        ]
        return Answer(blocks, result.structured_content, bool(result.is_error))

    async def close(self) -> None:
        """End it. Calls that still run fail."""
        self._is_closed = True
        async with self._opening:
            if self._connection is not None:
                await self._connection.close()

    async def _connected(self) -> "_Connection":
        async with self._opening:
            if self._is_closed:
                raise McpError(f"the server {self.name} is closed")
            if self._connection is not None and not self._connection.is_over:
                return self._connection
            if self._connection is not None:
                await self._connection.close()
            self._connection = connection = self._begin()
            try:
                await connection.opened(self.table.start_timeout_s)
            except TimeoutError as error:
                await connection.close()
                seconds = self.table.start_timeout_s
                raise McpError(f"it did not answer within {seconds:g} s") from error
            except Exception as error:
                await connection.close()
                raise McpError(self._why(error)) from error
            return connection

    def _begin(self) -> "_Connection":
        self.num_starts += 1
        connection = _Connection()
        streams = self._http() if self.table.url is not None else self._stdio(connection)
        connection.begin(streams, self.name, self.table.protocol)
        return connection

    @asynccontextmanager
    async def _stdio(self, connection: "_Connection") -> AsyncGenerator["TransportStreams", None]:
        from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client

        variables = {**get_default_environment(), **variables_of(self.table)}
        command = self._program(variables)
        started = StdioServerParameters(
            command=sys.executable,
            args=["-I", "-S", leash.__file__, str(os.getpid()), command, *self.table.args],
            env=variables,
            cwd=self._directory,
        )
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w", encoding="utf-8") as log:
            connection.has_log = True
            async with stdio_client(started, errlog=log) as (read, write):
                yield _Watched(read, connection), write

    @asynccontextmanager
    async def _http(self) -> AsyncGenerator["TransportStreams", None]:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        headers = headers_of(self.table)
        timeout = httpx2.Timeout(self.table.start_timeout_s, read=None)  # calls have their own
        async with (
            httpx2.AsyncClient(headers=headers, timeout=timeout) as client,
            streamable_http_client(self.table.url or "", http_client=client) as streams,
        ):
            yield streams

    def _program(self, variables: Mapping[str, str]) -> str:
        command = os.path.expanduser(self.table.command or "")
        if "/" in command:
            command = os.path.join(self._directory, command)
        found = shutil.which(command, path=variables.get("PATH"))
        if found is None:
            raise McpConfigError(f"there is no program {command!r}")
        return found

    def _allowed(self, listed: list[Listed]) -> list[Listed]:
        wanted = self.table.tools
        if wanted is None:
            return listed
        if missing := sorted(set(wanted) - {tool.name for tool in listed}):
            names = ", ".join(tool.name for tool in listed) or "none"
            raise McpError(f"it has no tool {missing[0]!r}, which tools names; it has {names}")
        return [tool for tool in listed if tool.name in wanted]

    def _failure(self, error: Exception, code: int, connection: "_Connection") -> McpError:
        if code == _TIMED_OUT:
            seconds = self.table.call_timeout_s
            return McpError(f"no answer within {seconds:g} s; the server was told to stop")
        if connection.is_over or (self.table.url is not None and code in _LOST):
            self._give_up(connection)
            return McpError(
                f"the server {self.name} ended during the call, which may have had effects; the next "
                f"call begins it anew: {self._why(error)}"
            )
        return McpError(self._why(error))

    def _give_up(self, connection: "_Connection") -> None:
        connection.over.set()
        connection.stop()

    def _why(self, error: BaseException) -> str:
        """The reason in one line, with the last line that a started server wrote."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        reason = " ".join(str(error).split()) or type(error).__name__
        connection = self._connection
        has_ended = connection is not None and connection.is_over and connection.has_log
        if has_ended and (last := self._last_line()):
            reason = f"{reason}; its last words: {last}"
        return reason[:_MAX_REASON_CHARS]

    def _last_line(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(log.tell() - 2000, 0))
                lines = log.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


_TIMED_OUT = -32001
_LOST = frozenset({-32000, -32600, -32603})
"""Connection closed; session terminated; a status without a JSON-RPC error in its body."""


class _Connection:
    """An open connection, or one that was. ``over`` is set as soon as it is known."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.has_log = False
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it cannot be used any more."""
        return self.over.is_set()

    @property
    def client(self) -> "Client":
        """Once ``opened`` has returned."""
        return self._ready.result()

    def begin(self, streams: Any, name: str, mode: str) -> None:
        """Open it in a task."""
        self._task = asyncio.create_task(self._hold(streams, mode), name=f"mcp {name}")

    async def opened(self, timeout_s: float) -> None:
        """Wait for it. Raises what went wrong, TimeoutError included."""
        await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)

    def stop(self) -> None:
        """Ask for its end."""
        self._stop.set()

    async def close(self) -> None:
        """End it and wait for that, but not for ever. May be called twice."""
        self.stop()
        if self._task is None:
            return
        if not self._ready.done():
            self._task.cancel()
        _, running = await asyncio.wait([self._task], timeout=CLOSE_S)
        for task in running:
            task.cancel()

    async def _hold(self, streams: Any, mode: str) -> None:
        try:
            # A second of work: in a thread, so that everything else goes on meanwhile.
            module = await asyncio.to_thread(importlib.import_module, "mcp.client.client")
            logging.getLogger("mcp").setLevel(logging.CRITICAL)  # failures are told by us
            async with module.Client(streams, mode=mode, cache=None, client_info=_info()) as client:
                self._ready.set_result(client)
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001 - whoever waits for it hears of it
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            self.over.set()
            if not self._ready.done():
                self._ready.cancel()
            elif not self._ready.cancelled():
                self._ready.exception()  # seen, also when nobody waits any more


class _Watched:
    """A stream of messages that tells its connection when it has ended."""

    def __init__(self, inner: Any, connection: _Connection) -> None:
        self._inner = inner
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __aiter__(self) -> "_Watched":
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._inner.__anext__()
        except StopAsyncIteration:
            self._connection.over.set()
            raise

    async def receive(self) -> Any:
        try:
            return await self._inner.receive()
        except Exception:
            self._connection.over.set()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> "_Watched":
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> Any:
        return await self._inner.__aexit__(*details)


def _info() -> Any:
    from mcp_types import Implementation

    import tightloop

    return Implementation(name="tightloop", version=tightloop.__version__)


def _listed(tool: Any) -> Listed:
    hints = tool.annotations
    return Listed(
        tool.name,
        tool.description or "",
        tool.input_schema,
        bool(hints is not None and hints.read_only_hint),
    )
