import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import orjson
from aiohttp import web

from benchmarks.workshop.turns import Turns
from benchmarks.workshop.turnstile import Turnstile, has_call
from tightloop.trace.clock import now_ns

CALL = {"type": "response.completed", "response": {"output": [{"type": "function_call"}]}}
END = {"type": "response.completed", "response": {"output": [{"type": "message"}]}}
FIRST = {"type": "response.create", "input": [{"type": "message"}]}
OUTPUT = {
    "type": "response.create",
    "input": [{"type": "function_call_output", "output": "Process exited with code 0"}],
}


def test_only_a_response_with_a_call_starts_a_gap() -> None:
    assert has_call(CALL)
    assert not has_call(END)


class Upstream:
    """A server that asks for a tool until it has had two outputs."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, object]] = []

    async def __aenter__(self) -> "Upstream":
        application = web.Application()
        application.router.add_get("/v1/responses", self._answer)
        application.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._runner.cleanup()

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"models": []})

    async def _answer(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            self.asked.append(orjson.loads(message.data))
            await socket.send_json(CALL if len(self.asked) < 3 else END)
        return socket


@asynccontextmanager
async def connected(
    turns: Turns, keeping: Sequence[int] = ()
) -> AsyncIterator[tuple[Upstream, Turnstile, aiohttp.ClientWebSocketResponse]]:
    """An upstream, the turnstile before it, and an agent's socket to that."""
    async with (
        Upstream() as upstream,
        Turnstile(upstream.url, turns, "agent", keeping) as turnstile,
        aiohttp.ClientSession() as session,
        session.ws_connect(turnstile.url + "/responses") as socket,
    ):
        yield upstream, turnstile, socket


async def test_a_gap_lasts_from_the_call_to_its_output_and_not_while_others_have_their_turn() -> (
    None
):
    """Two calls make two gaps; after each the agent waits until the other one has had its turn."""
    turns = Turns(["agent", "other"])
    async with connected(turns) as (upstream, turnstile, socket):
        started_ns = now_ns()
        await socket.send_json(FIRST)
        assert await socket.receive_json() == CALL
        await socket.send_json(OUTPUT)
        await turns.take("other")  # the output has arrived, and waits
        assert len(turnstile.gaps_ns) == 1
        assert len(upstream.asked) == 1
        await turns.give("other")
        assert await socket.receive_json() == CALL
        await socket.send_json(OUTPUT)
        await turns.take("other")
        await turns.leave("other")
        assert await socket.receive_json() == END
        ended_ns = now_ns()
    assert turnstile.outputs == ["Process exited with code 0"] * 2
    assert all(gap > 0 for gap in turnstile.gaps_ns)
    assert sum(turnstile.gaps_ns) < ended_ns - started_ns
    assert upstream.asked == [FIRST, OUTPUT, OUTPUT]


async def test_a_turn_goes_on_after_a_call_that_keeps_it() -> None:
    """The next request passes at once; after the call that follows, it is the other one's turn."""
    turns = Turns(["agent", "other"])
    async with connected(turns, keeping=[0]) as (upstream, turnstile, socket):
        await socket.send_json(FIRST)
        await socket.receive_json()
        await socket.send_json(OUTPUT)
        assert await socket.receive_json() == CALL
        assert len(upstream.asked) == 2
        await socket.send_json(OUTPUT)
        await turns.take("other")
        assert len(turnstile.gaps_ns) == 2
        assert len(upstream.asked) == 2
        await turns.leave("other")


async def test_what_ends_its_connection_takes_no_more_turns() -> None:
    turns = Turns(["agent", "other"])
    async with connected(turns) as (_upstream, _turnstile, socket):
        await socket.send_json(FIRST)
        await socket.receive_json()
        await socket.close()
        async with asyncio.timeout(20):
            await turns.take("other")


async def test_other_requests_pass_and_other_hosts_are_refused() -> None:
    async with (
        Upstream() as upstream,
        Turnstile(upstream.url, Turns(["a"]), "a") as turnstile,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(turnstile.url + "/models") as answer:
            assert await answer.json() == {"models": []}
        async with session.get("http://example.org/", proxy=turnstile.origin) as answer:
            assert answer.status == 403
