"""Deltas of an engine become a legal answer of the Messages API."""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import delta_lists, usages
from tightloop.protocol import sse
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
from tightloop.protocol.errors import LocalProtocolError
from tightloop.protocol.items import Compaction, FunctionCall, Message, Reasoning
from tightloop.protocol.messages_stream import MessagesStream
from tightloop.protocol.outgoing import OutgoingStream
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import Cancellation, ResponseStream

REQUEST = ResponseRequest(model="m", input=())
STOP = Finished(FinishReason.STOP, Usage(10, 8, 5, 2))
CUT = Finished(FinishReason.LENGTH, Usage(10, 8, 5))
CANCELLED = Finished(FinishReason.CANCELLED, Usage(10))
CALL = ToolCallStarted("call_1", "Bash")
FULL: list[Delta] = [
    ReasoningDelta("Plan"),
    TextDelta("Hi"),
    TextDelta(' "there"\n'),
    CALL,
    ToolCallDelta('{"command":'),
    ToolCallDelta('"ls"}'),
    ToolCallDone(),
    ToolCallStarted("call_2", "Read"),
    ToolCallDelta("{}"),
    ToolCallDone(),
]


def counting_ids() -> Callable[[str], str]:
    counter = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(counter)}"


def new_stream(*, shows: bool = False, request: ResponseRequest = REQUEST) -> MessagesStream:
    return MessagesStream(
        "resp_1", request, created_at=0, new_id=counting_ids(), shows_thinking=shows
    )


def started(*, shows: bool = False, request: ResponseRequest = REQUEST) -> MessagesStream:
    stream = new_stream(shows=shows, request=request)
    stream.start()
    return stream


def decoded(events: Sequence[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event) for event in events]


def types(events: Sequence[bytes]) -> list[str]:
    return [event["type"].removeprefix("content_block_") for event in decoded(events)]


class Collected:
    """What a client makes of the events, with the order checked as strictly as it can be."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.error: dict[str, Any] | None = None
        self.is_over = False
        self._open: dict[str, Any] | None = None
        self._json = ""

    def take(self, event: dict[str, Any]) -> None:
        assert not self.is_over
        kind = event["type"]
        if kind == "message_start":
            assert not self.message
            self.message = event["message"]
        elif kind == "error":
            self.error = event["error"]
            self.is_over = True
        elif kind == "content_block_start":
            assert self._open is None
            assert len(self.message["content"]) == event["index"]
            self._open, self._json = event["content_block"], ""
            self.message["content"].append(self._open)
        elif kind == "content_block_delta":
            self._delta(event)
        elif kind == "content_block_stop":
            self._stop(event)
        elif kind == "message_delta":
            assert self._open is None
            self.message |= event["delta"]
            self.message["usage"] |= event["usage"]
        elif kind == "message_stop":
            assert self.message["stop_reason"]
            self.is_over = True
        else:
            assert kind == "ping"

    def _delta(self, event: dict[str, Any]) -> None:
        assert self._open is not None
        assert len(self.message["content"]) - 1 == event["index"]
        delta = event["delta"]
        field = {
            "text_delta": "text",
            "thinking_delta": "thinking",
            "signature_delta": "signature",
            "input_json_delta": "partial_json",
        }[delta["type"]]
        if field == "partial_json":
            self._json += delta[field]
        else:
            self._open[field] += delta[field]

    def _stop(self, event: dict[str, Any]) -> None:
        assert self._open is not None
        assert len(self.message["content"]) - 1 == event["index"]
        if self._open["type"] == "tool_use":
            try:
                given_input = json.loads(self._json)
            except ValueError:
                given_input = {}
            self._open["input"] = given_input if isinstance(given_input, dict) else {}
        self._open = None


def collected(events: Sequence[bytes]) -> Collected:
    client = Collected()
    for event in decoded(events):
        client.take(event)
    return client


def test_it_is_an_outgoing_stream() -> None:
    """The server drives it as it drives the others."""
    stream: OutgoingStream = new_stream()
    assert (stream.status, stream.is_finished, stream.num_calls) == ("queued", False, 0)


def test_the_full_stream() -> None:
    """Every kind of block, with its index, byte for byte."""
    stream = new_stream(shows=True)
    events = stream.start() + stream.feed(FULL) + stream.heartbeat() + stream.finish(STOP)
    expected = (
        '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
        '"model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,'
        '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}',
        '{"type":"content_block_start","index":0,'
        '"content_block":{"type":"thinking","thinking":"","signature":""}}',
        '{"type":"content_block_delta","index":0,'
        '"delta":{"type":"thinking_delta","thinking":"Plan"}}',
        '{"type":"content_block_delta","index":0,'
        '"delta":{"type":"signature_delta","signature":""}}',
        '{"type":"content_block_stop","index":0}',
        '{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}',
        '{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hi"}}',
        '{"type":"content_block_delta","index":1,'
        '"delta":{"type":"text_delta","text":" \\"there\\"\\n"}}',
        '{"type":"content_block_stop","index":1}',
        '{"type":"content_block_start","index":2,'
        '"content_block":{"type":"tool_use","id":"call_1","name":"Bash","input":{}}}',
        '{"type":"content_block_delta","index":2,'
        '"delta":{"type":"input_json_delta","partial_json":"{\\"command\\":"}}',
        '{"type":"content_block_delta","index":2,'
        '"delta":{"type":"input_json_delta","partial_json":"\\"ls\\"}"}}',
        '{"type":"content_block_stop","index":2}',
        '{"type":"content_block_start","index":3,'
        '"content_block":{"type":"tool_use","id":"call_2","name":"Read","input":{}}}',
        '{"type":"content_block_delta","index":3,'
        '"delta":{"type":"input_json_delta","partial_json":"{}"}}',
        '{"type":"content_block_stop","index":3}',
        '{"type":"ping"}',
        '{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},'
        '"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":8,'
        '"output_tokens":5}}',
        '{"type":"message_stop"}',
    )
    assert list(expected) == [event.decode() for event in events]
    assert (stream.status, stream.usage, stream.num_calls) == ("completed", STOP.usage, 2)


def test_the_frames_are_named_by_their_types() -> None:
    """Clients dispatch on the event line."""
    stream = new_stream()
    events = stream.start() + stream.feed(FULL) + stream.finish(STOP)
    frames = sse.SseDecoder().feed(b"".join(sse.frame(event) for event in events))
    assert [event["type"] for event in decoded(events)] == [frame.event for frame in frames]


def test_reasoning_is_dropped_for_those_who_did_not_ask() -> None:
    """The indices have no gap, the text around it is two blocks, and the items keep it."""
    stream = new_stream()
    events = stream.start() + stream.feed([ReasoningDelta("a"), TextDelta("b")])
    events += stream.feed([ReasoningDelta("c"), TextDelta("d")]) + stream.finish(STOP)
    assert [
        *("message_start", "start", "delta", "stop", "start", "delta", "stop"),
        *("message_delta", "message_stop"),
    ] == types(events)
    content = collected(events).message["content"]
    assert content == [{"type": "text", "text": "b"}, {"type": "text", "text": "d"}]
    assert [Reasoning, Message, Reasoning, Message] == [type(i) for i in stream.output_items]


def test_a_message_object_from_the_end() -> None:
    """What a request without streaming gets."""
    stream = started(shows=True)
    stream.feed(FULL)
    stream.finish(STOP)
    assert json.loads(stream.snapshot()) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Plan", "signature": ""},
            {"type": "text", "text": 'Hi "there"\n'},
            {"type": "tool_use", "id": "call_1", "name": "Bash", "input": {"command": "ls"}},
            {"type": "tool_use", "id": "call_2", "name": "Read", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 2,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 8,
            "output_tokens": 5,
        },
    }


@pytest.mark.parametrize(
    ("deltas", "finished", "expected"),
    [
        ([TextDelta("a")], STOP, "end_turn"),
        ([], STOP, "end_turn"),
        ([TextDelta("a")], CUT, "max_tokens"),
        ([CALL, ToolCallDone()], STOP, "tool_use"),
        ([CALL, ToolCallDone()], Finished(FinishReason.TOOL_CALLS, Usage()), "tool_use"),
        ([CALL, ToolCallDelta('{"a')], CUT, "max_tokens"),
    ],
)
def test_the_stop_reason(deltas: list[Delta], finished: Finished, expected: str) -> None:
    stream = started()
    events = stream.feed(deltas) + stream.finish(finished)
    assert expected == json.loads(events[-2])["delta"]["stop_reason"]
    assert expected == json.loads(stream.snapshot())["stop_reason"]
    assert ("completed" if finished.reason is not FinishReason.LENGTH else "incomplete") == (
        stream.status
    )


def test_a_stop_string_is_named() -> None:
    """Where the engine tells which one it was."""
    stream = started()
    stream.feed([TextDelta("a")])
    *_, last, _stop = stream.finish(Finished(FinishReason.STOP, Usage(), stop_sequence="END"))
    expected = {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    assert json.loads(last)["delta"] == expected


def test_a_cut_call_is_closed_with_what_there_is() -> None:
    """As the API does it; the reason says not to run it."""
    stream = started()
    events = stream.feed([CALL, ToolCallDelta('{"a')]) + stream.finish(CUT)
    assert types(events) == ["start", "delta", "stop", "message_delta", "message_stop"]
    assert json.loads(stream.snapshot())["content"][0]["input"] == {}
    assert (FunctionCall("call_1", "Bash", '{"a', "fc_1"),) == stream.output_items


def test_a_prewarm_ends_without_content() -> None:
    """``max_tokens`` 0."""
    stream = new_stream(request=ResponseRequest(model="m", input=(), generate=False))
    events = stream.start() + stream.finish(Finished(FinishReason.STOP, Usage()))
    assert types(events) == ["message_start", "message_delta", "message_stop"]
    assert json.loads(stream.snapshot())["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("cancellation", "status", "num_items"),
    [
        (Cancellation.INTERRUPTED, "incomplete", 1),
        (Cancellation.DISCARDED, "incomplete", 0),
        (Cancellation.CANCELLED, "cancelled", 1),
    ],
)
def test_a_cancelled_answer_ends_in_an_error(
    cancellation: Cancellation, status: str, num_items: int
) -> None:
    """No stop reason says it, and a client must not take it for whole."""
    stream = started()
    events = stream.feed([TextDelta("a")]) + stream.finish(CANCELLED, cancellation=cancellation)
    assert types(events)[-1] == "error"
    assert (status, num_items) == (stream.status, len(stream.output_items))
    assert json.loads(stream.snapshot())["stop_reason"] is None


def test_a_cancelled_call_is_never_closed() -> None:
    """Clients run a tool when its block ends."""
    stream = started()
    events = stream.feed([CALL, ToolCallDelta("{}")]) + stream.finish(CANCELLED)
    assert types(events) == ["start", "delta", "error"]
    assert stream.output_items == ()


def test_a_failure_of_the_engine_is_an_error_event() -> None:
    stream = started()
    failed = Finished(
        FinishReason.ERROR, Usage(), error_code="server_is_overloaded", error_message="full"
    )
    events = stream.feed([TextDelta("a")]) + stream.finish(failed)
    assert (collected([*new_stream().start(), *events]).error) == {
        "type": "overloaded_error",
        "message": "full",
        "code": "server_is_overloaded",
    }
    assert (stream.status, stream.is_finished) == ("failed", True)
    bare = started().finish(Finished(FinishReason.ERROR, Usage()))
    assert json.loads(bare[0])["error"]["message"] == "generation failed"


def test_a_failure_before_the_start_starts() -> None:
    assert types(new_stream().fail("server_error", "no")) == ["message_start", "error"]


def test_an_order_that_is_not_allowed_ends_in_a_failure() -> None:
    """What was made before it is not lost."""
    stream = started()
    with pytest.raises(LocalProtocolError, match="CALL_DONE is not allowed in state MESSAGE"):
        stream.feed([TextDelta("a"), ToolCallDone()])
    with pytest.raises(LocalProtocolError, match="BROKEN"):
        stream.feed([TextDelta("b")])
    assert types(stream.fail("server_error", "x")) == ["start", "delta", "error"]


@pytest.mark.parametrize(
    "deltas",
    [
        [STOP],
        [TextDelta("\ud83d")],
        [ToolCallStarted("c", "apply_patch", is_custom=True)],
        [ToolCallDelta("x")],
    ],
)
def test_what_cannot_be_written_is_refused(deltas: list[Delta]) -> None:
    """Free-form tools do not exist in this dialect."""
    stream = started()
    with pytest.raises(LocalProtocolError):
        stream.feed(deltas)
    assert types(stream.fail("server_error", "x"))[-1] == "error"


def test_nothing_is_legal_before_the_start_or_after_the_end() -> None:
    stream = new_stream()
    for act in (stream.heartbeat, lambda: stream.feed([TextDelta("a")])):
        with pytest.raises(LocalProtocolError):
            act()
    with pytest.raises(LocalProtocolError, match="has not ended"):
        stream.take_back("store_failed", "x")
    stream.start()
    stream.finish(STOP)
    for act in (stream.start, stream.heartbeat, lambda: stream.finish(STOP)):
        with pytest.raises(LocalProtocolError):
            act()


def test_an_end_can_be_taken_back() -> None:
    stream = started()
    stream.finish(STOP)
    assert json.loads(stream.take_back("store_failed", "disk"))["error"]["type"] == "api_error"
    assert (stream.status, json.loads(stream.snapshot())["stop_reason"]) == ("failed", None)


def test_asides_and_compactions() -> None:
    """The one is an event of its own, the other an item that this API has no block for."""
    stream = started()
    aside = json.loads(stream.aside("tightloop:x", {"a": 1}))
    assert aside == {"type": "tightloop:x", "a": 1}
    assert stream.feed([ContextCompacted("sum")]) == []
    assert (Compaction("sum", "cmp_1"),) == stream.output_items


@settings(max_examples=150)
@given(
    delta_lists,
    st.booleans(),
    usages,
    st.sampled_from([FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED]),
    st.integers(0, 40),
)
def test_a_client_collects_what_the_snapshot_says(
    deltas: list[Delta], shows: bool, usage: Usage, reason: FinishReason, cut: int
) -> None:
    """Any legal deltas, cut anywhere; and the items are those of the Responses dialect."""
    deltas = [
        ToolCallStarted(d.call_id, d.name) if isinstance(d, ToolCallStarted) else d for d in deltas
    ]
    if reason is not FinishReason.STOP:
        deltas = deltas[:cut]  # only these may come in the middle of a call
    stream = new_stream(shows=shows)
    other = ResponseStream("resp_1", REQUEST, created_at=0, new_id=counting_ids())
    other.start()
    events = stream.start()
    for delta in deltas:
        events += stream.feed([delta]) + stream.heartbeat()
        other.feed([delta])
    finished = Finished(reason, usage)
    events += stream.finish(finished)
    other.finish(finished)
    assert other.output_items == stream.output_items
    client = collected(events)
    assert client.is_over
    assert (reason is FinishReason.CANCELLED) == (client.error is not None)
    if client.error is None:
        assert json.loads(stream.snapshot()) == client.message
        counted = client.message["usage"]
        read = counted["cache_read_input_tokens"]
        assert max(usage.input_tokens, usage.cached_tokens) == counted["input_tokens"] + read
