"""What must hold for any client: legal events per lane, and an answer to anything at all."""

import asyncio
from collections import defaultdict
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.wire import TERMINAL, Wire
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, ScriptedEngine, call_answer, text_answer
from tightloop.protocol.deltas import ReasoningDelta
from tightloop.protocol.items import FunctionCallOutput
from tightloop.server.endpoint import Endpoint

LANES = [None, "a", "b", "c"]


def script(request: GenerationRequest) -> Answer:
    """Reasoning, sometimes a tool call, some text: by the input's length."""
    last = request.items[-1] if request.items else None
    if isinstance(last, FunctionCallOutput) or request.tool_choice == "none":
        return text_answer("done and dusted")
    return [ReasoningDelta("hm"), *call_answer("shell", {"cmd": "ls"}), *text_answer("a b c")]


class Model:
    """A client that does anything, at any time, and remembers what it was told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.num_creates = 0
        self.num_refused = 0

    def ids(self) -> list[str]:
        """Every response id seen so far."""
        events = self.wire.events
        return [e["response"]["id"] for e in events if e["type"] == "response.created"]

    def pick(self, number: int) -> str:
        ids = self.ids()
        return ids[number % len(ids)] if ids else "resp_none"

    def do(self, action: str, lane: str | None, number: int) -> None:
        marked = {} if lane is None else {"stream_id": lane}
        if action == "create":
            self.create({"input": "x"}, marked)
        elif action == "quiet":
            self.create({"input": "x", "tool_choice": "none"}, marked)
        elif action == "continue":
            self.create({"input": "y", "previous_response_id": self.pick(number)}, marked)
        elif action == "prewarm":
            self.create({"input": "x", "generate": False}, marked)
        elif action == "cancel":
            self.wire.send({"type": "response.cancel", "response_id": self.pick(number)})
        elif action == "cancel lane":
            self.wire.send({"type": "response.cancel", **marked})
        elif action == "interrupt":
            self.wire.send({"type": "response.interrupt", "response_id": self.pick(number)})
        else:
            parent = self.pick(number)
            event = {"type": "response.steer", "previous_response_id": parent, "input": "s"}
            self.wire.send(event)

    def create(self, fields: dict[str, Any], marked: dict[str, Any]) -> None:
        self.num_creates += 1
        base = {"type": "response.create", "model": "scripted", "store": self.num_creates % 2 == 0}
        self.wire.send({**base, **fields, **marked})


actions = st.tuples(
    st.sampled_from(
        ["create", "quiet", "continue", "prewarm", "cancel", "cancel lane", "interrupt", "steer"]
    ),
    st.sampled_from(LANES),
    st.integers(0, 5),
    st.integers(0, 3),
)


@given(st.lists(actions, max_size=25))
@settings(max_examples=60)
def test_any_interleaving_gives_a_legal_sequence_on_every_lane(
    steps: list[tuple[str, str | None, int, int]],
) -> None:
    """Creates, cancels, interrupts and steers at any moment: each lane's responses come one after
    the other, each from created to one terminal event, numbered without gaps."""

    async def run() -> Model:
        endpoint = Endpoint(ScriptedEngine(script))
        model = Model(Wire(endpoint))
        for action, lane, number, pause in steps:
            model.do(action, lane, number)
            for _ in range(pause):
                await asyncio.sleep(0)
        await endpoint.backstage.drained()
        assert not endpoint.backstage.orphans
        await endpoint.close()
        return model

    model = asyncio.run(run())
    events = [event for event in model.wire.events if not refuses_wish(event)]
    check_lanes(events)
    answered = [event for event in events if event["type"] in TERMINAL]
    successors = num_successors(model.wire.events)
    assert len(answered) == model.num_creates + successors


def refuses_wish(event: dict[str, Any]) -> bool:
    """Whether it says that there was nothing to cancel or interrupt, which answers no create."""
    codes = ("response_not_found", "response_not_active")
    return event["type"] == "error" and event["error"]["code"] in codes


def num_successors(events: list[dict[str, Any]]) -> int:
    """Responses that followed a steer by themselves: those whose parents were steered, ended without
    owing an output, and were not stopped after all."""
    steered = {e["steer"]["previous_response_id"] for e in events if kind(e) == "steer.accepted"}
    pending = {e["steer"]["previous_response_id"] for e in events if kind(e) == "steer.pending"}
    stopped = {
        e["steer"]["previous_response_id"]
        for e in events
        if kind(e) == "steer.failed" and e["error"]["code"] == "successor_creation_failed"
    }
    return len(steered - pending - stopped)


def kind(event: dict[str, Any]) -> str:
    name: str = event["type"]
    return name.removeprefix("response.")


def check_lanes(events: list[dict[str, Any]]) -> None:
    lanes: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        lanes[event.get("stream_id")].append(event)
    for lane in lanes.values():
        check_lane(lane)


def check_lane(events: list[dict[str, Any]]) -> None:
    current, number, open_item = None, 0, None
    for event in events:
        name = kind(event)
        if name in ("error", "steer.failed"):
            continue
        if name == "steer.pending":
            assert current is None
            continue
        if name == "created":
            assert current is None, "a response began before the one before it had ended"
            current, number, open_item = event["response"]["id"], 0, None
        assert current is not None, f"{name} outside a response"
        assert event["sequence_number"] == number
        number += 1
        if name == "output_item.added":
            assert open_item is None
            open_item = event["item"]["id"]
        elif name == "output_item.done":
            assert event["item"]["id"] == open_item
            open_item = None
        elif "item_id" in event:
            assert event["item_id"] == open_item
        if event["type"] in TERMINAL:
            assert event["response"]["id"] == current
            current = None
    assert current is None, "a response never ended"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
event_fields = st.dictionaries(
    st.sampled_from(
        ["model", "input", "stream_id", "previous_response_id", "tools", "tool_choice", "text",
         "context_management", "conversation", "prompt_cache_options", "generate", "response_id",
         "mode", "metadata", "reasoning", "instructions"]
    ),
    json_values,
    max_size=5,
)  # fmt: skip
frames = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda value: orjson.dumps(value), json_values),
    st.builds(
        lambda name, fields: orjson.dumps({"type": name, **fields}),
        st.sampled_from(
            ["response.create", "response.cancel", "response.interrupt", "response.steer", "x", ""]
        ),
        event_fields,
    ),
    st.builds(
        lambda fields: orjson.dumps({"type": "response.create", "model": "scripted", **fields}),
        event_fields,
    ),
)


@given(st.lists(frames, max_size=6))
@settings(max_examples=150)
def test_any_bytes_give_a_legal_event_or_a_protocol_error(given_frames: list[bytes]) -> None:
    """And the connection still works afterwards."""

    async def run() -> list[dict[str, Any]]:
        endpoint = Endpoint(ScriptedEngine(script))
        wire = Wire(endpoint)
        for frame in given_frames:
            wire.send(frame)
        await endpoint.backstage.drained()
        wire.create("still here")
        await endpoint.backstage.drained()
        await endpoint.close()
        return wire.events

    events = asyncio.run(run())
    check_lanes(events)
    for event in events:
        if event["type"] == "error":
            assert event["status"] in (400, 404, 409, 429)
            assert event["error"]["message"]
    assert kind(events[-1]) in ("completed", "incomplete")
