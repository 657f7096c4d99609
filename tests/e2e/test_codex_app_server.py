"""72x: Codex CLI driven as an editor drives it: a word put in while an answer is being made."""

import asyncio
from typing import Any

import pytest

from tests.e2e.app_server import app_server, words
from tests.e2e.codex import Codex
from tests.e2e.conftest import Serve
from tests.e2e.relay import Event, Relay, Socket
from tests.e2e.stock_clients import Home
from tests.e2e.test_codex import Script, answer_ids, kinds

pytestmark = pytest.mark.timeout(120)

REPLY = {"faster": [{"text": "right away"}]}


async def steered_turn(codex: Codex, steered: asyncio.Event) -> list[str]:
    """A turn whose first answer is interrupted by a word; the texts of its whole messages."""
    async with app_server(codex) as server:
        turn = await server.turn("begin")
        await server.until("item/agentMessage/delta")
        more: dict[str, Any] = {"threadId": server.thread_id, "expectedTurnId": turn}
        await server.ask("turn/steer", **more, input=words("faster"))
        steered.set()
        ended = await server.until("turn/completed")
    assert ended["turn"]["status"] == "completed"
    done = [m["params"]["item"] for m in server.notifications if m["method"] == "item/completed"]
    return [item["text"] for item in done if item["type"] == "agentMessage"]


async def test_720_classic_mode_lets_the_answer_end_and_then_goes_on(
    serve: Serve, script: Script, home: Home
) -> None:
    """Nothing about it on the wire before; then one request with the user's word alone."""
    served = serve("--model", script([[{"text": "one moment"}]], **REPLY))
    steered = asyncio.Event()

    async def hold_the_end(socket: Socket, event: Event) -> None:
        if event["type"] == "response.completed" and len(socket.creates) == 2:
            await steered.wait()

    async with Relay(served.url, gate=hold_the_end) as relay:
        said = await steered_turn(Codex(home, relay.url, relay.origin), steered)
    assert said == ["one moment", "right away"]
    (socket,) = relay.sockets
    assert [event["type"] for event in socket.sent] == ["response.create"] * 3
    last = socket.creates[-1]
    assert last["previous_response_id"] == answer_ids(socket)[1]
    assert [(item["type"], item["role"]) for item in last["input"]] == [("message", "user")]


async def test_721_lite_mode_interrupts_the_answer_and_goes_on_from_it(
    serve: Serve, script: Script, home: Home
) -> None:
    """``response.interrupt`` ends an answer that would never end; the next one continues it."""
    served = serve("--model", script([[{"text": "one moment"}, {"hold": True}]], **REPLY))
    async with Relay(served.url) as relay:
        codex = Codex(home, relay.url, relay.origin, lite=True)
        said = await steered_turn(codex, asyncio.Event())
    assert said == ["right away"]
    (socket,) = relay.sockets
    (interrupt,) = (event for event in socket.sent if event["type"] == "response.interrupt")
    assert interrupt["mode"] == "discard_partial_items"
    (stopped,) = (e["response"] for e in socket.received if e["type"] == "response.incomplete")
    assert stopped["incomplete_details"] == {"reason": "interrupted"}
    assert stopped["output"] == []
    last = socket.creates[-1]
    assert interrupt["response_id"] == stopped["id"] == last["previous_response_id"]
    assert kinds(last) == ["message"]
