"""Sessions: only what is new is sent, and recovery is unseen while it is safe."""

from contextlib import aclosing
from typing import Any

import pytest

from tests.client.rig import KINDS, running
from tightloop.client.scripted import Reply, ScriptedTransport, call_reply, text_reply
from tightloop.client.session import Session
from tightloop.client.transport import Event, TransportError
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, Hold, in_turn, text_answer
from tightloop.protocol.deltas import (
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    user_message,
)
from tightloop.server.streams import Streams
from tightloop.trace import latency
from tightloop.trace.clock import ManualClock

FAILED = Finished(FinishReason.ERROR, Usage(), None, "server_error", "engine died")


async def ask(session: Session, *items: Item | str) -> list[Event]:
    new = [user_message(item) if isinstance(item, str) else item for item in items]
    return [event async for event in session.respond(new)]


def texts(request: dict[str, Any]) -> list[str]:
    """What a request carried, message by message."""
    return [item["content"][0]["text"] for item in request["input"] if "content" in item]


def scripted(*replies: Reply, **options: Any) -> tuple[ScriptedTransport, Session]:
    transport = ScriptedTransport(replies)
    return transport, Session(transport, model="scripted", **options)


async def test_only_new_items_are_sent_with_the_parents_id() -> None:
    """A tool round: the second request carries one item."""
    transport, session = scripted(
        call_reply("shell", {"cmd": "ls"}),
        text_reply("done"),
        instructions="be brief",
        tools=[{"type": "function", "name": "shell"}],
        options={"temperature": 0},
    )
    await ask(session, "go")
    await ask(session, FunctionCallOutput("call_1", "ok"))
    first, second = transport.requests
    assert "previous_response_id" not in first
    assert second["previous_response_id"] == "resp_1"
    assert second["input"] == [
        {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
    ]
    for request in transport.requests:
        assert (request["instructions"], request["temperature"]) == ("be brief", 0)
        assert request["tools"] == [{"type": "function", "name": "shell"}]
        assert request["store"] is False
    assert [type(item).__name__ for item in session.items] == [
        "Message",
        "FunctionCall",
        "FunctionCallOutput",
        "Message",
    ]
    assert isinstance(session.items[1], FunctionCall)


async def test_full_resend_carries_everything_every_time() -> None:
    """As stateless clients do; no parent is named."""
    transport, session = scripted(text_reply("a"), text_reply("b"), full_resend=True)
    await ask(session, "one")
    await ask(session, "two")
    assert texts(transport.requests[1]) == ["one", "a", "two"]
    assert "previous_response_id" not in transport.requests[1]


@pytest.mark.parametrize(
    "loss",
    [
        ApiError("gone", code="previous_response_not_found", param="previous_response_id"),
        ApiError("60 minutes", code="websocket_connection_limit_reached"),
        TransportError("connection reset"),
    ],
)
async def test_a_lost_context_is_sent_again_once_and_unseen(loss: Reply) -> None:
    """The caller sees one normal response; afterwards only new items are sent again."""
    transport, session = scripted(text_reply("a"), loss, text_reply("b"), text_reply("c"))
    await ask(session, "one")
    events = await ask(session, "two")
    assert [event["type"] for event in events].count("response.created") == 1
    assert texts(transport.requests[2]) == ["one", "a", "two"]
    assert session.num_recoveries == 1
    await ask(session, "three")
    assert texts(transport.requests[3]) == ["three"]
    assert transport.requests[3]["previous_response_id"] == "resp_3"


@pytest.mark.parametrize(
    "losses",
    [
        [TransportError("lost"), TransportError("lost")],
        [ApiError("bad item", param="input[0]")],
        [ApiError("slow down", status=429, retry_after_s=1.0)],
    ],
)
async def test_what_cannot_be_repaired_is_raised(losses: list[Reply]) -> None:
    """And the conversation is as it was: the next request brings the whole context."""
    transport, session = scripted(text_reply("a"), *losses, text_reply("b"))
    await ask(session, "one")
    with pytest.raises((TransportError, ApiError)):
        await ask(session, "two")
    assert len(transport.requests) == 1 + len(losses)
    await ask(session, "again")
    assert texts(transport.requests[-1]) == ["one", "a", "again"]
    assert len(session.trips) == 2


async def test_a_failed_response_leaves_the_conversation_as_it_was() -> None:
    """Its end is told by the terminal event; the same items can be sent again."""
    transport, session = scripted(text_reply("a"), [TextDelta("x"), FAILED], text_reply("b"))
    await ask(session, "one")
    events = await ask(session, "two")
    assert events[-1]["type"] == "response.failed"
    assert session.last is not None
    assert session.last.status == "failed"
    assert len(session.items) == 2
    await ask(session, "two")
    assert texts(transport.requests[2]) == ["one", "a", "two"]


async def test_a_stored_parent_outlives_a_failure() -> None:
    """With store: true the server still has it."""
    refusal = ApiError("no", param="input[0]")
    transport, session = scripted(text_reply("a"), refusal, text_reply("b"), store=True)
    await ask(session, "one")
    with pytest.raises(ApiError):
        await ask(session, "two")
    await ask(session, "three")
    assert transport.requests[2]["previous_response_id"] == "resp_1"
    assert texts(transport.requests[2]) == ["three"]


async def test_a_prewarm_becomes_part_of_the_conversation() -> None:
    """It is no round trip of the figures."""
    transport, session = scripted(text_reply("unused"), text_reply("a"))
    await session.prewarm([user_message("rules")])
    await ask(session, "go")
    assert transport.requests[0]["generate"] is False
    assert transport.requests[1]["previous_response_id"] == "resp_1"
    assert texts(transport.requests[1]) == ["go"]
    assert (len(session.items), len(session.trips)) == (3, 1)


async def test_without_continuation_a_prewarm_only_keeps_the_items() -> None:
    """They travel with the first request."""
    transport, session = scripted(text_reply("a"), full_resend=True)
    await session.prewarm([user_message("rules")])
    await ask(session, "go")
    assert texts(transport.requests[0]) == ["rules", "go"]


async def test_the_figures_of_a_round_trip() -> None:
    """From just before sending to the first output event and to the end; usage as told."""
    clock = ManualClock()

    def reply(_request: dict[str, Any]) -> Reply:
        clock.advance_s(2)
        return [TextDelta("a"), TextDelta("b"), Finished(FinishReason.STOP, Usage(7, 5, 2))]

    session = Session(ScriptedTransport(reply), model="scripted", clock=clock)
    async for event in session.respond([user_message("x")]):
        if event["type"] == "response.output_text.delta":
            clock.advance_s(1)
    (trip,) = session.trips
    assert latency.ttft_s(trip) == 2.0
    assert latency.round_trip_s(trip) == 4.0
    assert trip.num_output_events == 2
    assert latency.inter_token_latency_s(trip) == 1.0
    assert (trip.input_tokens, trip.cached_tokens, trip.output_tokens) == (7, 5, 2)
    assert trip.engine_first_token_s is None


@pytest.mark.parametrize("kind", KINDS)
async def test_the_servers_timing_reaches_the_figures(kind: str) -> None:
    """Over every transport: overhead can be computed, and is what is left of the time."""
    async with running(kind) as rig:
        session = Session(rig.transport, model="scripted")
        await session.connect()
        await ask(session, "hi")
        (trip,) = session.trips
        overhead = latency.round_trip_overhead_s(trip)
        ttft = latency.ttft_s(trip)
        assert overhead is not None
        assert ttft is not None
        assert 0 < overhead <= ttft
        assert trip.server_s is not None


def count(request: GenerationRequest) -> Answer:
    """How many items the model sees."""
    return text_answer(str(len(request.context())))


def words(events: list[Event]) -> str:
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", [False, True])
async def test_the_model_sees_the_whole_conversation(kind: str, store: bool) -> None:
    """Whether by id or by resending."""
    async with running(kind, count) as rig:
        session = Session(rig.transport, model="scripted", store=store)
        assert [words(await ask(session, "x")) for _ in range(3)] == ["1", "3", "5"]
        assert session.num_recoveries == 0


async def test_a_lost_socket_is_recovered_with_the_whole_context() -> None:
    """With a real server that has forgotten the unstored parent."""
    async with running("websocket", count) as rig:
        session = Session(rig.transport, model="scripted")
        await ask(session, "x")
        rig.server.abort_connections()
        assert words(await ask(session, "x")) == "3"
        assert words(await ask(session, "x")) == "5"
        assert session.num_recoveries == 1


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_a_response_lost_in_the_middle_is_read_on(kind: str) -> None:
    """The caller sees one response and each event once; what comes next is a chain of its own."""
    hold = Hold()
    script = in_turn([[TextDelta("a"), hold, TextDelta("b")], text_answer("c")])
    async with running(kind, script) as rig:
        session = Session(rig.transport, model="scripted")
        events: list[Event] = []
        async for event in session.respond([user_message("x")]):
            events.append(event)
            if event["type"] == "response.output_text.delta" and event["delta"] == "a":
                rig.server.abort_connections()
                hold.release.set()
        assert words(events) == "ab"
        numbers = [event["sequence_number"] for event in events]
        assert numbers == list(range(len(events)))
        assert (session.num_resumed, session.num_recoveries) == (1, 0)
        assert words(await ask(session, "y")) == "c"
        assert len(rig.engine.requests) == 2
        assert session.num_recoveries == 0, "no parent is named that is known to be gone"


async def test_what_its_server_has_no_more_is_not_repeated() -> None:
    """A tool may already run; only the caller can say whether to ask again."""
    hold = Hold()
    script = in_turn([[TextDelta("a"), hold], text_answer("b")])
    async with running("websocket", script) as rig:
        session = Session(rig.transport, model="scripted")
        stream = session.respond([user_message("x")])
        async for event in stream:
            if event["type"] == "response.output_text.delta":
                break
        rig.endpoint.backstage.streams = Streams()
        rig.server.abort_connections()
        with pytest.raises(TransportError, match="closed the connection"):
            await anext(stream)
        assert len(rig.engine.requests) == 1
        assert session.items == []


async def test_a_closed_session_looks_for_nothing() -> None:
    """Its transport is not opened again for the rest of a response."""
    hold = Hold()
    async with running("websocket", in_turn([[TextDelta("a"), hold]])) as rig:
        session = Session(rig.transport, model="scripted")
        stream = session.respond([user_message("x")])
        async for event in stream:
            if event["type"] == "response.output_text.delta":
                break
        await session.close()
        with pytest.raises(TransportError):
            await anext(stream)


async def test_an_aside_is_no_part_of_the_conversation() -> None:
    transport, session = scripted(text_reply("a"), text_reply("aside"), text_reply("b"))
    await ask(session, "one")
    answer = await session.ask_aside([user_message("by the way")], {"tool_choice": "none"})
    assert [item.text for item in answer.output_items if isinstance(item, Message)] == ["aside"]
    assert transport.requests[1]["previous_response_id"] == "resp_1"
    assert transport.requests[1]["tool_choice"] == "none"
    await ask(session, "two")
    assert texts(transport.requests[2]) == ["one", "a", "two"]
    assert "tool_choice" not in transport.requests[2]


async def test_a_conversation_can_be_replaced() -> None:
    transport, session = scripted(text_reply("a"), text_reply("b"), text_reply("c"))
    await ask(session, "one")
    session.replace([user_message("short")])
    await ask(session, "two")
    assert texts(transport.requests[1]) == ["short", "two"]
    await ask(session, "three")
    assert texts(transport.requests[2]) == ["three"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_early_close_cancels_and_leaves_the_response_out(kind: str) -> None:
    """The next request brings what the conversation really is."""
    script = in_turn([text_answer("a"), [TextDelta("b"), Hold()], text_answer("c")])
    async with running(kind, script) as rig:
        session = Session(rig.transport, model="scripted")
        await ask(session, "one")
        async with aclosing(session.respond([user_message("two")])) as events:
            async for event in events:
                if event["type"] == "response.output_text.delta":
                    break
        assert words(await ask(session, "three")) == "c"
        assert len(rig.engine.requests[2].context()) == 3
        assert session.num_recoveries == 0


@pytest.mark.parametrize("kind", ["in_memory", "websocket"])
async def test_an_early_end_keeps_what_was_said(kind: str) -> None:
    """Its events go on to the terminal one, and the next request brings only what is new; half a
    call is dropped, and can be said again."""
    call: Answer = [ToolCallStarted("c", "f", True), ToolCallDelta("half"), Hold()]
    script = in_turn([[TextDelta("b"), *call], text_answer("ok")])
    async with running(kind, script) as rig:
        session = Session(rig.transport, model="scripted")
        assert session.end_early() is False
        kinds = []
        async for event in session.respond([user_message("one")]):
            kinds.append(event["type"])
            if event["type"] == "response.custom_tool_call_input.delta":
                assert session.end_early() is True
        assert kinds[-1] == "response.incomplete"
        (message,) = session.items[1:]
        assert isinstance(message, Message)
        assert message.text == "b"
        half = CustomToolCall("c", "f", "half")
        assert words(await ask(session, half, CustomToolCallOutput("c", "no"))) == "ok"
        assert len(rig.engine.requests[1].items) == 2
        assert len(rig.engine.requests[1].context()) == 4
        assert session.num_recoveries == 0


async def test_other_servers_are_not_asked_for_an_early_end() -> None:
    """Neither those that offer nothing, nor over a transport that cannot."""
    _, session = scripted(text_reply("a"))
    async for _ in session.respond([]):
        assert session.end_early() is False


async def test_a_server_that_breaks_the_protocol_is_a_transport_error() -> None:
    """Acting on such events would mean acting on wrong data."""

    class Wrong(ScriptedTransport):
        async def stream(self, request: dict[str, Any]):  # type: ignore[no-untyped-def]
            yield {"type": "response.output_text.delta", "output_index": 4, "delta": "x"}

    session = Session(Wrong([]), model="scripted")
    with pytest.raises(TransportError, match="broke the protocol"):
        await ask(session, "x")
    await session.close()
