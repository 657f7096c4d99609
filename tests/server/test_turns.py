"""One turn: what is written when, and what is promised by it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.server.wire import Wire, text_of
from tightloop.engine.interface import Generation, GenerationRequest, Sink
from tightloop.engine.scripted import (
    Answer,
    Hold,
    ScriptedEngine,
    call_answer,
    in_turn,
    text_answer,
)
from tightloop.protocol.deltas import (
    EngineTiming,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.items import decode_input
from tightloop.server.conversations import Conversations
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Row, Store, StoreError
from tightloop.trace.clock import ManualClock


def scripted(*answers: Answer) -> Endpoint:
    return Endpoint(ScriptedEngine(in_turn(answers)))


async def test_created_leaves_before_the_engine_has_anything() -> None:
    """A client sees at once that it is being served."""
    hold = Hold()
    wire = Wire(scripted([hold, TextDelta("x")]))
    wire.create()
    assert wire.types() == ["response.created", "response.in_progress"]
    hold.release.set()
    assert text_of(await wire.end()) == "x"


async def test_a_batch_is_one_write_and_the_first_is_not_held_back() -> None:
    """The first token leaves alone, the rest as the engine batches it."""
    hold = Hold()
    wire = Wire(scripted([TextDelta("a"), hold, TextDelta("b"), TextDelta("c")]))
    wire.create(store=False)
    await hold.reached.wait()
    assert [event["type"] for event in wire.batches[1]] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
    ]
    hold.release.set()
    await wire.end()
    assert len(wire.batches) == 3
    assert [event["type"] for event in wire.batches[2]] == [
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_sequence_numbers_count_from_zero_without_gaps() -> None:
    """Across every batch of a response."""
    wire = Wire(scripted(call_answer("shell", {"cmd": "ls"})))
    wire.create()
    await wire.end()
    assert [event["sequence_number"] for event in wire.events] == list(range(len(wire.events)))


class RecordingStore(Store):
    """Notes what was on the wire when a commit began; fails when told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.wire: Wire | None = None
        self.seen: list[str] = []
        self.error: Exception | None = None

    async def save(self, rows: Sequence[Row], **options: Any) -> None:
        if self.wire is not None:
            self.seen = self.wire.types()
        if self.error is not None:
            raise self.error
        await super().save(rows, **options)


async def stored(tmp_path: Path, *answers: Answer) -> tuple[Endpoint, RecordingStore, Wire]:
    store = RecordingStore(tmp_path / "db")
    endpoint = Endpoint(ScriptedEngine(in_turn(answers)), store)
    await endpoint.start()
    store.wire = Wire(endpoint)
    return endpoint, store, store.wire


async def test_a_stored_response_is_committed_before_completed_is_sent(tmp_path: Path) -> None:
    """But its items are on the wire by then, so that tools start without waiting for the disk."""
    endpoint, store, wire = await stored(tmp_path, call_answer("shell", {}))
    wire.create(store=True)
    end = await wire.end()
    assert store.seen[-1] == "response.output_item.done"
    assert await endpoint.conversations.body(end["response"]["id"]) is not None
    await endpoint.close()


async def test_an_unstored_response_touches_no_disk(tmp_path: Path) -> None:
    """store: false means that."""
    endpoint, store, wire = await stored(tmp_path, text_answer("x"))
    wire.create(store=False)
    end = await wire.end()
    assert store.seen == []
    assert await endpoint.conversations.body(end["response"]["id"]) is None
    await endpoint.close()


async def test_a_response_that_cannot_be_stored_fails(tmp_path: Path) -> None:
    """Completed would be a promise that was not kept; the sequence stays legal."""
    endpoint, store, wire = await stored(tmp_path, text_answer("x"), text_answer("y"))
    store.error = StoreError("disk full")
    wire.create(store=True)
    end = await wire.end()
    assert end["type"] == "response.failed"
    assert end["response"]["status"] == "failed"
    assert end["response"]["error"] == {"code": "store_failed", "message": "disk full"}
    assert end["sequence_number"] == len(wire.events) - 1
    wire.create(previous_response_id=end["response"]["id"])
    assert (await wire.end(2))["error"]["code"] == "previous_response_not_found"
    await endpoint.close()


async def test_closing_waits_for_commits_under_way(tmp_path: Path) -> None:
    """What a client will have been told is completed is on disk, even when it is leaving."""
    endpoint, store, wire = await stored(tmp_path, text_answer("x"))
    wire.create(store=True)
    await wire.until(lambda: "response.output_item.done" in wire.types())
    await endpoint.close()
    reader = Store(store.path)
    await reader.open()
    assert await reader.get(wire.events[0]["response"]["id"]) is not None
    await reader.close()


async def test_silence_is_filled_with_in_progress() -> None:
    """Clients' idle timers count events; the count of events goes on."""
    hold = Hold()
    endpoint = Endpoint(ScriptedEngine(in_turn([[hold, TextDelta("x")]])), heartbeat_s=0.001)
    wire = Wire(endpoint)
    wire.create()
    await wire.until(lambda: wire.types().count("response.in_progress") >= 3)
    hold.release.set()
    await wire.end()
    assert [event["sequence_number"] for event in wire.events] == list(range(len(wire.events)))


async def test_a_cancelled_response_ends_incomplete_and_can_be_continued() -> None:
    """What was said stays in the conversation."""
    wire = Wire(scripted([TextDelta("half"), Hold(), TextDelta("never")], text_answer("on")))
    wire.create(store=False)
    await wire.until(lambda: "response.output_text.delta" in wire.types())
    wire.send({"type": "response.cancel", "response_id": wire.events[0]["response"]["id"]})
    end = await wire.end()
    assert (end["type"], text_of(end)) == ("response.incomplete", "half")
    wire.create(previous_response_id=end["response"]["id"], store=False)
    assert text_of(await wire.end(2)) == "on"


async def test_an_engine_refusal_becomes_a_failed_response() -> None:
    """With the engine's code, and without a node to continue from."""
    refusal = Finished(FinishReason.ERROR, Usage(), None, "context_length_exceeded", "too long")
    wire = Wire(scripted([refusal], text_answer("x")))
    wire.create()
    end = await wire.end()
    assert end["response"]["error"] == {"code": "context_length_exceeded", "message": "too long"}
    wire.create(previous_response_id=end["response"]["id"])
    assert (await wire.end(2))["error"]["param"] == "previous_response_id"


async def test_an_engine_that_breaks_the_order_ends_its_response_only() -> None:
    """The client gets a legal end; the next response is fine."""
    wire = Wire(scripted([TextDelta("a"), ToolCallDelta("no call is open")], text_answer("fine")))
    wire.create()
    end = await wire.end()
    assert (end["type"], end["response"]["error"]["code"]) == ("response.failed", "server_error")
    wire.create()
    assert text_of(await wire.end(2)) == "fine"


class BrokenEngine(ScriptedEngine):
    """Raises where the contract says that it must not."""

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:  # type: ignore[override]
        raise RuntimeError("no memory left")


@pytest.mark.parametrize(("generate", "end"), [(True, "failed"), (False, "completed")])
async def test_an_engine_that_raises_ends_its_response_only(generate: bool, end: str) -> None:
    """A prewarm is only a hint: its failure shows when the real request comes."""
    wire = Wire(Endpoint(BrokenEngine()))
    wire.create(generate=generate)
    assert (await wire.end())["type"] == f"response.{end}"


class EagerEngine(ScriptedEngine):
    """Answers from inside ``submit``, with timing marks of its own, 10 us later."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        super().__init__()
        self._manual = clock or ManualClock()

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:  # type: ignore[override]
        self.requests.append(request)
        marks = (11_000, 13_000, 17_000, 19_000)
        timing = EngineTiming(*marks, 5, 2, 1_500, first_delta_ns=18_000)
        self._manual.advance_s(10e-6)
        sink([TextDelta("x"), Finished(FinishReason.STOP, Usage(5, 3, 2), timing)])
        return EagerGeneration()


class EagerGeneration:
    """Over before it was returned."""

    def cancel(self) -> None:
        """Too late."""


async def test_an_engine_may_answer_from_within_submit() -> None:
    """Order on the wire does not depend on when the engine answers."""
    wire = Wire(Endpoint(EagerEngine()))
    wire.create(store=False)
    assert wire.types()[0] == "response.created"
    assert wire.types()[-1] == "response.completed"
    assert len(wire.batches) == 1


async def test_timing_tells_engine_and_server_apart() -> None:
    """Only when asked for; in seconds; the server's share is what lies outside the engine."""
    clock = ManualClock(10_000)
    wire = Wire(Endpoint(EagerEngine(clock), now_ns=clock.now_ns))
    wire.create(store=False, client_metadata={"tightloop.timing": "1"})
    timing = next(event for event in wire.events if event["type"] == "tightloop:timing")
    assert timing["timing"] == pytest.approx(
        {
            "server_s": 2e-6,  # received at 10000, submitted at 11000; finished at 19000, now 20000
            "queue_s": 2e-6,
            "prefill_s": 4e-6,
            "decode_s": 2e-6,
            "engine_first_token_s": 5e-6,
            "decode_steps_s": 1.5e-6,
            "num_decode_steps": 2,
            "num_draft_tokens": 0,
            "num_accepted_tokens": 0,
        }
    )
    parts = ("server_s", "queue_s", "prefill_s", "decode_s")
    assert sum(timing["timing"][part] for part in parts) == pytest.approx(10e-6)
    assert wire.types()[-2:] == ["tightloop:timing", "response.completed"]


async def test_usage_is_the_engines() -> None:
    """Constant or invented usage drives clients into endless compaction."""
    wire = Wire(Endpoint(EagerEngine()))
    wire.create(store=False)
    usage = (await wire.end())["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (5, 2)
    assert usage["input_tokens_details"]["cached_tokens"] == 3


async def test_a_prewarm_is_answered_at_once_and_prefilled_behind() -> None:
    """Clients wait for this answer; its id is a parent, its usage claims nothing."""
    engine = ScriptedEngine(in_turn([text_answer("x")]))
    wire = Wire(Endpoint(engine))
    wire.create("rules", generate=False, store=False)
    end = wire.ends()[0]["response"]
    assert (end["status"], end["output"], end["usage"]["input_tokens"]) == ("completed", [], 0)
    assert [request.generate for request in engine.requests] == [False]
    wire.create("go", previous_response_id=end["id"], store=False)
    assert text_of(await wire.end(2)) == "x"
    assert len(engine.requests[1].context()) == 2


async def test_a_prewarm_reaches_the_engine_before_the_turn_that_waits_behind_it() -> None:
    """Otherwise the turn would prefill everything itself."""
    hold = Hold()
    engine = ScriptedEngine(in_turn([[hold], text_answer("b"), text_answer("c")]))
    wire = Wire(Endpoint(engine))
    wire.create("first", store=False)
    wire.create("rules", generate=False, store=False)
    wire.create("third", store=False)
    hold.release.set()
    await wire.end(3)
    assert [request.generate for request in engine.requests] == [True, False, True]


async def test_the_request_reaches_the_engine_as_it_was_asked() -> None:
    """What it leaves open stays open; tools that came as items stay for later turns."""
    engine = ScriptedEngine()
    wire = Wire(Endpoint(engine))
    late = {"type": "function", "name": "late"}
    wire.create(
        store=False,
        instructions="be brief",
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_output_tokens=99,
        tools=[{"type": "function", "name": "shell", "parameters": {}}],
        input=[{"type": "additional_tools", "role": "developer", "tools": [late]}],
    )
    end = await wire.end()
    wire.create(store=False, previous_response_id=end["response"]["id"])
    await wire.end(2)
    first, second = engine.requests
    assert [tool.name for tool in first.tools if hasattr(tool, "name")] == ["shell", "late"]
    assert [tool.name for tool in second.tools if hasattr(tool, "name")] == ["late"]
    assert (first.instructions, second.instructions) == ("be brief", None)
    sampling = first.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, 7)
    assert first.max_output_tokens == 99
    assert second.sampling.temperature is None
    assert second.parent is not None
    assert second.parent.id == end["response"]["id"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": "gpt-9"}, "model_not_found", "model"),
        ({"previous_response_id": "resp_x"}, "previous_response_not_found", "previous_response_id"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "invalid_request",
            "input[0].call_id",
        ),
        ({"temperature": 9}, "invalid_value", "temperature"),
    ],
)
async def test_a_bad_request_is_refused_before_anything_is_created(
    fields: dict[str, object], code: str, param: str
) -> None:
    """One error event with status and field; no response exists."""
    wire = Wire(scripted())
    wire.create(**fields)  # type: ignore[arg-type]
    end = await wire.end()
    assert (end["type"], end["status"]) == ("error", 400)
    assert (end["error"]["code"], end["error"]["param"]) == (code, param)
    assert len(wire.events) == 1


async def test_what_came_with_a_refused_end_is_written_all_the_same() -> None:
    """The engine says "stop" with a call still open: the text before it must not be lost."""
    stop = Finished(FinishReason.STOP, Usage())
    wire = Wire(scripted([TextDelta("a"), ToolCallStarted("call_1", "shell", False), stop]))
    wire.create()
    end = await wire.end()
    assert end["response"]["error"]["code"] == "server_error"
    assert wire.types().count("response.output_text.delta") == 1
    assert [event["sequence_number"] for event in wire.events] == list(range(len(wire.events)))


OPAQUE = {
    "number": b"123456789012345678901234567890",
    "float": b"1e400",
    "depth": b"[" * 400 + b"]" * 400,
}


@pytest.mark.parametrize("value", OPAQUE.values(), ids=OPAQUE.keys())
async def test_opaque_input_is_stored_whatever_it_holds(tmp_path: Path, value: bytes) -> None:
    """What is passed through untouched must not fail on the way to the disk."""
    endpoint, _, wire = await stored(tmp_path, text_answer("x"))
    item = b'{"type":"weird","n":%b}' % value
    part = b'{"role":"user","content":[{"type":"weird","n":%b}]}' % value
    wire.send(b'{"type":"response.create","model":"scripted","input":[%b,%b]}' % (item, part))
    end = await wire.end()
    assert end["type"] == "response.completed"
    await endpoint.close()
    store = Store(tmp_path / "db")
    await store.open()
    again = Conversations(store)
    record = await again.load(end["response"]["id"])
    assert record is not None
    assert record.node.items[:2] == decode_input(b"[%b,%b]" % (item, part))
    await again.close()


async def test_a_commit_that_breaks_still_ends_its_response(tmp_path: Path) -> None:
    """Whatever the reason: the client must not wait for ever, nor its lane."""
    endpoint, store, wire = await stored(tmp_path, text_answer("x"), text_answer("y"))
    store.error = RuntimeError("a bug")
    wire.create(store=True)
    end = await wire.end()
    assert (end["type"], end["response"]["error"]["code"]) == ("response.failed", "server_error")
    assert [event["sequence_number"] for event in wire.events] == list(range(len(wire.events)))
    store.error = None
    wire.create(store=True)
    assert (await wire.end(2))["type"] == "response.completed"
    await endpoint.close()


async def test_any_depth_is_answered() -> None:
    """Near the interpreter's limit something can be decoded that can no longer be encoded."""
    wire = Wire(Endpoint(ScriptedEngine()))
    limit = sys.getrecursionlimit()
    for number, depth in enumerate(range(limit - 250, limit), 1):
        nested = b"[" * depth + b"]" * depth
        wire.send(b'{"type":"response.create","model":"scripted","text":{"x":%b}}' % nested)
        await wire.end(number)
    ends = wire.ends()
    refused = [end["error"]["code"] for end in ends if end["type"] == "error"]
    assert set(refused) == {"invalid_json"}
    assert all(end["type"] in ("error", "response.completed") for end in ends)


class RoutedEngine(ScriptedEngine):
    """Says that it is several backends."""

    def __init__(self, tier: str | None) -> None:
        end = Finished(
            FinishReason.STOP,
            Usage(),
            EngineTiming(1, 2, 3, 4),
            backend="a",
            route_reason="why",
            service_tier=tier,
        )
        super().__init__(lambda _request: [TextDelta("x"), end])


@pytest.mark.parametrize(
    ("asked", "used", "first", "last"),
    [
        (None, None, "default", "default"),
        ("auto", None, "auto", "default"),
        ("auto", "priority", "auto", "priority"),
        (None, "flex", "default", "flex"),
        ("priority", "default", "priority", "default"),
    ],
)
async def test_the_tier_at_the_end_is_the_one_that_was_used(
    asked: str | None, used: str | None, first: str, last: str
) -> None:
    """As the API does it: what was asked for at the beginning, what it was at the end."""
    wire = Wire(Endpoint(RoutedEngine(used)))
    wire.create(store=False, service_tier=asked, client_metadata={"tightloop.timing": "1"})
    end = await wire.end()
    assert wire.events[0]["response"]["service_tier"] == first
    assert end["response"]["service_tier"] == last
    timing = next(event for event in wire.events if event["type"] == "tightloop:timing")
    assert timing["route"] == {"backend": "a", "service_tier": used or "default", "reason": "why"}


async def test_a_request_may_name_how_its_backend_is_picked() -> None:
    """By its metadata; whether that is heard is the engine's to say."""
    engine = ScriptedEngine()
    wire = Wire(Endpoint(engine))
    wire.create(store=False, metadata={"tightloop.tier_policy": "only:a"})
    await wire.end()
    assert engine.requests[0].tier_policy == "only:a"
