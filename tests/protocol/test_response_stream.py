import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.strategies import delta_lists, usages
from tightloop.protocol.accumulator import OUTPUT_DELTA_TYPES, Accumulator
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
from tightloop.protocol.items import (
    Compaction,
    CustomToolCall,
    FunctionCall,
    Message,
    Reasoning,
    TextPart,
)
from tightloop.protocol.requests import FunctionTool, ResponseRequest, decode_request
from tightloop.protocol.response import STRICT_KEYS
from tightloop.protocol.response_stream import Cancellation, ResponseStream

GOLDEN = Path(__file__).parent.parent / "golden" / "response_stream.jsonl"
REQUEST = ResponseRequest(model="m", input=())
CANCELLED = Finished(FinishReason.CANCELLED, Usage())
STOP = Finished(FinishReason.STOP, Usage(10, 8, 5, 2))
CALL = ToolCallStarted("call_1", "shell")
FULL: list[Delta] = [
    ReasoningDelta("Plan"),
    TextDelta("Hi"),
    TextDelta(' "there"\n'),
    ToolCallStarted("call_1", "exec_command"),
    ToolCallDelta('{"cmd":'),
    ToolCallDelta('"ls"}'),
    ToolCallDone(),
    ToolCallStarted("call_2", "apply_patch", is_custom=True),
    ToolCallDelta("*** Begin Patch\n…"),
    ToolCallDone(),
]


def counting_ids() -> Callable[[str], str]:
    counter = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(counter)}"


def new_stream(request: ResponseRequest = REQUEST) -> ResponseStream:
    return ResponseStream(
        "resp_1",
        request,
        created_at=1795361032,
        new_id=counting_ids(),
    )


def started(request: ResponseRequest = REQUEST) -> ResponseStream:
    stream = new_stream(request)
    stream.start()
    return stream


def types(events: list[bytes]) -> list[str]:
    return [json.loads(event)["type"].removeprefix("response.") for event in events]


def timing(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("tightloop:timing", {"response_id": "resp_1", "timing": figures})]


def full_transcript() -> list[bytes]:
    body = {
        "model": "m",
        "instructions": "Be brief.",
        "stream_id": "lane-a",
        "client_metadata": {"tightloop.timing": "1"},
        "tools": [{"type": "function", "name": "exec_command"}],
    }
    stream = new_stream(decode_request(json.dumps(body), websocket=True))
    events = stream.start() + stream.feed(FULL) + stream.heartbeat()
    return events + stream.finish(STOP, timing({"decode_s": 0.25}), completed_at=1795361033)


def test_the_full_stream_is_the_golden_transcript() -> None:
    """Every item kind, byte for byte; regenerate the file only for a wanted change."""
    assert GOLDEN.read_bytes().splitlines() == full_transcript()


def test_the_order_of_a_message() -> None:
    stream = new_stream()
    assert types(stream.start()) == ["created", "in_progress"]
    assert types(stream.feed([TextDelta("a")])) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
    ]
    assert types(stream.finish(STOP)) == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert (Message("assistant", (TextPart("output_text", "a"),), id="msg_1"),) == (
        stream.output_items
    )


def test_the_official_types_accept_every_event() -> None:
    """Strict validation, not the lenient construction the SDK uses on the wire."""
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for reason in (FinishReason.STOP, FinishReason.LENGTH, FinishReason.ERROR):
        tools = [
            {"type": "function", "name": "f"},
            {"type": "custom", "name": "c", "description": "d"},
        ]
        stream = new_stream(decode_request(json.dumps({"model": "m", "tools": tools})))
        events = stream.start() + stream.feed(FULL)
        events += stream.finish(Finished(reason, Usage(1, 1, 1, 1)), completed_at=2)
        for event in events:
            assert json.loads(event)["type"] == adapter.validate_json(event).type


@pytest.mark.parametrize("reason", list(FinishReason))
def test_every_response_has_all_keys_and_every_event_its_number(reason: FinishReason) -> None:
    stream = new_stream()
    events = stream.start() + stream.feed(FULL) + stream.heartbeat()
    events += stream.finish(Finished(reason, Usage()))
    decoded = [json.loads(event) for event in events]
    assert list(range(len(events))) == [event["sequence_number"] for event in decoded]
    responses = [event["response"] for event in decoded if "response" in event]
    assert len(responses) == 4
    assert all(set(response) == STRICT_KEYS for response in responses)


@pytest.mark.parametrize(
    ("deltas", "bad"),
    [
        ([], ToolCallDelta("x")),
        ([], ToolCallDelta("")),
        ([], ToolCallDone()),
        ([TextDelta("x")], ToolCallDone()),
        ([TextDelta("x")], ToolCallDelta("x")),
        ([CALL], TextDelta("x")),
        ([CALL], TextDelta("")),
        ([CALL], ReasoningDelta("x")),
        ([CALL], CALL),
        ([CALL, ToolCallDone()], ToolCallDone()),
        ([CALL, ToolCallDone()], ToolCallDelta("x")),
        ([TextDelta("x")], STOP),
        ([TextDelta("x")], TextDelta("\ud83d")),
        ([], ToolCallStarted("call_1", "\ud83d")),
    ],
)
def test_a_delta_out_of_order_is_refused_and_only_failing_is_left(
    deltas: list[Delta], bad: Delta
) -> None:
    stream = started()
    with pytest.raises(LocalProtocolError):
        stream.feed([*deltas, bad])
    for use in (stream.start, stream.heartbeat, lambda: stream.finish(STOP)):
        with pytest.raises(LocalProtocolError):
            use()
    events = [json.loads(event) for event in stream.fail("server_error", "broken")]
    assert events[-1]["type"] == "response.failed"
    assert list(range(2, 2 + len(events))) == [event["sequence_number"] for event in events]


def test_a_call_left_open_cannot_end_well() -> None:
    stream = started()
    stream.feed([CALL, ToolCallDelta("{")])
    with pytest.raises(LocalProtocolError, match="END is not allowed in state CALL"):
        stream.finish(STOP)
    assert types(stream.fail("server_error", "unfinished call")) == ["failed"]


def test_nothing_comes_before_the_start_or_after_the_end() -> None:
    stream = new_stream()
    with pytest.raises(LocalProtocolError):
        stream.feed([TextDelta("x")])
    with pytest.raises(LocalProtocolError):
        stream.finish(STOP)
    with pytest.raises(LocalProtocolError):
        stream.final_response()
    stream.start()
    stream.finish(STOP)
    assert stream.is_finished
    for late in (
        stream.start,
        stream.heartbeat,
        lambda: stream.feed([TextDelta("x")]),
        lambda: stream.finish(STOP),
        lambda: stream.fail("a", "b"),
    ):
        with pytest.raises(LocalProtocolError):
            late()


def test_failing_before_the_start_starts_first() -> None:
    assert types(new_stream().fail("a", "b")) == ["created", "in_progress", "failed"]


def test_the_token_limit_leaves_the_last_item_incomplete() -> None:
    cut: list[list[Delta]] = [
        [TextDelta("cut")],
        [ReasoningDelta("hm")],
        [CALL, ToolCallDelta("{")],
    ]
    for deltas in cut:
        stream = started()
        stream.feed(deltas)
        events = stream.finish(Finished(FinishReason.LENGTH, Usage()))
        response = json.loads(stream.final_response())
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][-1]["status"] == "incomplete"
        assert "function_call_arguments.done" not in types(events)
        assert len(stream.output_items) == 1


def test_a_cancelled_message_stays_and_a_cancelled_call_goes() -> None:
    """A call cut half-way must not get the ``done`` event that clients dispatch on."""
    cancelled = Finished(FinishReason.CANCELLED, Usage())
    stream = started()
    stream.feed([TextDelta("cut")])
    assert "output_item.done" in types(stream.finish(cancelled))
    stream = started()
    stream.feed([CALL, ToolCallDelta("{")])
    assert types(stream.finish(cancelled)) == ["incomplete"]
    assert stream.output_items == ()
    response = json.loads(stream.final_response())
    assert (response["output"], response["incomplete_details"]) == ([], {"reason": "interrupted"})


def test_an_engine_error_fails_the_response_with_its_code() -> None:
    stream = started()
    stream.feed([TextDelta("cut")])
    error = Finished(
        FinishReason.ERROR,
        Usage(1),
        error_code="context_length_exceeded",
        error_message="too long \ud83d" + "x" * 9999,
    )
    assert types(stream.finish(error)) == ["failed"]
    response = json.loads(stream.final_response())
    assert response["error"]["code"] == "context_length_exceeded"
    assert len(response["error"]["message"]) <= 2000
    assert response["output"] == []


def test_a_prewarm_has_no_output() -> None:
    stream = new_stream(ResponseRequest(model="m", input=(), generate=False))
    assert types(stream.start()) == ["created", "in_progress"]
    assert types(stream.finish(STOP)) == ["completed"]
    assert json.loads(stream.final_response())["output"] == []
    other = started(ResponseRequest(model="m", input=(), generate=False))
    with pytest.raises(LocalProtocolError):
        other.feed([TextDelta("x")])


def test_empty_deltas_open_no_item_and_empty_calls_are_items() -> None:
    stream = started()
    assert stream.feed([TextDelta(""), ReasoningDelta("")]) == []
    stream.feed([CALL, ToolCallDelta(""), ToolCallDone()])
    stream.finish(STOP)
    assert (FunctionCall("call_1", "shell", "", "fc_1"),) == stream.output_items


def test_timing_comes_just_before_the_terminal_event() -> None:
    assert types(started().finish(STOP)) == ["completed"]
    events = started().finish(STOP, timing({"a": 1}))
    figures = json.loads(events[0])
    assert (figures["response_id"], figures["timing"]) == ("resp_1", {"a": 1})
    assert types(events) == ["tightloop:timing", "completed"]


def test_after_a_refused_delta_nothing_more_is_taken() -> None:
    """Not even more of the text that was open."""
    stream = started()
    stream.feed([TextDelta("a")])
    with pytest.raises(LocalProtocolError):
        stream.feed([ToolCallDone()])
    with pytest.raises(LocalProtocolError):
        stream.feed([TextDelta("b")])
    assert types(stream.fail("server_error", "x"))[-1] == "failed"


def test_an_interrupted_response_keeps_whole_items_only() -> None:
    stream = started()
    stream.feed([ToolCallStarted("c1", "f"), ToolCallDone(), TextDelta("half a sen")])
    events = stream.finish(CANCELLED, cancellation=Cancellation.DISCARDED)
    assert types(events) == ["incomplete"]
    response = json.loads(events[0])["response"]
    assert [item["type"] for item in response["output"]] == ["function_call"]
    assert response["incomplete_details"] == {"reason": "interrupted"}


def test_a_cancelled_response_says_so_in_its_status() -> None:
    stream = started()
    stream.feed([TextDelta("half a sen")])
    events = stream.finish(CANCELLED, cancellation=Cancellation.CANCELLED)
    assert types(events)[-2:] == ["output_item.done", "incomplete"]
    assert json.loads(events[-1])["response"]["status"] == "cancelled"


def test_a_compaction_item_comes_whole() -> None:
    stream = started()
    events = stream.feed([TextDelta("a"), ContextCompacted("tlc1.x"), TextDelta("b")])
    assert types(events)[-5:] == [
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
    ]
    item = json.loads(events[-4])["item"]
    assert item == {"type": "compaction", "encrypted_content": "tlc1.x", "id": "cmp_2"}
    assert stream.output_items[1] == Compaction("tlc1.x", "cmp_2")


def test_a_snapshot_shows_the_items_closed_so_far() -> None:
    stream = started()
    stream.feed([ToolCallStarted("c1", "f"), ToolCallDone(), TextDelta("b")])
    snapshot = json.loads(stream.snapshot())
    assert snapshot["status"] == "in_progress"
    assert [item["type"] for item in snapshot["output"]] == ["function_call"]
    assert stream.num_calls == 1


def test_asides_are_numbered_with_the_other_events() -> None:
    stream = started()
    aside = json.loads(stream.aside("response.steer.accepted", {"steer": {"id": "st_1"}}))
    following = json.loads(stream.feed([TextDelta("a")])[0])
    assert aside["sequence_number"] + 1 == following["sequence_number"]


def test_calls_of_a_namespaced_tool_repeat_the_namespace() -> None:
    tools = (FunctionTool("wait", namespace="functions"),)
    stream = started(ResponseRequest(model="m", input=(), tools=tools))
    events = stream.feed([ToolCallStarted("call_1", "wait"), ToolCallDone()])
    assert json.loads(events[-1])["item"]["namespace"] == "functions"
    assert (FunctionCall("call_1", "wait", "", "fc_1", "functions"),) == stream.output_items


def expected_items(deltas: list[Delta]) -> list[object]:
    """What the deltas say, by a much simpler program: neighbours of one kind joined."""
    items: list[object] = []
    for kind, group in itertools.groupby(
        (d for d in deltas if not isinstance(d, TextDelta | ReasoningDelta) or d.text),
        key=lambda d: d.__class__ if isinstance(d, TextDelta | ReasoningDelta) else "call",
    ):
        run = list(group)
        if kind is TextDelta:
            items.append("".join(d.text for d in run if isinstance(d, TextDelta)))
        elif kind is ReasoningDelta:
            items.append(("".join(d.text for d in run if isinstance(d, ReasoningDelta)),))
        else:
            for delta in run:
                if isinstance(delta, ToolCallStarted):
                    items.append([delta.call_id, delta.name, delta.is_custom, ""])
                elif isinstance(delta, ToolCallDelta):
                    items[-1][3] += delta.text  # type: ignore[index]
    return items


def simplified(item: object) -> object:
    match item:
        case Message():
            return item.text
        case Reasoning():
            return item.summary
        case FunctionCall():
            return [item.call_id, item.name, False, item.arguments]
        case CustomToolCall():
            return [item.call_id, item.name, True, item.input]
    raise AssertionError(item)


@given(
    deltas=delta_lists,
    usage=usages,
    lane=st.sampled_from([None, "lane-a", "100%d"]),
    batch=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_accumulated_events_give_back_the_items(
    deltas: list[Delta], usage: Usage, lane: str | None, batch: int
) -> None:
    """deltas -> events -> items: nothing lost, however the deltas are batched."""
    request = ResponseRequest(model="m", input=(), stream_id=lane)
    stream = new_stream(request)
    events = stream.start()
    for start in range(0, len(deltas), batch):
        events += stream.feed(deltas[start : start + batch])
    events += stream.finish(Finished(FinishReason.STOP, usage))
    accumulator = Accumulator()
    decoded = [json.loads(event) for event in events]
    found = [item for event in decoded if (item := accumulator.feed(event)) is not None]
    assert expected_items(deltas) == [simplified(item) for item in stream.output_items]
    assert stream.output_items == accumulator.output_items == tuple(found)
    assert ("completed", usage, "resp_1") == (
        accumulator.status,
        accumulator.usage,
        accumulator.response_id,
    )
    assert all(lane == event.get("stream_id") for event in decoded)
    pieces = [event["delta"] for event in decoded if event["type"] in OUTPUT_DELTA_TYPES]
    assert "".join(d.text for d in deltas if hasattr(d, "text")) == "".join(pieces)


def test_an_end_that_was_not_sent_can_be_taken_back() -> None:
    """It gets the same number, and says what went wrong."""
    stream = ResponseStream("resp_1", decode_request(b'{"model":"m"}'), created_at=1, new_id=str)
    with pytest.raises(LocalProtocolError):
        stream.take_back("store_failed", "disk full")
    stream.start()
    ended = json.loads(stream.finish(Finished(FinishReason.STOP, Usage()), completed_at=2)[-1])
    failed = json.loads(stream.take_back("store_failed", "disk full"))
    assert failed["sequence_number"] == ended["sequence_number"]
    assert (failed["type"], stream.status) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "store_failed", "message": "disk full"}
    assert failed["response"]["completed_at"] is None
    assert json.loads(stream.final_response()) == failed["response"]
