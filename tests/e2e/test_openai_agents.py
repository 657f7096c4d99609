"""74x: openai-agents from its registry, in an environment of its own, over both its transports."""

from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import ROOT, Home, installed, run
from tests.e2e.test_codex import Script

pytestmark = pytest.mark.timeout(120)

WRITE = {"call": {"name": "write_file", "arguments": {"name": "made.txt", "text": "made"}}}
ANSWERS = [[{"reasoning": "simple"}, WRITE], [{"text": "all done"}]]


async def turn(home: Home, relay: Relay, transport: str) -> dict[str, Any]:
    """What the agent says at the end of a turn with one tool call, which it has carried out."""
    env = home.environment(
        relay.origin,
        OPENAI_BASE_URL=relay.url,
        OPENAI_API_KEY="none needed",
        OPENAI_AGENTS_DISABLE_TRACING="1",
    )
    program = str(ROOT / "clients" / "openai_agents_turn.py")
    python = installed("openai-agents", "bin", "python")
    done = (await run([python, program, transport], home, env)).well()
    assert (home.project / "made.txt").read_text() == "made"
    assert relay.outside == []
    return done.lines[-1]


async def test_740_a_tool_turn_over_http(serve: Serve, script: Script, home: Home) -> None:
    """Two requests that do not stream, each with everything."""
    served = serve("--model", script(ANSWERS))
    async with Relay(served.url) as relay:
        said = await turn(home, relay, "http")
    assert said == {"final": "all done", "requests": 2, "events": 0}
    first, second = relay.posts("/v1/responses")
    assert [first.status, second.status] == [200, 200]
    kinds = [item.get("type", "message") for item in second.json["input"]]
    assert kinds == ["message", "reasoning", "function_call", "function_call_output"]


async def test_741_a_tool_turn_over_a_websocket(serve: Serve, script: Script, home: Home) -> None:
    """Both requests on one socket; their events parse into the SDK's types as they arrive."""
    served = serve("--model", script(ANSWERS))
    async with Relay(served.url) as relay:
        said = await turn(home, relay, "websocket")
    assert (said["final"], said["requests"]) == ("all done", 2)
    (socket,) = relay.sockets
    assert len(socket.creates) == 2
    assert said["events"] == len(socket.received)
    assert relay.posts("/v1/responses") == []
