"""A server's life: real processes of the official library, over streams and over HTTP."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tightloop.agent.tools.mcp.configuration import McpTable
from tightloop.agent.tools.mcp.server import McpError, McpServer

SHOP = str(Path(__file__).with_name("shop.py"))


def shop_table(**more: Any) -> McpTable:
    return McpTable(command=sys.executable, args=[SHOP], start_timeout_s=60, **more)


@asynccontextmanager
async def opened(table: McpTable, directory: Path) -> AsyncIterator[McpServer]:
    server = McpServer("shop", table, directory, directory / "log" / "shop.log")
    try:
        yield server
    finally:
        await server.close()


async def facts(server: McpServer) -> dict[str, Any]:
    found: dict[str, Any] = (await server.call("facts", {})).structured
    return found


async def is_gone(pidfd: int) -> None:
    """Returns once the process has ended."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    await ended.wait()
    loop.remove_reader(pidfd)
    os.close(pidfd)


def pipes(directory: Path) -> None:
    """What the tool ``wait`` says something in."""
    os.mkfifo(directory / "waiting")
    os.mkfifo(directory / "cancelled")


async def said(pipe: Path) -> None:
    """Returns once something was said in the pipe."""
    assert await asyncio.to_thread(pipe.read_text) == "yes"


@pytest.mark.slow
async def test_a_started_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists by name, answers, sits where it was started and knows no variable that it was not given;
    a cancelled call is cancelled in it; and it leaves no process behind, in whatever session."""
    monkeypatch.setenv("SHOP_SECRET", "s")
    async with opened(shop_table(env={"A": "1"}), tmp_path) as server:
        listed = await server.list_tools()
        assert [tool.name for tool in listed] == sorted(tool.name for tool in listed)
        add = next(tool for tool in listed if tool.name == "add")
        assert (add.description, add.is_reading) == ("Add two numbers.", True)
        assert set(add.schema["properties"]) == {"a", "b"}
        answer = await server.call("add", {"a": 2, "b": 3})
        assert (answer.blocks[0]["text"], answer.is_error) == ("5", False)
        assert (await server.call("fail", {"reason": "no bread"})).is_error
        found = await facts(server)
        assert found["directory"] == str(tmp_path)
        assert "A" in found["variables"]
        assert "SHOP_SECRET" not in found["variables"]

        pipes(tmp_path)
        call = asyncio.create_task(server.call("wait", {"directory": str(tmp_path)}))
        await said(tmp_path / "waiting")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await said(tmp_path / "cancelled")
        assert (await facts(server))["pid"] == found["pid"]

        left = (await server.call("leave_behind", {})).structured["result"]
        processes = [os.pidfd_open(pid) for pid in (found["pid"], *left)]
    for process in processes:
        await is_gone(process)


@pytest.mark.slow
async def test_a_server_that_dies_is_begun_anew_by_the_next_call(tmp_path: Path) -> None:
    """A call that it takes along is told so and not repeated; dead between two calls, it costs none."""
    async with opened(shop_table(), tmp_path) as server:
        with pytest.raises(McpError, match=r"ended during the call.*its last words: sold out"):
            await server.call("die", {"words": "sold out"})
        pid: int = (await facts(server))["pid"]
        os.kill(pid, 9)
        await server.lost()
        assert (await facts(server))["pid"] != pid
        assert server.num_starts == 3
    with pytest.raises(McpError, match="is closed"):
        await facts(server)


@pytest.mark.slow
async def test_an_answer_that_does_not_come(tmp_path: Path) -> None:
    table = shop_table(call_timeout_s=0.2, tools=["wait"])
    async with opened(table, tmp_path) as server:
        assert [tool.name for tool in await server.list_tools()] == ["wait"]
        pipes(tmp_path)
        call = asyncio.create_task(server.call("wait", {"directory": str(tmp_path)}))
        await said(tmp_path / "waiting")
        await said(tmp_path / "cancelled")
        with pytest.raises(McpError, match=r"no answer within 0\.2 s; the server was told to stop"):
            await call


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (McpTable(command="no-such-program"), "there is no program 'no-such-program'"),
        (McpTable(command="sh", args=["-c", "echo broken >&2; exit 4"]), "its last words: broken"),
        (McpTable(command="sleep", args=["9"], start_timeout_s=0.2), "not answer within 0.2 s"),
        (McpTable(command="true", env_from=["NO_SUCH_VARIABLE"]), "NO_SUCH_VARIABLE is not set"),
        (McpTable(url="http://127.0.0.1:9/mcp"), "connection"),
    ],
)
async def test_servers_that_cannot_be_used(table: McpTable, said: str, tmp_path: Path) -> None:
    async with opened(table, tmp_path) as server:
        with pytest.raises(McpError) as error:
            await server.list_tools()
        assert said in str(error.value).lower() or said in str(error.value)
        assert "\n" not in str(error.value)


@asynccontextmanager
async def http_shop() -> AsyncIterator[str]:
    """The URL of a server on a port of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, SHOP, "http", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.slow
async def test_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key; with the wanted tools alone; and when the server has gone away."""
    monkeypatch.setenv("SHOP_KEY", "k-1")
    async with http_shop() as url:
        table = McpTable(
            url=url, bearer_token_env="SHOP_KEY", start_timeout_s=60, tools=["key", "add"]
        )
        server = McpServer("shop", table, tmp_path, tmp_path / "shop.log")
        assert [tool.name for tool in await server.list_tools()] == ["add", "key"]
        assert (await server.call("add", {"a": 2, "b": 2})).blocks[0]["text"] == "4"
        assert (await server.call("key", {})).blocks[0]["text"] == "Bearer k-1"
        odd = McpTable(url=url, start_timeout_s=60, tools=["ad"])
        async with opened(odd, tmp_path) as other:
            with pytest.raises(McpError, match=r"no tool 'ad'.*it has .*add"):
                await other.list_tools()
    with pytest.raises(McpError) as error:
        await server.call("add", {"a": 1, "b": 1})
    assert "shop" in str(error.value)
    with pytest.raises(McpError, match="connect"):
        await server.call("add", {"a": 1, "b": 1})
    await server.close()
