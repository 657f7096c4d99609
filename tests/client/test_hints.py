"""Few frames, right offsets, nothing where it is not wanted."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.rig import make_transport, running
from tightloop.client.hints import GROWTH, MIN_PIECE_CHARS, QUIET_S, Hints
from tightloop.client.session import Session
from tightloop.client.transport import HintingTransport
from tightloop.engine.interface import GenerationRequest, ModelInfo, Sink
from tightloop.engine.scripted import ScriptedEngine, ScriptedGeneration, call_answer
from tightloop.governance.keys import KeyRing
from tightloop.protocol.items import FunctionCallOutput, user_message
from tightloop.protocol.prefill import MAX_PREFILL_BYTES, PREFILL
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.prefilling import Output
from tightloop.trace.clock import ManualClock


class Peer:
    """A transport to a server that may know hints; keeps them, unless it is busy."""

    def __init__(self, *names: str) -> None:
        self.capabilities = frozenset(names)
        self.events: list[dict[str, Any]] = []
        self.is_busy = False

    def hint(self, event: dict[str, Any]) -> bool:
        if not self.is_busy:
            self.events.append(event)
        return not self.is_busy

    def text(self, call_id: str = "c") -> str:
        """What a server has been told of a call's output."""
        output = Output()
        for event in self.events:
            if event["call_id"] == call_id:
                piece = event["delta"].encode()
                assert output.take(event["offset"], piece, is_done=event.get("done", False))
        return output.text


def hints(*names: str) -> tuple[Hints, Peer, ManualClock]:
    peer, clock = Peer(*names), ManualClock()
    return Hints(peer, clock), peer, clock


def test_the_first_piece_goes_at_once_and_small_ones_wait() -> None:
    """Until they are long enough together, or nothing was sent for a while."""
    told, peer, clock = hints(PREFILL)
    told.add("r", "c", "first\n")
    told.add("r", "c", "second\n")
    assert len(peer.events) == 1
    assert peer.events[0] == {
        "type": PREFILL,
        "previous_response_id": "r",
        "call_id": "c",
        "offset": 0,
        "delta": "first\n",
    }
    clock.advance_s(QUIET_S)
    told.add("r", "c", "third\n")
    assert peer.events[1]["delta"] == "second\nthird\n"
    assert peer.events[1]["offset"] == 6
    told.add("r", "c", "x" * MIN_PIECE_CHARS)
    assert len(peer.events) == 3


def test_ten_thousand_lines_make_a_few_dozen_frames() -> None:
    told, peer, _ = hints(PREFILL)
    line = "a line of output of a common length\n"
    num_lines = MAX_PREFILL_BYTES // len(line)
    for _ in range(num_lines):
        told.add("r", "c", line)
    assert num_lines > 7000
    assert len(peer.events) < 100
    unsent = num_lines * len(line) - len(peer.text())
    assert unsent <= len(peer.text()) // GROWTH + MIN_PIECE_CHARS


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=6),
            st.integers(0, 30),
            st.just(None),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_what_the_server_knows_is_the_beginning_of_what_was_told(steps: list[object]) -> None:
    """Whatever is cut off again, and whenever the connection is busy."""
    told, peer, clock = hints(PREFILL)
    text = ""
    for step in steps:
        if isinstance(step, bool):
            peer.is_busy = step
        elif step is None:
            clock.advance_s(QUIET_S)
        elif isinstance(step, int):
            text = text[:step] + "|"
            told.add("r", "c", "|", step)
        elif isinstance(step, str):
            text += step
            told.add("r", "c", step)
    clock.advance_s(QUIET_S)
    peer.is_busy = False
    told.add("r", "c", ".")
    assert peer.text() == text + "."
    told.end("r", "c", text)
    assert peer.text() == text
    assert peer.events[-1]["done"] is True


def test_another_parent_begins_anew() -> None:
    told, peer, _ = hints(PREFILL)
    told.add("r1", "c", "one")
    told.add("r2", "c", "two")
    assert [event["offset"] for event in peer.events] == [0, 0]
    told.forget()
    told.add("r2", "c", "two")
    assert peer.events[-1]["offset"] == 0


def test_an_output_that_is_too_long_is_left() -> None:
    told, peer, _ = hints(PREFILL)
    told.add("r", "c", "x" * (MAX_PREFILL_BYTES + 1))
    told.add("r", "c", "y")
    assert peer.events == []


@pytest.mark.parametrize("names", [(), ("something.else",)])
def test_a_server_that_does_not_know_it_gets_nothing(names: tuple[str, ...]) -> None:
    told, peer, _ = hints(*names)
    told.add("r", "c", "text")
    told.end("r", "c", "text")
    assert peer.events == []


def test_a_transport_that_cannot_is_left_alone() -> None:
    Hints(object(), ManualClock()).add("r", "c", "text")


class Early(ScriptedEngine):
    """Offers to read early; tells when it is asked to."""

    def __init__(self) -> None:
        super().__init__(lambda _: call_answer("run", {}))
        self.is_asked = asyncio.Event()

    def models(self) -> Sequence[ModelInfo]:
        return [replace(model, prefills_early=True) for model in super().models()]

    def submit(self, request: GenerationRequest, sink: Sink) -> ScriptedGeneration:
        if request.is_open:
            self.is_asked.set()
        return super().submit(request, sink)


@pytest.mark.parametrize("kind", ["websocket", "in_memory"])
async def test_a_session_tells_outputs_early(kind: str) -> None:
    """Pieces that come in one step of the loop go out together or one after the other."""
    engine = Early()
    endpoint = Endpoint(engine)
    server = Server(endpoint, Access(KeyRing(()), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    transport = make_transport(kind, endpoint, server.url)
    session = Session(transport, model="scripted")
    try:
        assert [event async for event in session.respond([user_message("go")])]
        session.prefill("call_1", "x")
        session.prefill("call_1", "y" * MIN_PIECE_CHARS)
        await engine.is_asked.wait()
        asked, *_ = [request for request in engine.requests if request.is_open]
        (item,) = asked.items
        assert isinstance(item, FunctionCallOutput)
        assert item.output.startswith("x")
    finally:
        await session.close()
        await server.stop(grace_s=0)


@pytest.mark.parametrize("kind", ["websocket", "in_memory"])
async def test_without_a_connection_there_is_nobody_to_tell(kind: str) -> None:
    async with running(kind) as rig:
        assert isinstance(rig.transport, HintingTransport)
        assert rig.transport.capabilities == frozenset()
        assert rig.transport.hint({"type": PREFILL}) is False


@pytest.mark.parametrize("kind", ["http", "websocket", "in_memory"])
async def test_a_session_sends_none_to_a_server_that_offers_none(kind: str) -> None:
    """The scripted engine reads nothing early; the conversation is what it would have been."""
    async with running(kind) as rig:
        session = Session(rig.transport, model="scripted")
        session.prefill("c", "before there is anything")
        assert [event async for event in session.respond([])]
        session.prefill("c", "x" * 1000)
        session.prefill_whole("c", "y")
        assert [event async for event in session.respond([])]
        assert not any(request.is_open for request in rig.engine.requests)
