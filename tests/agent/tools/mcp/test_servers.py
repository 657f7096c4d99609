"""All servers of a conversation: a fixed list, a bounded wait, lists kept from the last time."""

import sys
from pathlib import Path

import pytest

from tests.agent.stage import stage
from tests.agent.tools.mcp.test_server import SHOP, shop_table
from tightloop.agent.events import ItemCompleted, ItemStarted, McpToolCall
from tightloop.agent.tools.interface import OutsideTool
from tightloop.agent.tools.mcp.catalogue import Catalogue
from tightloop.agent.tools.mcp.configuration import McpTable
from tightloop.agent.tools.mcp.server import Listed
from tightloop.agent.tools.mcp.servers import FAILED, READY, STARTING, McpServers
from tightloop.engine.scripted import call_answer, text_answer

SLOW = McpTable(command="sleep", args=["600"], start_timeout_s=600)


@pytest.mark.slow
async def test_the_model_calls_a_tool(tmp_path: Path) -> None:
    """Events as Codex has them; a call that fails, in the tool or in its server, is told in words."""
    notes: list[str] = []
    servers = McpServers({"shop": shop_table()}, tmp_path, tmp_path, notes.append)
    servers.begin()
    tools = await servers.tools(60)
    answers = [
        call_answer("mcp__shop__add", {"a": 2, "b": 3}, "c1"),
        call_answer("mcp__shop__fail", {"reason": "no bread"}, "c2"),
        call_answer("mcp__shop__die", {"words": "sold out"}, "c3"),
        text_answer("Done."),
    ]
    try:
        async with stage(tmp_path, answers, tools=tools) as on:
            await on.agent.run_turn("go")
            added, failed, died = on.outputs()
    finally:
        await servers.close()
    assert added == "5"
    assert failed.startswith("The tool failed: ")
    assert "no bread" in failed
    assert died.startswith("mcp__shop__die: the server shop ended during the call")
    items = [e.item for e in on.heard if isinstance(e, ItemStarted | ItemCompleted)]
    calls = [item for item in items if isinstance(item, McpToolCall)]
    assert [(call.tool, call.status) for call in calls] == [
        ("add", "in_progress"), ("add", "completed"), ("fail", "in_progress"), ("fail", "failed"),
        ("die", "in_progress"), ("die", "failed"),
    ]  # fmt: skip
    assert calls[1].result is not None
    assert calls[1].result.content[0]["text"] == "5"
    assert calls[-1].error is not None
    assert [(state.name, state.state) for state in servers.states] == [("shop", READY)]
    assert notes == []


async def test_a_slow_server_is_said_and_left_out(tmp_path: Path) -> None:
    notes: list[str] = []
    tables = {"shop": shop_table(), "slow": SLOW, "wrong": McpTable(command="no-such-program")}
    first = McpServers(tables, tmp_path, tmp_path, notes.append)
    first.begin()
    await first.tools(0)
    assert {state.name: state.state for state in first.states}["slow"] == STARTING
    await first.close()
    assert "mcp slow: no answer within 0 s" in " ".join(notes)
    notes.clear()
    again = McpServers({"wrong": tables["wrong"]}, tmp_path, tmp_path, notes.append)
    again.begin()
    assert await again.tools(60) == []
    assert [(state.state, state.num_tools) for state in again.states] == [(FAILED, 0)]
    assert notes == ["mcp wrong: there is no program 'no-such-program'"]
    await again.close()


@pytest.mark.slow
async def test_a_list_that_is_known_is_not_waited_for(tmp_path: Path) -> None:
    """And its bytes are those of the last time."""
    notes: list[str] = []
    first = McpServers({"shop": shop_table()}, tmp_path, tmp_path, notes.append)
    first.begin()
    before = [tool.definition() for tool in await first.tools(60)]
    await first.close()
    second = McpServers({"shop": shop_table(trusted=True)}, tmp_path, tmp_path, notes.append)
    second.begin()
    assert [tool.definition() for tool in await second.tools(0)] == before
    assert len(before) > 5
    await second.close()
    other = McpServers({"shop": shop_table(env={"A": "1"})}, tmp_path, tmp_path, notes.append)
    other.begin()
    assert await other.tools(0) == []
    await other.close()
    assert len(notes) == 1


@pytest.mark.slow
async def test_a_list_that_has_changed_is_for_the_next_conversation(tmp_path: Path) -> None:
    notes: list[str] = []
    table = shop_table()
    Catalogue(tmp_path / "mcp").save("shop", table, [Listed("old", "", {"type": "object"})])
    servers = McpServers({"shop": table}, tmp_path, tmp_path, notes.append)
    servers.begin()
    (tool,) = await servers.tools(0)
    assert tool.name == "mcp__shop__old"
    async with stage(
        tmp_path, [call_answer(tool.name, {}), text_answer("Done.")], tools=[tool]
    ) as on:
        await on.agent.run_turn("go")
        assert "old" in on.outputs()[0]
    await servers.settled()
    assert notes == ["mcp shop: its tools have changed; the next conversation has the new ones"]
    await servers.close()
    assert len(Catalogue(tmp_path / "mcp").load("shop", table) or ()) > 5


async def test_whose_tools_leave_the_sandbox(tmp_path: Path) -> None:
    """All but those of servers that the user trusts; the question names server, tool, arguments."""
    for is_trusted in (False, True):
        table = shop_table(trusted=is_trusted)
        Catalogue(tmp_path / "mcp").save("shop", table, [Listed("add", "", {})])
        servers = McpServers({"shop": table}, tmp_path, tmp_path, print)
        (tool,) = await servers.tools(0)
        assert isinstance(tool, OutsideTool)
        assert tool.leaves_sandbox is not is_trusted
        assert tool.describe('{"a":\n 1}') == 'mcp shop add {"a": 1}'
        await servers.close()


async def test_there_is_a_limit_to_tools(tmp_path: Path) -> None:
    notes: list[str] = []
    many = [Listed(f"t{n:03}", "", {}) for n in range(150)]
    Catalogue(tmp_path / "mcp").save("shop", SLOW, many)
    servers = McpServers({"shop": SLOW}, tmp_path, tmp_path, notes.append)
    assert len(await servers.tools(0)) == 100
    assert "50 of 150 tools are left out" in notes[0]
    await servers.close()


@pytest.mark.parametrize("content", ["", "{", '{"table": 1}', '{"table": "x", "tools": []}'])
def test_a_damaged_list_is_no_list(tmp_path: Path, content: str) -> None:
    catalogue = Catalogue(tmp_path)
    (tmp_path / "shop.json").write_text(content)
    assert catalogue.load("shop", McpTable(command=sys.executable, args=[SHOP])) is None


async def test_without_the_library_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversation goes on without the servers' tools, also without those known from before."""
    monkeypatch.setitem(sys.modules, "mcp", None)
    table = shop_table()
    Catalogue(tmp_path / "mcp").save("shop", table, [Listed("add", "", {})])
    notes: list[str] = []
    servers = McpServers({"shop": table}, tmp_path, tmp_path, notes.append)
    servers.begin()
    assert await servers.tools(60) == []
    assert [state.state for state in servers.states] == [FAILED]
    assert len(notes) == 1
    assert "pip install 'tightloop[mcp]'" in notes[0]
    await servers.close()
