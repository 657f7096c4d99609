"""Forks of a conversation: the same context, ways of their own, nobody waits for another."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.client.rig import KINDS, running
from tests.client.test_session import ask, words
from tightloop.client.lanes import Lanes
from tightloop.client.scripted import ScriptedTransport, text_reply
from tightloop.client.session import Session
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, Hold, text_answer
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.protocol.items import Message, user_message

FAILED = Finished(FinishReason.ERROR, Usage(), None, "server_error", "engine died")


def heard(request: GenerationRequest) -> list[str]:
    """What users have said, as the model sees it."""
    items = request.context()
    return [item.text for item in items if isinstance(item, Message) and item.role == "user"]


def repeat(request: GenerationRequest) -> Answer:
    """Tells all that users have said; waits at ``wait``, fails at ``fail``."""
    said = heard(request)
    if said[-1] == "wait":
        return [TextDelta("begun"), Hold()]
    return [FAILED] if said[-1] == "fail" else text_answer("+".join(said))


@pytest.mark.parametrize("kind", KINDS)
async def test_forks_begin_alike_and_go_their_own_ways(kind: str) -> None:
    """Where the server keeps the context, only what is new goes out."""
    async with running(kind, repeat) as rig:
        lanes, main = Lanes(), Session(rig.transport, model="scripted")
        await ask(main, "a")
        one, two = await lanes.fork(main), await lanes.fork(main, {"temperature": 0.5})
        assert words(await ask(one, "b")) == "a+b"
        assert words(await ask(two, "c")) == "a+c"
        assert words(await ask(one, "d")) == "a+b+d"
        assert words(await ask(main, "e")) == "a+e"
        _, b, c, d, _ = rig.engine.requests
        assert (b.sampling.temperature, c.sampling.temperature) == (None, 0.5)
        if kind in ("in_memory", "websocket"):
            assert [len(request.items) for request in (b, c, d)] == [1, 1, 1]
        assert [one.num_recoveries, two.num_recoveries, main.num_recoveries] == [0, 0, 0]
        assert (len(one.trips), len(two.trips), len(main.trips)) == (2, 1, 2)
        await lanes.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fork_waits_for_nobody(kind: str) -> None:
    """Not for its brothers either; a fork that is given up says how much it had heard."""
    async with running(kind, repeat) as rig:
        lanes, main = Lanes(), Session(rig.transport, model="scripted")
        one, two = await lanes.fork(main), await lanes.fork(main)
        begun = asyncio.Event()

        async def wait() -> None:
            async with aclosing(one.respond([user_message("wait")])) as events:
                async for event in events:
                    if event["type"] == "response.output_text.delta":
                        begun.set()

        waiting = asyncio.create_task(wait())
        await begun.wait()
        assert words(await ask(two, "b")) == "b"
        assert words(await ask(main, "c")) == "c"
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (one.num_cut_deltas, two.num_cut_deltas) == (1, 0)
        assert (one.items, one.trips) == ([], [])
        await lanes.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_conversation_goes_on_as_a_fork_did(kind: str) -> None:
    async with running(kind, repeat) as rig:
        lanes, main = Lanes(), Session(rig.transport, model="scripted")
        await ask(main, "a")
        fork = await lanes.fork(main)
        await ask(fork, "b")
        await ask(fork, "c")
        main.take(fork)
        assert words(await ask(main, "d")) == "a+b+c+d"
        assert main.num_recoveries == 0
        if kind in ("in_memory", "websocket"):
            assert len(rig.engine.requests[-1].items) == 1
        assert len(main.items) == len(fork.items) + 2
        await lanes.close()


@pytest.mark.parametrize("kind", ["in_memory", "websocket"])
async def test_a_fork_that_fails_takes_the_parent_from_nobody(kind: str) -> None:
    """Servers forget an unstored parent when its continuation fails: here, in that lane."""
    async with running(kind, repeat) as rig:
        lanes, main = Lanes(), Session(rig.transport, model="scripted")
        await ask(main, "a")
        one, two = await lanes.fork(main), await lanes.fork(main)
        await ask(one, "fail")
        assert one.last is not None
        assert one.last.status == "failed"
        assert words(await ask(two, "b")) == "a+b"
        assert words(await ask(one, "c")) == "a+c"
        assert words(await ask(main, "d")) == "a+d"
        assert [one.num_recoveries, two.num_recoveries, main.num_recoveries] == [0, 0, 0]
        await lanes.close()


@pytest.mark.parametrize("kind", ["in_memory", "websocket"])
async def test_a_fork_that_comes_late_brings_all_of_it(kind: str) -> None:
    """The main conversation has gone on, and its server has forgotten what was before."""
    async with running(kind, repeat) as rig:
        lanes, main = Lanes(), Session(rig.transport, model="scripted")
        await ask(main, "a")
        late = await lanes.fork(main)
        await ask(main, "b")
        assert words(await ask(late, "c")) == "a+c"
        assert late.num_recoveries == 1
        assert words(await ask(late, "d")) == "a+c+d"
        assert late.num_recoveries == 1
        await lanes.close()


async def test_a_lost_socket_is_recovered_by_each() -> None:
    async with running("websocket", repeat) as rig:
        lanes, main = Lanes(), Session(rig.transport, model="scripted")
        await ask(main, "a")
        forks = [await lanes.fork(main) for _ in range(3)]
        rig.server.abort_connections()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(fork, "b")) for fork in forks]
        assert [words(task.result()) for task in asked] == ["a+b"] * 3
        assert [fork.num_recoveries for fork in forks] == [1, 1, 1]
        await lanes.close()


class Foreign(WebSocketTransport):
    """To a host that offers no extension, and may not know lanes."""

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset()


async def test_other_hosts_get_a_connection_for_each() -> None:
    """With the same key; the first request brings the whole context, later ones what is new."""
    async with running("websocket", repeat, key="secret") as rig:
        transport = Foreign(rig.server.url, "secret")
        lanes, main = Lanes(), Session(transport, model="scripted")
        await ask(main, "a")
        fork = await lanes.fork(main)
        assert fork.transport is not transport
        assert words(await ask(fork, "b")) == "a+b"
        assert words(await ask(fork, "c")) == "a+b+c"
        main.take(fork)
        assert words(await ask(main, "d")) == "a+b+c+d"
        await lanes.close()
        await lanes.close()
        await transport.close()


async def test_a_way_that_cannot_be_doubled_is_shared() -> None:
    """Requests then name no lane, which a host might refuse."""
    transport = ScriptedTransport([text_reply("x"), text_reply("y")])
    lanes, main = Lanes(), Session(transport, model="scripted")
    fork = await lanes.fork(main, {"seed": 7})
    await ask(fork, "a")
    request: dict[str, Any] = transport.requests[0]
    assert fork.transport is transport
    assert ("stream_id" in request, request["seed"]) == (False, 7)
    await lanes.close()
