"""The server as a whole: start, refusal to start, orderly end."""

import asyncio
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from yarl import URL

from tests.server.test_http import client
from tests.server.test_websocket import ask, socket
from tightloop.client.http import HttpTransport
from tightloop.client.transport import Event
from tightloop.engine.interface import EngineError
from tightloop.engine.scripted import Hold, ScriptedEngine, in_turn, text_answer
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import TextDelta
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import ConversationRow, Store


def server_for(endpoint: Endpoint, *, port: int = 0) -> Server:
    return Server(endpoint, Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=port)


async def test_the_url_names_the_port_that_was_given() -> None:
    """An ephemeral port is known after the start."""
    server = server_for(Endpoint(ScriptedEngine()))
    url = await server.start()
    assert url == server.url
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    assert ":0/" not in url
    await server.stop()


async def test_a_taken_port_is_an_os_error() -> None:
    """The caller words it."""
    first = server_for(Endpoint(ScriptedEngine()))
    port = int((await first.start()).split(":")[2].removesuffix("/v1"))
    second = server_for(Endpoint(ScriptedEngine()), port=port)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop(grace_s=0)
    await first.stop()


class MissingModel(ScriptedEngine):
    """Cannot be loaded."""

    async def start(self) -> None:
        raise EngineError("model x is not there; download it")


async def test_a_model_that_cannot_be_loaded_leaves_no_port_open() -> None:
    """Listening comes last."""
    server = server_for(Endpoint(MissingModel()))
    with pytest.raises(EngineError, match="download it"):
        await server.start()
    assert server.url == ""
    await server.stop(grace_s=0)


async def test_stopping_lets_a_running_response_end_and_then_closes_with_1001() -> None:
    """1001 is a code that clients take as a reason to reconnect."""
    hold = Hold()
    server = server_for(Endpoint(ScriptedEngine(in_turn([[TextDelta("a"), hold, TextDelta("b")]]))))
    await server.start()
    async with socket(server) as peer:
        answer = asyncio.create_task(ask(peer, store=False))
        await hold.reached.wait()
        stopping = asyncio.create_task(server.stop(grace_s=30))
        hold.release.set()
        assert (await answer)["response"]["status"] == "completed"
        with pytest.raises(ConnectionClosed) as caught:
            await peer.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
        await stopping


async def test_stopping_does_not_wait_longer_than_its_grace() -> None:
    """A response that never ends is cancelled, and its reader hears of that before the goodbye."""
    hold = Hold()
    server = server_for(Endpoint(ScriptedEngine(in_turn([[TextDelta("a"), hold]]))))
    await server.start()
    async with socket(server) as peer:
        answer = asyncio.create_task(ask(peer))
        await hold.reached.wait()
        stopping = asyncio.create_task(server.stop(grace_s=0))
        assert (await answer)["response"]["status"] == "incomplete"
        with pytest.raises(ConnectionClosed):
            await peer.recv()
        await stopping


async def test_an_http_stream_cut_short_by_the_end_is_whole() -> None:
    """It has its terminal event, and the body its end."""
    hold = Hold()
    server = server_for(Endpoint(ScriptedEngine(in_turn([[TextDelta("a"), hold]]))))
    transport = HttpTransport(await server.start())

    async def consume() -> list[Event]:
        return [e async for e in transport.stream({"model": "scripted", "input": "x"})]

    answer = asyncio.create_task(consume())
    await hold.reached.wait()
    stopping = asyncio.create_task(server.stop(grace_s=0))
    assert (await answer)[-1]["type"] == "response.incomplete"
    await stopping
    await transport.close()


async def test_stopping_lets_an_http_stream_end() -> None:
    """The same for server-sent events."""
    hold = Hold()
    server = server_for(Endpoint(ScriptedEngine(in_turn([[TextDelta("a"), hold, TextDelta("b")]]))))
    transport = HttpTransport(await server.start())

    async def consume() -> list[Event]:
        return [e async for e in transport.stream({"model": "scripted", "input": "x"})]

    answer = asyncio.create_task(consume())
    await hold.reached.wait()
    stopping = asyncio.create_task(server.stop(grace_s=30))
    hold.release.set()
    assert (await answer)[-1]["type"] == "response.completed"
    await stopping
    await transport.close()


async def test_a_stored_conversation_survives_a_restart(tmp_path: Path) -> None:
    """By id, from another connection of another process's worth of state."""
    script = in_turn([text_answer("one"), text_answer("two")])
    first = server_for(Endpoint(ScriptedEngine(script), Store(tmp_path / "db")))
    await first.start()
    async with socket(first) as peer:
        parent = (await ask(peer, "a", store=True))["response"]["id"]
    await first.stop()
    engine = ScriptedEngine()
    second = server_for(Endpoint(engine, Store(tmp_path / "db")))
    await second.start()
    async with socket(second) as peer:
        done = await ask(peer, "b", store=True, previous_response_id=parent)
        assert done["type"] == "response.completed"
    assert len(engine.requests[0].context()) == 3
    await second.stop()


async def test_a_path_cannot_write_lines_into_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged as it was sent, not decoded."""

    class Broken(Store):
        async def conversation(self, conversation_id: str) -> ConversationRow | None:
            raise RuntimeError(conversation_id)

    async with client(store=Broken(tmp_path / "db")) as c:
        url = URL(f"{c.root}/v1/conversations/a%0AINFO%20all%20is%20well", encoded=True)
        async with c.http.get(url) as response:
            assert response.status == 500
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line == "GET /v1/conversations/a%0AINFO%20all%20is%20well failed"
