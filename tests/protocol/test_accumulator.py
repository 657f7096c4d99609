"""Order and tolerance; that it inverts ``ResponseStream`` is tested there."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values
from tightloop.protocol.accumulator import Accumulator, completed_item
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.items import FunctionCall, Message

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
CREATED = {"type": "response.created", "response": {"id": "resp_1"}}
ADDED = {"type": "response.output_item.added", "output_index": 0, "item": CALL}
DELTA = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{"}
DONE = {"type": "response.output_item.done", "output_index": 0, "item": CALL}
COMPLETED = {"type": "response.completed", "response": {"id": "resp_1"}}
ITEM = FunctionCall("c", "f", "{}")


def fed(*events: dict[str, Any]) -> Accumulator:
    accumulator = Accumulator()
    for event in events:
        accumulator.feed(event)
    return accumulator


def test_the_least_that_servers_send_is_enough() -> None:
    """``output_item.done`` without an index, and a terminal event with nothing but an id."""
    done = {"type": "response.output_item.done", "item": CALL}
    accumulator = fed(done, done, COMPLETED)
    assert accumulator.output_items == (ITEM, ITEM)
    assert (accumulator.response_id, accumulator.status) == ("resp_1", "completed")
    assert accumulator.is_finished
    assert accumulator.usage is None


def test_an_item_is_given_out_when_it_is_done() -> None:
    accumulator = fed(CREATED, ADDED, DELTA)
    assert accumulator.output_items == ()
    assert accumulator.feed(DONE) == ITEM
    assert accumulator.status == "in_progress"


def test_an_incomplete_item_is_output_but_not_to_be_acted_on() -> None:
    cut = {**DONE, "item": {**CALL, "status": "incomplete"}}
    accumulator = fed(CREATED, ADDED)
    assert accumulator.feed(cut) is None
    assert accumulator.output_items == (ITEM,)
    assert completed_item(cut) is None
    assert completed_item(DONE) == ITEM
    assert completed_item(DELTA) is None


def test_the_output_of_a_terminal_event_stands_in_for_missing_items() -> None:
    wire = {"type": "message", "role": "assistant", "content": "hi"}
    accumulator = fed({**COMPLETED, "response": {"id": "resp_1", "output": [wire]}})
    (message,) = accumulator.output_items
    assert isinstance(message, Message)
    assert message.text == "hi"


def test_unknown_events_and_heartbeats_are_let_through() -> None:
    keepalive = {"type": "keepalive", "sequence_number": 3}
    beat = {"type": "response.in_progress", "response": {"id": "resp_1"}}
    accumulator = fed(keepalive, CREATED, beat, {"type": "response.new.thing"}, beat, COMPLETED)
    assert accumulator.status == "completed"


def test_timing_usage_and_reasons_are_kept() -> None:
    response = {
        "id": "resp_1",
        "usage": {"input_tokens": 5, "output_tokens": 2},
        "incomplete_details": {"reason": "max_output_tokens"},
        "error": None,
    }
    timing = {"type": "tightloop:timing", "timing": {"decode_s": 0.5}}
    end = {"type": "response.incomplete", "response": response}
    accumulator = fed(CREATED, timing, end)
    assert accumulator.timing == {"decode_s": 0.5}
    assert accumulator.usage == Usage(input_tokens=5, output_tokens=2)
    assert accumulator.incomplete_reason == "max_output_tokens"
    assert accumulator.error is None
    assert accumulator.response == response


def test_a_failed_response_has_an_error() -> None:
    error = {"code": "rate_limit_exceeded", "message": "try again in 1s"}
    accumulator = fed({"type": "response.failed", "response": {"id": "r", "error": error}})
    assert accumulator.status == "failed"
    assert accumulator.error is not None
    assert accumulator.error.code == "rate_limit_exceeded"
    assert accumulator.error.message == "try again in 1s"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "died", "param": None},
        {"type": "error", "error": {"code": "server_error", "message": "died"}},
    ],
)
def test_both_shapes_of_an_error_event_are_read_and_may_be_followed(event: dict[str, Any]) -> None:
    accumulator = fed(CREATED, event)
    assert accumulator.error is not None
    assert (accumulator.error.code, accumulator.error.message) == ("server_error", "died")
    accumulator.feed({"type": "response.failed", "response": {"id": "resp_1"}})
    assert accumulator.is_finished


@pytest.mark.parametrize(
    "events",
    [
        [{}],
        [{"type": 3}],
        [COMPLETED, DELTA],
        [COMPLETED, COMPLETED],
        [DELTA],
        [CREATED, ADDED, DONE, DELTA],
        [ADDED, {**DELTA, "output_index": 1}],
        [ADDED, {**DELTA, "output_index": None}],
        [ADDED, ADDED],
        [ADDED, DONE, ADDED],
        [DONE, DONE],
        [{**ADDED, "output_index": -1}],
        [{**ADDED, "output_index": True}],
        [{"type": "response.output_item.done", "output_index": 0}],
        [{**DONE, "item": {"type": "function_call"}}],
        [CREATED, {**COMPLETED, "response": {"id": "resp_2"}}],
        [{"type": "response.created"}],
        [{"type": "response.completed", "response": {"id": 3}}],
        [{"type": "response.completed", "response": {"usage": {"input_tokens": "x"}}}],
    ],
)
def test_an_illegal_order_or_shape_is_the_peers_fault(events: list[dict[str, Any]]) -> None:
    accumulator = fed(*events[:-1])
    with pytest.raises(RemoteProtocolError):
        accumulator.feed(events[-1])


KEYS = st.sampled_from(["output_index", "item", "response", "error", "timing", "delta"])
TYPES = st.sampled_from([str(e["type"]) for e in (CREATED, ADDED, DELTA, DONE, COMPLETED)])


@given(st.lists(st.tuples(TYPES, st.dictionaries(KEYS, json_values, max_size=3)), max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_event_is_taken_or_is_the_peers_fault(events: list[tuple[str, Any]]) -> None:
    accumulator = Accumulator()
    num_fed = 0
    try:
        for kind, fields in events:
            accumulator.feed({**fields, "type": kind})
            num_fed += 1
    except RemoteProtocolError:
        num_fed += 1
    assert num_fed <= len(events)


def test_items_without_a_number_are_taken_in_order() -> None:
    """llama.cpp sends no ``output_index``: deltas and ends belong to the item that is open."""
    reader = Accumulator()
    message = {"type": "message", "role": "assistant", "content": []}
    for text in ("a", "b"):
        done = {**message, "content": [{"type": "output_text", "text": text}]}
        reader.feed({"type": "response.output_item.added", "item": message})
        reader.feed({"type": "response.output_text.delta", "delta": text})
        reader.feed({"type": "response.output_item.done", "item": done})
    texts = [item.text for item in reader.output_items if isinstance(item, Message)]
    assert texts == ["a", "b"]
    with pytest.raises(RemoteProtocolError, match="output_index is None"):
        reader.feed({"type": "response.output_text.delta", "delta": "c"})
