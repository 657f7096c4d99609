"""The registry of event types is what the code sends and accepts, no more and no less."""

import ast
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import delta_lists, usages
from tightloop.protocol.chat_stream import chat_streams
from tightloop.protocol.deltas import (
    ContextCompacted,
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.event_types import (
    CHAT_EVENTS,
    CLIENT_EVENTS,
    MESSAGES_EVENTS,
    RESPONSES_EVENTS,
    EventType,
)
from tightloop.protocol.messages_stream import MessagesStream
from tightloop.protocol.outgoing import MakeStream, OutgoingStream
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import Cancellation, ResponseStream
from tightloop.protocol.websocket_mode import ClientEventDecoder, UnknownEvent

PACKAGE = Path(__file__).parents[2] / "src" / "tightloop"
NOT_SENDERS = {"accumulator.py", "event_types.py", "response_reader.py"}
"""The readers of other servers' streams, which know more types than we send; and the registry."""

EVENT_NAME = re.compile(r"(response\.|responsesapi\.|tightloop:)[a-z_.{}]+")
TYPE_IN_BYTES = re.compile(rb'"type":"([a-z_.:]+)"')
ALL = (*RESPONSES_EVENTS, *MESSAGES_EVENTS, *CHAT_EVENTS, *CLIENT_EVENTS)
NAMES = {event.name for event in ALL}

TIMING = [("tightloop:timing", {"response_id": "resp_1", "timing": {}})]
FULL: list[Delta] = [
    ReasoningDelta("a"),
    TextDelta("b"),
    ToolCallStarted("call_1", "f"),
    ToolCallDelta("{}"),
    ToolCallDone(),
    ToolCallStarted("call_2", "c", is_custom=True),
    ToolCallDelta("x"),
    ToolCallDone(),
    ContextCompacted("tlc1."),
]


def senders() -> Iterator[ast.Module]:
    """The modules that may name an event in order to send or to accept it."""
    for package in ("protocol", "server"):
        for source in sorted((PACKAGE / package).glob("*.py")):
            if source.name not in NOT_SENDERS:
                yield ast.parse(source.read_text(encoding="utf-8"))


def event_names(tree: ast.Module) -> Iterator[str]:
    """Every literal that looks like an event type; a part that is computed is written ``{}``."""
    objects = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):  # the name of a kind of object is no event type
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "object":
                    objects.add(id(value))
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if id(node) in objects | inside:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            text = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                yield from (name.decode() for name in TYPE_IN_BYTES.findall(node.value))
            continue
        if EVENT_NAME.fullmatch(text):
            yield text


def is_registered(name: str) -> bool:
    pattern = re.compile(re.escape(name).replace(re.escape("{}"), "[a-z_]+"))
    return any(pattern.fullmatch(known) for known in NAMES)


def all_literals() -> set[str]:
    return {name for tree in senders() for name in event_names(tree)}


def test_every_literal_event_type_is_registered() -> None:
    """In the packages that send and accept events; whoever adds one describes it."""
    assert {name for name in all_literals() if not is_registered(name)} == set()


def test_the_search_would_find_them() -> None:
    """Plain, computed and in bytes; not the name of an object."""
    source = """
a = {"type": "response.one", "object": "response.two"}
b = f"response.{kind}.delta"
c = b'{"type":"ping"}'
d = "response of somebody"
"""
    assert set(event_names(ast.parse(source))) == {"response.one", "response.{}.delta", "ping"}


def test_no_type_is_registered_twice() -> None:
    """Within an API; ``error`` exists in two of them."""
    for events in (RESPONSES_EVENTS, MESSAGES_EVENTS, CHAT_EVENTS, CLIENT_EVENTS):
        names = [event.name for event in events]
        assert len(set(names)) == len(names)


def test_every_registered_event_is_sent_or_accepted() -> None:
    """By a stream that does everything, or by name somewhere else."""
    ends = [Finished(reason, Usage(1, 0, 1)) for reason in FinishReason]
    made = {
        kind_of(event) for end in ends for stream in streams() for event in whole(stream, FULL, end)
    }
    assert NAMES - made - all_literals() == set()


@pytest.mark.parametrize("event", CLIENT_EVENTS, ids=lambda event: event.name)
def test_client_events_are_accepted(event: EventType) -> None:
    """With all their fields, and with the required ones alone; and nothing else is."""
    decoder = ClientEventDecoder()
    values: dict[str, Any] = {"generate": False, "previous_response_id": "resp_1"}
    for names in ([*event.fields], [*event.fields, *event.optional]):
        frame = {name: values.get(name, "text") for name in names if name != "*"}
        decoded = decoder.decode(json.dumps({"type": event.name, **frame}))
        assert not isinstance(decoded, UnknownEvent)


def test_other_events_are_unknown() -> None:
    """What only servers send is not accepted from a client."""
    accepted = {event.name for event in CLIENT_EVENTS}
    for event in RESPONSES_EVENTS:
        assert event.name not in accepted
        frame = json.dumps({"type": event.name})
        assert isinstance(ClientEventDecoder().decode(frame), UnknownEvent)


# ---------------------------------------------------------------------- what streams make


def streams(lane: str | None = None) -> list[OutgoingStream]:
    """One of each dialect, with everything on that can be."""
    request = ResponseRequest(model="m", input=(), stream_id=lane)
    numbers = itertools.count()
    makers: list[MakeStream] = [
        ResponseStream,
        partial(MessagesStream, shows_thinking=True),
        chat_streams(include_usage=True),
    ]
    return [
        make("resp_1", request, created_at=7, new_id=lambda prefix: f"{prefix}_{next(numbers)}")
        for make in makers
    ]


def whole(
    stream: OutgoingStream,
    deltas: Iterable[Delta],
    finished: Finished | None = None,
    cancellation: Cancellation = Cancellation.INTERRUPTED,
) -> list[dict[str, Any]]:
    """Every event of a response, decoded."""
    if isinstance(stream, MessagesStream):  # it has no free-text tools
        deltas = [
            ToolCallStarted(delta.call_id, delta.name)
            if isinstance(delta, ToolCallStarted)
            else delta
            for delta in deltas
        ]
    end = finished or Finished(FinishReason.STOP, Usage(1, 0, 1))
    made = [*stream.start(), *stream.heartbeat(), *stream.feed(deltas), *stream.heartbeat()]
    made += stream.finish(end, TIMING, completed_at=8, cancellation=cancellation)
    return [json.loads(event) for event in made]


def kind_of(event: dict[str, Any]) -> str:
    kind = event.get("type") or event.get("object") or "error object"
    assert isinstance(kind, str)
    return kind


def check_described(event: dict[str, Any], events: Iterable[EventType]) -> None:
    (known,) = [known for known in events if known.name == kind_of(event)]
    keys = event.keys() - {"type"}
    if known.is_numbered:
        assert "sequence_number" in keys
        keys -= {"sequence_number"}
    assert known.fields.keys() <= keys
    assert keys <= known.fields.keys() | known.optional.keys()


@given(
    deltas=delta_lists,
    usage=usages,
    reason=st.sampled_from(FinishReason),
    cancellation=st.sampled_from(Cancellation),
    lane=st.sampled_from([None, "lane-a"]),
)
@settings(max_examples=60, deadline=None)
def test_streams_make_only_what_is_described(
    deltas: list[Delta],
    usage: Usage,
    reason: FinishReason,
    cancellation: Cancellation,
    lane: str | None,
) -> None:
    """Any response in any dialect, whichever way it ends: known types with the described fields."""
    described = (RESPONSES_EVENTS, MESSAGES_EVENTS, CHAT_EVENTS)
    for stream, events in zip(streams(lane), described, strict=True):
        for event in whole(stream, deltas, Finished(reason, usage), cancellation):
            check_described(event, events)
