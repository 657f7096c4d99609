"""Steers: accepted, pending, failed, and the response that follows by itself."""

from collections.abc import Callable, Sequence

import orjson
import pytest

from tests.server.wire import Wire, text_of
from tightloop.engine.interface import GenerationRequest, ModelInfo
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine, call_answer, text_answer
from tightloop.protocol.deltas import TextDelta
from tightloop.protocol.items import MAX_INPUT_CHARS, FunctionCallOutput, Message
from tightloop.server.endpoint import Endpoint
from tightloop.server.steering import MAX_PENDING_STEERS, MAX_STEER_BYTES


class Steered:
    """Begins a sentence and waits; once it has been steered it says what it was told."""

    def __init__(self, *, calls: bool = False) -> None:
        self.hold = Hold()
        self.requests: list[GenerationRequest] = []
        self._calls = calls

    def __call__(self, request: GenerationRequest) -> Answer:
        self.requests.append(request)
        if len(self.requests) > 1:
            texts = [item.text for item in request.items if isinstance(item, Message)]
            return text_answer(f"told: {' / '.join(texts)}")
        call = call_answer("shell", {"cmd": "ls"}) if self._calls else [TextDelta("half a")]
        return [*call, self.hold]


async def begun(script: Steered, **fields: object) -> tuple[Wire, str]:
    """A connection whose first response is held, and that response's id."""
    wire = Wire(Endpoint(ScriptedEngine(script)))
    wire.create("go", **{"store": False, **fields})
    await script.hold.reached.wait()
    return wire, wire.events[0]["response"]["id"]


def steer(wire: Wire, response_id: str, input: object = "use pytest") -> None:
    wire.send({"type": "response.steer", "previous_response_id": response_id, "input": input})


def steers(wire: Wire, kind: str) -> list[dict[str, object]]:
    return [event for event in wire.events if event["type"] == f"response.steer.{kind}"]


async def test_a_steered_response_stops_and_its_successor_follows() -> None:
    """Without another create; the settings are inherited, the parent is the stopped response."""
    script = Steered()
    wire, response_id = await begun(script, instructions="Be brief.", stream_id="a")
    steer(wire, response_id)
    steer(wire, response_id, [{"role": "user", "content": "and ruff"}])
    first, second = await wire.end(), await wire.end(2)
    accepted = steers(wire, "accepted")
    assert [event["stream_id"] for event in accepted] == ["a", "a"]
    assert first["type"] == "response.incomplete"
    assert first["response"]["incomplete_details"] == {"reason": "steered"}
    assert first["response"]["output"][0]["content"][0]["text"] == "half a"
    assert second["response"]["previous_response_id"] == response_id
    assert second["response"]["instructions"] == "Be brief."
    assert text_of(second) == "told: use pytest / and ruff"
    assert second["stream_id"] == "a"


async def test_the_successor_goes_before_what_waits_in_the_lane() -> None:
    script = Steered()
    wire, response_id = await begun(script)
    wire.create("next", store=False)
    steer(wire, response_id)
    await wire.end(3)
    assert [text_of(end) for end in wire.ends()[1:]] == ["told: use pytest", "told: next"]


async def test_every_event_of_a_steered_response_keeps_its_number() -> None:
    script = Steered()
    wire, response_id = await begun(script)
    steer(wire, response_id)
    await wire.end()
    numbers = []
    for event in wire.events:
        numbers.append(event["sequence_number"])
        if event["type"] == "response.incomplete":
            break
    assert numbers == list(range(len(numbers)))


async def test_a_response_that_called_a_tool_ends_first_and_the_steer_waits() -> None:
    """For the outputs it owes; then the steered input stands in front of the create's own."""
    script = Steered(calls=True)
    wire, response_id = await begun(script)
    steer(wire, response_id)
    assert steers(wire, "accepted")
    script.hold.release.set()
    end = await wire.end()
    assert end["type"] == "response.completed"
    await wire.until(lambda: steers(wire, "pending"))
    (pending,) = steers(wire, "pending")
    call_id = end["response"]["output"][0]["call_id"]
    stub = {"type": "function_call_output", "call_id": call_id, "name": "shell"}
    assert pending["required_input"] == [stub]
    assert pending["reason"] == "waiting_for_required_input"
    assert pending["sequence_number"] == end["sequence_number"] + 1
    output = {"type": "function_call_output", "call_id": call_id, "output": "a.py"}
    wire.create(store=False, previous_response_id=response_id, input=[output])
    assert text_of(await wire.end(2)) == "told: use pytest"
    assert [type(item) for item in script.requests[1].items] == [Message, FunctionCallOutput]


async def completed(wire: Wire) -> str:
    wire.create("a")
    return str((await wire.end())["response"]["id"])


async def unknown(_wire: Wire) -> str:
    return "resp_none"


@pytest.mark.parametrize(
    ("target", "input", "code"),
    [
        (completed, "x", "response_already_completed"),
        (unknown, "x", "response_not_found"),
        (unknown, [], "invalid_input"),
        (unknown, [{"role": "assistant", "content": "x"}], "invalid_input"),
    ],
)
async def test_a_steer_that_fails_gives_its_input_back(
    target: Callable[[Wire], object], input: object, code: str
) -> None:
    wire = Wire(Endpoint(ScriptedEngine()))
    response_id = await target(wire)  # type: ignore[misc]
    steer(wire, response_id, input)
    (failed,) = steers(wire, "failed")
    assert failed["error"]["code"] == code  # type: ignore[index]
    assert failed["steer"] == {"previous_response_id": response_id, "input": input}


async def test_steers_of_one_response_are_bounded() -> None:
    script = Steered(calls=True)
    wire, response_id = await begun(script)
    for n in range(MAX_PENDING_STEERS + 1):
        steer(wire, response_id, f"s{n}")
    assert len(steers(wire, "accepted")) == MAX_PENDING_STEERS
    assert steers(wire, "failed")[0]["error"]["code"] == "too_many_pending_steers"  # type: ignore[index]
    wire.session.close()


async def test_automatic_compaction_and_steering_exclude_each_other() -> None:
    script = Steered()
    management = [{"type": "compaction", "compact_threshold": 100_000}]
    wire, response_id = await begun(script, context_management=management)
    steer(wire, response_id)
    assert steers(wire, "failed")[0]["error"]["code"] == "steering_not_supported"  # type: ignore[index]
    wire.session.close()


async def test_a_cancelled_response_is_not_steered() -> None:
    script = Steered()
    wire, response_id = await begun(script)
    wire.send({"type": "response.cancel", "response_id": response_id})
    steer(wire, response_id)
    await wire.end()
    assert steers(wire, "failed")[0]["error"]["code"] == "response_not_active"  # type: ignore[index]


async def test_an_interrupted_response_keeps_whole_items_and_can_be_continued() -> None:
    """As Codex does it: the next create names the interrupted response as its parent."""
    script = Steered()
    wire, response_id = await begun(script)
    event = {"type": "response.interrupt", "response_id": response_id}
    wire.send({**event, "mode": "discard_partial_items"})
    end = await wire.end()
    assert end["type"] == "response.incomplete"
    assert end["response"]["incomplete_details"] == {"reason": "interrupted"}
    assert end["response"]["output"] == []
    assert end["response"]["end_turn"] is False
    wire.create("go on", store=False, previous_response_id=response_id)
    assert text_of(await wire.end(2)) == "told: go on"


async def test_a_steer_waits_on_when_the_create_that_was_to_bring_it_is_refused() -> None:
    """It was accepted: the next create below the same parent still brings it."""
    script = Steered(calls=True)
    wire, response_id = await begun(script, store=True)
    steer(wire, response_id)
    script.hold.release.set()
    await wire.until(lambda: steers(wire, "pending"))
    wire.create("a", model="unknown", previous_response_id=response_id)
    assert (await wire.end(2))["error"]["code"] == "model_not_found"
    wire.create("b", previous_response_id=response_id)
    assert text_of(await wire.end(3)) == "told: use pytest / b"


class Vanishing(ScriptedEngine):
    """Serves no model any more once it is told to."""

    is_gone = False

    def models(self) -> Sequence[ModelInfo]:
        return [] if self.is_gone else super().models()


async def test_a_successor_that_cannot_begin_gives_the_steers_back() -> None:
    """Nobody sent a create, so there is no error of one."""
    script = Steered()
    engine = Vanishing(script)
    wire = Wire(Endpoint(engine))
    wire.create("go", store=False)
    await script.hold.reached.wait()
    steer(wire, wire.events[0]["response"]["id"])
    engine.is_gone = True
    await wire.until(lambda: steers(wire, "failed"))
    (failed,) = steers(wire, "failed")
    assert failed["error"]["code"] == "successor_creation_failed"  # type: ignore[index]
    assert "error" not in wire.types()


async def test_what_the_steers_of_a_response_hold_is_bounded() -> None:
    script = Steered(calls=True)
    wire, response_id = await begun(script)
    for _ in range(2 + MAX_STEER_BYTES // MAX_INPUT_CHARS):
        steer(wire, response_id, "x" * MAX_INPUT_CHARS)
    assert steers(wire, "failed")[0]["error"]["code"] == "too_many_pending_steers"  # type: ignore[index]
    wire.session.close()


@pytest.mark.parametrize("how", ["response.interrupt", "response.cancel"])
async def test_who_stops_a_steered_response_gets_no_successor(how: str) -> None:
    """The last word counts: the user took it back, and must not wait for an answer to it."""
    script = Steered()
    wire, response_id = await begun(script)
    steer(wire, response_id)
    wire.send({"type": how, "response_id": response_id})
    end = await wire.end()
    assert end["response"]["incomplete_details"] == {"reason": "interrupted"}
    (failed,) = steers(wire, "failed")
    assert failed["error"]["code"] == "successor_creation_failed"  # type: ignore[index]
    wire.create("go on", store=False, previous_response_id=response_id)
    assert text_of(await wire.end(2)) == "told: go on"


async def test_who_drops_a_steered_response_reads_that_the_steer_went_with_the_connection() -> None:
    """It was accepted, so it must not vanish without a word: it stands in the stream to resume."""
    script = Steered(calls=True)
    endpoint = Endpoint(ScriptedEngine(script))
    wire = Wire(endpoint)
    wire.create("go", store=False)
    await script.hold.reached.wait()
    response_id = wire.events[0]["response"]["id"]
    steer(wire, response_id)
    wire.session.close(is_goodbye=False)
    script.hold.release.set()
    await endpoint.backstage.drained()
    journal = endpoint.backstage.streams.get(response_id)
    assert journal is not None
    told = [orjson.loads(event) for event in journal.events()]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    (failed,) = [event for event in told if event["type"] == "response.steer.failed"]
    assert failed["error"]["code"] == "successor_creation_failed"
    content = [{"type": "input_text", "text": "use pytest"}]
    given = [{"type": "message", "role": "user", "content": content}]
    assert failed["steer"] == {"previous_response_id": response_id, "input": given}
    assert told[-1]["type"] == "response.completed"
    await endpoint.close()
