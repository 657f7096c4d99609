"""The contract of ``Transport``, kept by every implementation, the shipped fake included."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.client.rig import KINDS, Rig, running
from tightloop.client.http import HttpTransport
from tightloop.client.scripted import ScriptedTransport, text_reply
from tightloop.client.transport import Event, Transport, TransportError
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.scripted import Hold, in_turn, text_answer
from tightloop.protocol.deltas import TextDelta
from tightloop.protocol.errors import ApiError

NETWORK = ("websocket", "http", "http_new_connection")


def request(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "input": text, **fields}


async def events_of(transport: Transport, **fields: Any) -> list[Event]:
    return [event async for event in transport.stream(request(**fields))]


def text_of(events: list[Event]) -> str:
    kind = "response.output_text.delta"
    return "".join(event["delta"] for event in events if event["type"] == kind)


@pytest.mark.parametrize("kind", KINDS)
async def test_events_come_in_order_and_the_terminal_one_is_last(kind: str) -> None:
    """Twice on one transport: the first response leaves nothing behind."""
    async with running(kind) as rig:
        await rig.transport.connect()
        for text in ("one two", "three"):
            events = await events_of(rig.transport, text=text)
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert events[-1]["type"] == "response.completed"
            assert text_of(events) == f"echo: {text}"


async def test_the_shipped_fake_gives_the_same_sequence() -> None:
    """Same types in the same order as from a server."""
    async with running("in_memory") as rig:
        real = await events_of(rig.transport, text="x")
    fake = await events_of(ScriptedTransport([[TextDelta("echo:"), TextDelta(" x")]]), text="x")
    assert [event["type"] for event in fake] == [event["type"] for event in real]
    assert [set(event) for event in fake] == [set(event) for event in real]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_is_an_api_error_that_names_the_field(kind: str) -> None:
    """And the transport is good for the next request."""
    async with running(kind) as rig:
        with pytest.raises(ApiError) as caught:
            await events_of(rig.transport, model="unknown")
        error = caught.value
        assert (error.status, error.code, error.param) == (400, "model_not_found", "model")
        assert text_of(await events_of(rig.transport)) == "echo: hi"


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_the_iterator_early_cancels_the_response(kind: str) -> None:
    """The engine stops working, and the next response is not confused by the old one."""
    hold = Hold()
    script = in_turn([[TextDelta("a"), hold, TextDelta("never")], text_answer("next")])
    async with running(kind, script) as rig:
        async with aclosing(rig.transport.stream(request())) as events:
            async for event in events:
                if event["type"] == "response.output_text.delta":
                    break
        assert text_of(await events_of(rig.transport)) == "next"
        await rig.endpoint.drained(30)
        assert not rig.endpoint.backstage.running


@pytest.mark.parametrize("kind", KINDS)
async def test_two_responses_at_once_do_not_mix(kind: str) -> None:
    """On a socket the second waits its turn; over HTTP they run beside each other."""
    async with running(kind) as rig, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(events_of(rig.transport, text=text)) for text in ("a b c", "d e f")
        ]
        assert [text_of(await task) for task in tasks] == ["echo: a b c", "echo: d e f"]


@pytest.mark.parametrize("kind", ["in_memory", "websocket"])
async def test_named_lanes_run_beside_each_other(kind: str) -> None:
    """The lane that waits does not hold up the other."""
    hold = Hold()
    script = in_turn([[hold, *text_answer("slow")], text_answer("fast")])
    async with running(kind, script) as rig, asyncio.TaskGroup() as group:
        slow = group.create_task(events_of(rig.transport, stream_id="a"))
        await hold.reached.wait()
        assert text_of(await events_of(rig.transport, stream_id="b")) == "fast"
        hold.release.set()
        assert text_of(await slow) == "slow"


@pytest.mark.parametrize("kind", NETWORK)
async def test_a_connection_lost_midway_is_a_transport_error_with_the_url(kind: str) -> None:
    """What was received before is not taken back."""
    hold = Hold()
    async with running(kind, in_turn([[TextDelta("a"), hold]])) as rig:
        seen: list[str] = []

        async def consume() -> None:
            async for event in rig.transport.stream(request()):
                seen.append(event["type"])
                if event["type"] == "response.output_text.delta":
                    rig.server.abort_connections()

        with pytest.raises(TransportError, match=r"http://127\.0\.0\.1"):
            await consume()
        assert "response.output_text.delta" in seen


async def test_closing_the_transport_ends_what_runs_on_it() -> None:
    """The consumer learns it; nothing hangs."""
    hold = Hold()
    async with running("in_memory", in_turn([[TextDelta("a"), hold]])) as rig:
        stream = rig.transport.stream(request())
        await anext(stream)
        await rig.transport.close()
        with pytest.raises(TransportError, match="closed"):
            async for _ in stream:
                pass


@pytest.mark.parametrize("kind", NETWORK)
async def test_a_server_that_is_not_there_is_named(kind: str) -> None:
    """Port 1 is never ours."""
    transport: Transport
    if kind == "websocket":
        transport = WebSocketTransport("http://127.0.0.1:1/v1")
    else:
        transport = HttpTransport("http://127.0.0.1:1/v1", reuse_connection=kind == "http")
    with pytest.raises(TransportError, match=r"http://127\.0\.0\.1:1/v1"):
        await events_of(transport)
    await transport.close()


@pytest.mark.parametrize("kind", NETWORK)
async def test_a_wrong_key_is_an_api_error_401(kind: str) -> None:
    """The right one works on the same server."""
    async with running(kind, key="secret") as rig:
        wrong = rig.another(kind, "wrong")
        with pytest.raises(ApiError) as caught:
            await events_of(wrong)
        await wrong.close()
        assert caught.value.status == 401
        assert text_of(await events_of(rig.transport)) == "echo: hi"


@pytest.mark.parametrize("kind", KINDS)
async def test_close_twice_and_use_again(kind: str) -> None:
    """A closed transport opens a new connection when it is used again."""
    async with running(kind) as rig:
        await rig.transport.connect()
        await rig.transport.connect()
        await rig.transport.close()
        await rig.transport.close()
        assert text_of(await events_of(rig.transport)) == "echo: hi"


@pytest.mark.parametrize("kind", ["in_memory", "websocket"])
async def test_unstored_parents_live_as_long_as_the_connection(kind: str) -> None:
    """That is what supports_continuation promises."""
    async with running(kind) as rig:
        assert rig.transport.supports_continuation
        first = await events_of(rig.transport, store=False)
        parent = first[-1]["response"]["id"]
        again = await events_of(rig.transport, store=False, previous_response_id=parent)
        assert again[-1]["type"] == "response.completed"
        await rig.transport.close()
        with pytest.raises(ApiError, match="not found"):
            await events_of(rig.transport, store=False, previous_response_id=parent)


@pytest.mark.parametrize("kind", KINDS)
async def test_large_messages_pass(kind: str) -> None:
    """A long history is several megabytes; defaults of servers and clients are smaller."""
    async with running(kind, lambda _request: [TextDelta("y" * 5_000_000)]) as rig:
        events = await events_of(rig.transport, text="x" * 5_000_000)
        assert len(text_of(events)) == 5_000_000


async def test_a_socket_lost_between_responses_is_opened_again() -> None:
    """The user of the transport does not notice."""
    async with running("websocket") as rig:
        await events_of(rig.transport)
        rig.server.abort_connections()
        assert text_of(await reconnected(rig)) == "echo: hi"


async def reconnected(rig: Rig) -> list[Event]:
    """Whether the loss is noticed before the send or by it is up to the operating system."""
    try:
        return await events_of(rig.transport)
    except TransportError:
        return await events_of(rig.transport)


async def test_the_fake_counts_and_raises_what_the_script_says() -> None:
    """A lost connection must be made again; a refusal leaves it as it is."""
    fake = ScriptedTransport([ApiError("no"), TransportError("lost"), text_reply("x")])
    with pytest.raises(ApiError):
        await events_of(fake)
    with pytest.raises(TransportError):
        await events_of(fake)
    assert text_of(await events_of(fake)) == "x"
    assert (fake.num_connects, len(fake.requests)) == (2, 3)
    assert text_of(await events_of(fake)) == "(the end)"
    await fake.close()
    assert fake.is_closed
