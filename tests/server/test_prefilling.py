"""Hints make the engine read early, and change nothing else."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.wire import Wire
from tightloop.engine.interface import GenerationRequest, ModelInfo, Sink
from tightloop.engine.scripted import (
    Answer,
    Hold,
    ScriptedEngine,
    ScriptedGeneration,
    call_answer,
    text_answer,
)
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.protocol.items import (
    CustomToolCallOutput,
    FunctionCallOutput,
    Item,
    encode_item,
)
from tightloop.protocol.prefill import CANCEL, MAX_PREFILL_BYTES, MAX_PREFILL_CALLS, PREFILL
from tightloop.server.endpoint import Endpoint
from tightloop.server.prefilling import NUM_AT_WORK, Output


class Early(ScriptedEngine):
    """Says that it prefills early; each such request is held until the test lets it end."""

    def __init__(self, *answers: Answer, is_able: bool = True) -> None:
        self.answers = list(answers)
        self.hints: list[tuple[GenerationRequest, Hold]] = []
        self.num_cancelled = 0
        self.num_at_work = 0
        self.news = asyncio.Event()
        self.end: Finished | None = None
        self._is_able = is_able
        super().__init__(self._answer)

    def models(self) -> Sequence[ModelInfo]:
        return [ModelInfo("scripted", prefills_early=self._is_able)]

    def submit(self, request: GenerationRequest, sink: Sink) -> ScriptedGeneration:
        if not request.is_open:
            return super().submit(request, sink)
        hold = Hold()
        self.hints.append((request, hold))
        self.num_at_work += 1
        self.news.set()
        self.answers.insert(0, [hold, *([self.end] if self.end else [])])

        def watched(deltas: Sequence[Any]) -> None:
            self.num_cancelled += deltas[-1].reason is FinishReason.CANCELLED
            self.num_at_work -= 1
            self.news.set()
            sink(deltas)

        return super().submit(replace(request, generate=True), watched)

    def _answer(self, _request: GenerationRequest) -> Answer:
        return self.answers.pop(0) if self.answers else text_answer("(the end)")

    async def until(self, num_hints: int, num_at_work: int) -> None:
        """Return once so many hints have come and so many of them are at work."""
        while (len(self.hints), self.num_at_work) != (num_hints, num_at_work):
            self.news.clear()
            await self.news.wait()

    @property
    def texts(self) -> list[list[str]]:
        """What each hint held."""
        return [
            [
                item.output
                for item in request.items
                if isinstance(item, FunctionCallOutput | CustomToolCallOutput)
            ]
            for request, _ in self.hints
        ]


CALL = call_answer("run", {"a": 1})


async def called(wire: Wire, **fields: Any) -> str:
    """The id of a response that has made a call."""
    num = len(wire.ends())
    wire.create("go", **fields)
    end = await wire.end(num + 1)
    name: str = end["response"]["id"]
    return name


def hint(wire: Wire, parent: str, delta: str, offset: int = 0, **fields: Any) -> None:
    event = {"type": PREFILL, "previous_response_id": parent, "call_id": "call_1"}
    wire.send({**event, "delta": delta, "offset": offset, **fields})


def output(text: str, call_id: str = "call_1") -> list[dict[str, str]]:
    return [{"type": "function_call_output", "call_id": call_id, "output": text}]


async def test_a_hint_becomes_an_open_request_with_the_parents_settings() -> None:
    """It generates nothing, has the parent's tools and instructions, and is never answered."""
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    tools = [{"type": "function", "name": "run"}]
    parent = await called(wire, instructions="be brief", tools=tools)
    num_events = len(wire.events)
    hint(wire, parent, "so far")
    ((request, hold),) = engine.hints
    assert (request.is_open, request.generate) == (True, False)
    assert request.instructions == "be brief"
    assert [tool.name for tool in request.tools] == ["run"]  # type: ignore[union-attr]
    assert request.parent is not None
    assert parent == request.parent.id
    assert (FunctionCallOutput("call_1", "so far"),) == request.items
    hold.release.set()
    wire.create("again")
    await wire.end(2)
    assert num_events < len(wire.events)
    assert {"response.prefill", "error"}.isdisjoint(wire.types())


async def test_one_is_at_work_and_what_comes_meanwhile_goes_together() -> None:
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    for offset, piece in enumerate("abcd"):
        hint(wire, parent, piece, offset)
    assert engine.texts == [["a"]]
    engine.hints[0][1].release.set()
    await engine.until(2, 1)
    assert engine.texts == [["a"], ["abcd"]]
    engine.hints[1][1].release.set()
    hint(wire, parent, "", 4)
    await engine.until(2, 0)
    assert len(engine.hints) == 2


async def test_the_create_stops_it_and_does_not_wait() -> None:
    """What was at work is cancelled; a hint that comes late is ignored."""
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    hint(wire, parent, "so far")
    await engine.hints[0][1].reached.wait()
    wire.create(input=output("so far and on"), previous_response_id=parent)
    hint(wire, parent, "late", 6)
    end = await wire.end(2)
    assert end["type"] == "response.completed"
    assert (len(engine.hints), engine.num_cancelled) == (1, 1)
    hint(wire, parent, "later still", 0)
    assert len(engine.hints) == 1


async def test_hints_while_the_parent_is_still_being_made_are_kept_for_its_end() -> None:
    """A tool starts when its call is complete, which is before the response is."""
    hold = Hold()
    engine = Early([*CALL, hold])
    wire = Wire(Endpoint(engine))
    wire.create("go")
    await hold.reached.wait()
    await wire.until(lambda: "response.output_item.done" in wire.types())
    parent = wire.events[0]["response"]["id"]
    hint(wire, parent, "early")
    assert engine.hints == []
    hold.release.set()
    await wire.end()
    assert engine.texts == [["early"]]


async def test_outputs_are_in_the_order_of_their_calls() -> None:
    """A later one is of use once those before it are whole."""
    second = call_answer("say", "free text", "call_2")
    engine = Early([*CALL, *second])
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    hint(wire, parent, "two", call_id="call_2")
    assert engine.hints == []
    hint(wire, parent, "one", done=True)
    assert engine.texts == [["one", "two"]]
    assert isinstance(engine.hints[0][0].items[1], CustomToolCallOutput)
    engine.hints[0][1].release.set()
    await engine.until(1, 0)
    hint(wire, parent, "two", done=True, call_id="call_2")
    assert len(engine.hints) == 1, "nothing is open: the create is on its way"


async def test_lanes_do_not_mix() -> None:
    engine = Early(CALL, CALL)
    wire = Wire(Endpoint(engine))
    first = await called(wire)
    second = await called(wire, stream_id="b")
    hint(wire, first, "in a")
    hint(wire, second, "in b", stream_id="b")
    hint(wire, second, "wrong lane")
    hint(wire, second, "no such lane", stream_id="c")
    assert engine.texts == [["in a"], ["in b"]]


async def test_only_so_many_are_at_work_and_the_others_follow() -> None:
    """However many lanes: requests that are answered find room."""
    names = [f"lane{n}" for n in range(NUM_AT_WORK + 2)]
    engine = Early(*[CALL for _ in names])
    wire = Wire(Endpoint(engine))
    parents = {name: await called(wire, stream_id=name) for name in names}
    for name, parent in parents.items():
        hint(wire, parent, name, stream_id=name)
    assert len(engine.hints) == NUM_AT_WORK
    wire.create("next", stream_id=names[-1])  # it no longer waits
    for _, hold in list(engine.hints):
        hold.release.set()
    await engine.until(NUM_AT_WORK + 1, 1)
    assert [names[-2]] == engine.texts[-1]


async def test_what_cannot_be_used_is_ignored() -> None:
    """Unknown parents and calls, gaps, split characters, malformed events: no answer, no harm."""
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    num_events = len(wire.events)
    hint(wire, "resp_unknown", "x")
    hint(wire, parent, "x", call_id="call_unknown")
    hint(wire, parent, "x", offset=3)
    hint(wire, parent, "x", offset=-3)
    wire.send(b'{"type": "response.prefill", "call_id": 3}')
    wire.send(b'{"type": "response.prefill", "delta": "\\ud800"}')
    wire.create("again")
    await wire.end(2)
    assert engine.hints == []
    assert "error" not in wire.types()
    assert wire.types()[num_events] == "response.created"


async def test_texts_are_bounded() -> None:
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    hint(wire, parent, "x" * MAX_PREFILL_BYTES + "y")
    assert engine.hints == []
    hint(wire, parent, "x" * MAX_PREFILL_BYTES)
    hint(wire, parent, "y", offset=MAX_PREFILL_BYTES)
    engine.hints[0][1].release.set()
    await engine.until(1, 0)


async def test_calls_are_bounded() -> None:
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    for n in range(MAX_PREFILL_CALLS):
        hint(wire, parent, "x", call_id=f"made up {n}")
    hint(wire, parent, "x")
    assert engine.hints == []


async def test_a_text_that_changes_is_read_again() -> None:
    """A piece takes the place of everything from its offset on."""
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    hint(wire, parent, "abcdef")
    hint(wire, parent, "X", 2)
    engine.hints[0][1].release.set()
    await engine.until(2, 1)
    assert engine.texts == [["abcdef"], ["abX"]]


async def test_settings_of_a_hint_come_before_the_parents() -> None:
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire, instructions="old")
    hint(wire, parent, "x", model="scripted", instructions="new")
    assert engine.hints[0][0].instructions == "new"


@pytest.mark.parametrize("is_goodbye", [True, False])
async def test_the_end_of_the_connection_ends_it(is_goodbye: bool) -> None:
    engine = Early(CALL)
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    hint(wire, parent, "so far")
    await engine.hints[0][1].reached.wait()
    wire.session.close(is_goodbye=is_goodbye)
    await engine.until(1, 0)
    assert engine.num_cancelled == 1
    hint(wire, parent, "more", 6)
    assert len(engine.hints) == 1


async def test_an_engine_that_cannot_is_not_asked() -> None:
    """Nor does the connection offer it."""
    engine = Early(CALL, is_able=False)
    wire = Wire(Endpoint(engine))
    assert frozenset({CANCEL}) == wire.session.capabilities
    assert frozenset({CANCEL, PREFILL}) == Wire(Endpoint(Early())).session.capabilities
    hint(wire, await called(wire), "x")
    assert engine.hints == []


async def test_after_a_failure_no_more_is_tried_for_this_parent() -> None:
    """It is too long for the context, say. The next parent has another chance."""
    engine = Early(CALL, CALL)
    engine.end = Finished(FinishReason.ERROR, Usage(), None, "context_length_exceeded", "too long")
    wire = Wire(Endpoint(engine))
    parent = await called(wire)
    hint(wire, parent, "x")
    engine.hints[0][1].release.set()
    await engine.until(1, 0)
    parent = await called(wire, previous_response_id=parent, input=output("xy"))
    hint(wire, parent, "again")
    assert engine.texts == [["x"], ["again"]]


@settings(max_examples=60)
@given(st.text(), st.lists(st.tuples(st.integers(0, 12), st.text(max_size=4)), max_size=8))
def test_pieces_in_any_place(start: str, pieces: list[tuple[int, str]]) -> None:
    """An output is always text, and as long as the last piece that fitted says."""
    output = Output()
    expected = start.encode()
    assert output.take(0, expected, is_done=False)
    for offset, piece in pieces:
        whole = expected[:offset] + piece.encode()
        fits = offset <= len(expected) and _is_text(expected[:offset])
        assert fits == output.take(offset, piece.encode(), is_done=False)
        expected = whole if fits else expected
        assert expected.decode() == output.text


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.text("ab\n", max_size=5)), max_size=5))
async def test_responses_and_stored_items_are_as_without_hints(
    pieces: list[tuple[int, str]],
) -> None:
    """Whatever was told early, right or wrong."""

    async def converse(told: list[tuple[int, str]]) -> tuple[Any, Any, list[str]]:
        engine = Early(CALL, text_answer("done"))
        endpoint = Endpoint(engine)
        wire = Wire(endpoint)
        parent = await called(wire)
        for offset, piece in told:
            hint(wire, parent, piece, offset)
        wire.create(input=output("aaa\nb"), previous_response_id=parent)
        end = await wire.end(2)
        record = endpoint.conversations.recall(end["response"]["id"])
        assert record is not None
        shown = [item["content"] for item in end["response"]["output"]]
        return record.node.items, (end["response"]["usage"], shown), wire.types()

    plain, hinted = await converse([]), await converse(pieces)
    assert [item.output for item in plain[0] if isinstance(item, FunctionCallOutput)] == ["aaa\nb"]
    assert without_ids(plain[0]) == without_ids(hinted[0])
    assert plain[1] == hinted[1]
    assert plain[2] == hinted[2]


def without_ids(items: Sequence[Item]) -> list[Any]:
    return [{**encode_item(item), "id": None} for item in items]
