"""Events of an upstream read back into deltas."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tightloop.protocol.deltas import (
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
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.items import Message, TextPart, user_message
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_reader import ResponseReader, output_signature
from tightloop.protocol.response_stream import ResponseStream


def new_id(prefix: str) -> str:
    return f"{prefix}_new"


def read(*events: dict[str, Any]) -> list[Delta]:
    reader = ResponseReader(new_id=new_id)
    return [delta for event in events for delta in reader.feed(event)]


def told(deltas: list[Delta]) -> list[Delta]:
    """The same in as few deltas as possible, without empty ones."""
    joined: list[Any] = []
    for delta in deltas:
        kinds = (TextDelta, ReasoningDelta, ToolCallDelta)
        if isinstance(delta, kinds):
            if not delta.text:
                continue
            if joined and type(joined[-1]) is type(delta):
                delta = type(delta)(joined.pop().text + delta.text)
        joined.append(delta)
    return joined


def stream_of(deltas: list[Delta], finished: Finished) -> tuple[list[dict[str, Any]], Any]:
    """The events that our own server makes of ``deltas``, and the stream that made them."""
    number = iter(range(1000))
    stream = ResponseStream(
        "resp_1",
        ResponseRequest(model="m", input=()),
        created_at=1,
        new_id=lambda prefix: f"{prefix}_{next(number)}",
    )
    frames = [*stream.start(), *stream.feed(deltas), *stream.finish(finished)]
    return [orjson.loads(frame) for frame in frames], stream


@given(strategies.delta_lists, strategies.usages)
def test_what_a_server_makes_of_deltas_becomes_the_same_deltas(
    deltas: list[Delta], usage: Usage
) -> None:
    """And the output is known again by its signature."""
    finished = Finished(FinishReason.STOP, usage)
    events, stream = stream_of(deltas, finished)
    reader = ResponseReader(new_id=new_id)
    found = [delta for event in events for delta in reader.feed(event)]
    has_calls = any(isinstance(delta, ToolCallDone) for delta in deltas)
    reason = FinishReason.TOOL_CALLS if has_calls else FinishReason.STOP
    assert [*told(deltas), Finished(reason, usage)] == told(found)
    assert reader.response_id == "resp_1"
    assert reader.is_finished
    assert reader.signature == output_signature(stream.output_items)


@given(strategies.delta_lists)
def test_a_stream_without_deltas_says_the_same(deltas: list[Delta]) -> None:
    """Some servers send finished items only, or nothing but the end."""
    finished = Finished(FinishReason.STOP, Usage())
    events, _ = stream_of(deltas, finished)
    rare = [event for event in events if "delta" not in event["type"]]
    expected = [delta for delta in told(deltas) if not isinstance(delta, Finished)]
    assert expected == told(read(*rare))[:-1]
    assert expected == told(read(events[-1]))[:-1]


def added(index: int | None, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int | None, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def text(index: int | None, delta: Any, kind: str = "output_text") -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": delta}


CALL = {"type": "function_call", "name": "f", "call_id": "c1"}
COMPLETED: dict[str, Any] = {"type": "response.completed", "response": {"id": "r"}}


def test_calls_that_are_interleaved_come_one_after_the_other() -> None:
    other = {**CALL, "call_id": "c2"}
    arguments = "function_call_arguments"
    assert read(
        added(0, **CALL),
        added(1, **other),
        text(1, "[2", arguments),
        text(0, "[1", arguments),
        done(1, **other, arguments="[2]"),
        done(0, **CALL, arguments="[1]"),
        COMPLETED,
    ) == [
        ToolCallStarted("c1", "f"),
        ToolCallDelta("[1"),
        ToolCallDelta("]"),
        ToolCallDone(),
        ToolCallStarted("c2", "f"),
        ToolCallDelta("[2"),
        ToolCallDelta("]"),
        ToolCallDone(),
        Finished(FinishReason.TOOL_CALLS, Usage()),
    ]


def test_items_without_numbers_are_those_in_order() -> None:
    """llama.cpp sends no output_index."""
    deltas = read(
        added(None, type="message"),
        text(None, "hi"),
        done(None, type="message", content=[{"type": "output_text", "text": "hi"}]),
        added(None, **CALL),
        text(None, "{}", "function_call_arguments"),
        done(None, **CALL, arguments="{}"),
        COMPLETED,
    )
    assert [TextDelta("hi"), ToolCallStarted("c1", "f")] == deltas[:2]
    assert deltas[-1].reason == FinishReason.TOOL_CALLS  # type: ignore[union-attr]


def last(*events: dict[str, Any]) -> Finished:
    finished = read(*events)[-1]
    assert isinstance(finished, Finished)
    return finished


@pytest.mark.parametrize(
    ("event", "reason", "code"),
    [
        (
            {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "max_output_tokens"}},
            },
            FinishReason.LENGTH,
            None,
        ),
        (
            {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "content_filter"}},
            },
            FinishReason.ERROR,
            "content_filter",
        ),
        ({"type": "response.incomplete", "response": {}}, FinishReason.ERROR, "upstream_error"),
        (
            {
                "type": "response.failed",
                "response": {"error": {"code": "server_error", "message": "died"}},
            },
            FinishReason.ERROR,
            "server_error",
        ),
        ({"type": "response.failed", "response": {}}, FinishReason.ERROR, "upstream_error"),
        (
            {
                "type": "error",
                "error": {"code": "rate_limit_exceeded", "message": "wait"},
                "headers": {"retry-after": "2"},
            },
            FinishReason.ERROR,
            "rate_limit_exceeded",
        ),
    ],
)
def test_every_end(event: dict[str, Any], reason: FinishReason, code: str | None) -> None:
    finished = last(added(0, type="message"), text(0, "x"), event)
    assert (reason, code) == (finished.reason, finished.error_code)
    assert (code is None) == (finished.error_message is None)


def test_a_hint_to_wait_comes_through() -> None:
    event = {"type": "error", "error": {"message": "wait"}, "headers": {"retry-after": "2"}}
    assert last(event).retry_after_s == 2


def test_a_call_that_was_cut_never_runs() -> None:
    """Neither when its item says so nor when its end never came."""
    start = (added(0, **CALL), text(0, '{"a', "function_call_arguments"))
    cut = {"type": "response.incomplete",
           "response": {"incomplete_details": {"reason": "max_output_tokens"}}}  # fmt: skip
    for events in (
        (*start, done(0, **CALL, arguments='{"a', status="incomplete"), cut),
        (*start, cut),
        (*start, COMPLETED),
    ):
        assert ToolCallDone() not in read(*events)
    assert last(*start, COMPLETED).error_code == "upstream_error"


def test_what_a_server_adds_of_its_own_says_nothing() -> None:
    deltas = read(
        {"type": "response.queued", "response": {}},
        {"type": "response.rate_limits.updated"},
        added(0, type="web_search_call", id="ws_1"),
        done(0, type="web_search_call", id="ws_1"),
        added(1, type="message"),
        text(1, "found", "refusal"),
        COMPLETED,
        text(1, "late"),
    )
    assert [TextDelta("found"), Finished(FinishReason.STOP, Usage())] == deltas


def test_parts_of_a_summary_are_paragraphs() -> None:
    part = {"type": "response.reasoning_summary_part.added", "output_index": 0}
    events = [part, text(0, "a", "reasoning_summary_text")]
    deltas = read(added(0, type="reasoning"), *events, *events, COMPLETED)
    assert ReasoningDelta("a\n\na") == told(deltas)[0]


@pytest.mark.parametrize(
    "events",
    [
        [added(0, type="message"), added(0, type="message")],
        [added(0)],
        [added(0, type="function_call", call_id="c")],
        [text(0, 3)],
        [text("0", "x")],  # type: ignore[arg-type]
        [text(0, "{}", "function_call_arguments")],
        [added(0, **CALL), text(0, "{}", "function_call_arguments"), done(0, **CALL)],
        [done(0, type="message"), done(0, type="message")],
        [{"type": "response.completed"}],
        [{"type": "response.output_item.added", "output_index": 0, "item": 3}],
    ],
)
def test_what_contradicts_itself_is_refused(events: list[dict[str, Any]]) -> None:
    with pytest.raises(RemoteProtocolError):
        read(*events)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    [
                        "response.created",
                        "response.output_item.added",
                        "response.output_item.done",
                        "response.output_text.delta",
                        "response.function_call_arguments.delta",
                        "response.reasoning_summary_part.added",
                        "response.completed",
                        "response.incomplete",
                        "response.failed",
                        "error",
                        "tightloop:timing",
                    ]
                )
            },
            optional={
                "output_index": st.integers(-1, 2) | strategies.json_values,
                "item": strategies.objects() | st.just({"type": "message"}) | st.just(CALL),
                "response": strategies.objects(),
                "delta": strategies.json_values,
                "error": strategies.json_values,
                "timing": strategies.json_values,
            },
        ),
        max_size=8,
    )
)
def test_any_events_give_deltas_or_the_remote_error(events: list[dict[str, Any]]) -> None:
    reader = ResponseReader(new_id=new_id)
    try:
        deltas = [delta for event in events for delta in reader.feed(event)]
    except RemoteProtocolError:
        return
    assert reader.is_finished == any(isinstance(delta, Finished) for delta in deltas)


def test_items_that_are_not_output_have_a_signature_too() -> None:
    """It only has to be another one."""
    said = Message("assistant", (TextPart("output_text", "hi"),))
    assert output_signature([said]) == output_signature([said, Message("assistant", ())])
    assert output_signature([said]) != output_signature([said, said])
    assert output_signature([said]) == output_signature([user_message("yo")])
