import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from tests.strategies import delta_lists, usages
from tightloop.protocol.chat_history import WireMessage, history_items
from tightloop.protocol.chat_stream import CONTEXT_FULL, ChatStream, chat_streams
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
    Item,
    Message,
    Reasoning,
    TextPart,
)
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import Cancellation, ResponseStream

REQUEST = ResponseRequest(model="m", input=(), store=False)
STOP = Finished(FinishReason.STOP, Usage(10, 8, 5, 2, 3, 4))
CANCELLED = Finished(FinishReason.CANCELLED, Usage())
CALL = ToolCallStarted("call_1", "shell")
FULL: list[Delta] = [
    ReasoningDelta("Plan"),
    TextDelta("Hi"),
    TextDelta(' "there"\n'),
    CALL,
    ToolCallDelta('{"cmd":'),
    ToolCallDelta('"ls"}'),
    ToolCallDone(),
    ToolCallStarted("call_2", "apply_patch", is_custom=True),
    ToolCallDelta("*** Begin Patch\n…"),
    ToolCallDone(),
]
FULL_ITEMS: tuple[Item, ...] = (
    Reasoning(("Plan",)),
    Message("assistant", (TextPart("output_text", 'Hi "there"\n'),)),
    FunctionCall("call_1", "shell", '{"cmd":"ls"}'),
    CustomToolCall("call_2", "apply_patch", "*** Begin Patch\n…"),
)

chunk_type: TypeAdapter[ChatCompletionChunk] = TypeAdapter(ChatCompletionChunk)
completion_type: TypeAdapter[ChatCompletion] = TypeAdapter(ChatCompletion)


def no_id(_prefix: str) -> str:
    raise AssertionError("items of this dialect have no ids")


def new_stream(request: ResponseRequest = REQUEST, *, include_usage: bool = False) -> ChatStream:
    stream = chat_streams(include_usage=include_usage)(
        "resp_1", request, created_at=1795361032, new_id=no_id
    )
    assert isinstance(stream, ChatStream)
    return stream


def started(*, include_usage: bool = False) -> ChatStream:
    stream = new_stream(include_usage=include_usage)
    stream.start()
    return stream


def delta_of(chunk: bytes) -> dict[str, Any]:
    delta: dict[str, Any] = json.loads(chunk)["choices"][0]["delta"]
    return delta


def finish_reason(chunk: bytes) -> str | None:
    reason: str | None = json.loads(chunk)["choices"][0]["finish_reason"]
    return reason


def test_the_whole_sequence() -> None:
    """Role, thoughts, text, calls by name and then by index, reason, usage."""
    stream = new_stream(include_usage=True)
    [role] = stream.start()
    deltas = [delta_of(chunk) for chunk in stream.feed(FULL)]
    end, usage = stream.finish(STOP)
    assert delta_of(role) == {"role": "assistant", "content": ""}
    function = {"name": "shell", "arguments": ""}
    custom = {"name": "apply_patch", "input": ""}
    assert deltas == [
        {"reasoning_content": "Plan"},
        {"content": "Hi"},
        {"content": ' "there"\n'},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"cmd":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"ls"}'}}]},
        {"tool_calls": [{"index": 1, "id": "call_2", "type": "custom", "custom": custom}]},
        {"tool_calls": [{"index": 1, "custom": {"input": "*** Begin Patch\n…"}}]},
    ]
    assert (delta_of(end), finish_reason(end)) == ({}, "tool_calls")
    identity = {"id": "chatcmpl-1", "created": 1795361032, "model": "m"}
    assert json.loads(usage) == {
        "object": "chat.completion.chunk",
        **identity,
        "choices": [],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {
                "reasoning_tokens": 2,
                "accepted_prediction_tokens": 3,
                "rejected_prediction_tokens": 4,
            },
        },
    }
    assert stream.output_items == FULL_ITEMS


def test_usage_comes_only_when_asked_for() -> None:
    stream = started()
    assert len(stream.finish(STOP)) == 1
    assert json.loads(stream.snapshot())["usage"]["prompt_tokens"] == 10


def test_the_whole_answer_as_one_object() -> None:
    stream = started()
    stream.feed(FULL)
    stream.finish(STOP)
    completion = json.loads(stream.snapshot())
    completion_type.validate_python(completion, strict=True)
    function = {"name": "shell", "arguments": '{"cmd":"ls"}'}
    custom = {"name": "apply_patch", "input": "*** Begin Patch\n…"}
    assert completion["choices"] == [
        {
            "index": 0,
            "logprobs": None,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": 'Hi "there"\n',
                "refusal": None,
                "reasoning_content": "Plan",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": function},
                    {"id": "call_2", "type": "custom", "custom": custom},
                ],
            },
        }
    ]


def test_an_answer_without_text_has_null_content() -> None:
    stream = started()
    stream.feed([CALL, ToolCallDone()])
    stream.finish(STOP)
    message = json.loads(stream.snapshot())["choices"][0]["message"]
    assert message["content"] is None
    assert "reasoning_content" not in message


def test_before_the_end_the_object_has_no_finish_reason() -> None:
    stream = started()
    stream.feed([TextDelta("a")])
    assert json.loads(stream.snapshot())["choices"][0]["finish_reason"] is None
    assert not stream.is_finished


@pytest.mark.parametrize(
    ("deltas", "finished", "reason", "status"),
    [
        ([TextDelta("a")], STOP, "stop", "completed"),
        ([CALL, ToolCallDone()], STOP, "tool_calls", "completed"),
        ([TextDelta("a")], Finished(FinishReason.TOOL_CALLS, Usage()), "stop", "completed"),
        ([TextDelta("a")], Finished(FinishReason.LENGTH, Usage()), "length", "incomplete"),
        ([CALL], Finished(FinishReason.LENGTH, Usage()), "length", "incomplete"),
        ([TextDelta("a")], CANCELLED, "length", "incomplete"),
        ([CALL, ToolCallDone(), CALL], CANCELLED, "length", "incomplete"),
    ],
)
def test_how_it_ended(deltas: list[Delta], finished: Finished, reason: str, status: str) -> None:
    stream = started()
    stream.feed(deltas)
    [end] = stream.finish(finished)
    assert finish_reason(end) == reason
    assert stream.status == status
    assert stream.is_finished


def test_a_call_that_was_cancelled_half_way_is_no_part_of_the_answer() -> None:
    """One that the token limit cut is: its reader was told so."""
    call: list[Delta] = [CALL, ToolCallDelta('{"cmd')]
    cancelled, cut = started(), started()
    for stream in (cancelled, cut):
        stream.feed([TextDelta("a"), *call])
    cancelled.finish(CANCELLED)
    cut.finish(Finished(FinishReason.LENGTH, Usage()))
    assert cancelled.output_items == (Message("assistant", (TextPart("output_text", "a"),)),)
    assert cut.output_items[1:] == (FunctionCall("call_1", "shell", '{"cmd'),)


def test_a_discarded_answer_keeps_whole_items_only() -> None:
    stream = started()
    stream.feed([TextDelta("a")])
    stream.finish(CANCELLED, cancellation=Cancellation.DISCARDED)
    assert stream.output_items == ()


def test_one_cancelled_by_its_id_says_so() -> None:
    stream = started()
    stream.finish(CANCELLED, cancellation=Cancellation.CANCELLED)
    assert stream.status == "cancelled"


def test_a_failure_is_one_error_and_nothing_after_it() -> None:
    stream = started(include_usage=True)
    stream.feed([TextDelta("a")])
    usage = Usage(3)
    error = Finished(FinishReason.ERROR, usage, error_code="upstream_error", error_message="gone")
    [event] = stream.finish(error)
    assert json.loads(event) == {
        "error": {
            "message": "gone",
            "type": "server_error",
            "code": "upstream_error",
            "param": None,
        }
    }
    assert stream.snapshot() == event
    assert (stream.status, stream.usage, stream.is_finished) == ("failed", usage, True)


def test_a_full_context_is_said_in_the_words_that_clients_look_for() -> None:
    [event] = started().fail("context_length_exceeded", "9 tokens of 8")
    error = json.loads(event)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"] == f"{CONTEXT_FULL}: 9 tokens of 8"
    assert "this model's maximum context length is" in CONTEXT_FULL


def test_a_failure_before_the_start_and_one_with_half_a_character() -> None:
    [event] = new_stream().fail("server_error", "bad \ud83d")
    assert json.loads(event)["error"]["message"] == "bad ?"


def test_a_refused_delta_loses_nothing_that_came_before_it() -> None:
    stream = started()
    with pytest.raises(LocalProtocolError, match="CALL_DELTA"):
        stream.feed([TextDelta("a"), ToolCallDelta("x")])
    with pytest.raises(LocalProtocolError):
        stream.feed([TextDelta("b")])
    text, error = stream.fail("server_error", "out of order")
    assert delta_of(text) == {"content": "a"}
    assert "error" in json.loads(error)


def test_half_a_character_is_refused() -> None:
    stream = started()
    with pytest.raises(LocalProtocolError, match="half a character"):
        stream.feed([TextDelta("\ud83d")])


def test_the_end_cannot_be_fed() -> None:
    with pytest.raises(LocalProtocolError, match="finish"):
        started().feed([STOP])


def test_an_end_inside_a_call_is_refused() -> None:
    stream = started()
    stream.feed([CALL])
    with pytest.raises(LocalProtocolError, match="END"):
        stream.finish(STOP)


def test_a_last_chunk_can_be_taken_back_once_made() -> None:
    stream = started()
    with pytest.raises(LocalProtocolError):
        stream.take_back("store_failed", "disk full")
    stream.finish(STOP)
    error = json.loads(stream.take_back("store_failed", "disk full"))["error"]
    assert error["code"] == "store_failed"
    assert stream.status == "failed"


def test_a_heartbeat_says_nothing() -> None:
    """At any time, inside a call too; it changes nothing that a reader collects."""
    stream = started()
    stream.feed([CALL])
    [beat] = stream.heartbeat()
    assert (delta_of(beat), finish_reason(beat)) == ({}, None)
    stream.feed([ToolCallDelta("{}"), ToolCallDone()])
    stream.finish(STOP)
    assert stream.output_items == (FunctionCall("call_1", "shell", "{}"),)
    with pytest.raises(LocalProtocolError):
        stream.heartbeat()


def test_there_is_no_place_for_other_events() -> None:
    with pytest.raises(LocalProtocolError, match="no place"):
        started().aside("response.steer.accepted", {})


def test_a_compaction_is_an_item_and_no_chunk() -> None:
    stream = started()
    assert stream.feed([TextDelta("a"), ContextCompacted("x")])[1:] == []
    assert stream.output_items[1:] == (Compaction("x"),)


def test_a_prewarm_says_nothing() -> None:
    stream = new_stream(msgspec.structs.replace(REQUEST, generate=False))
    stream.start()
    with pytest.raises(LocalProtocolError):
        stream.feed([TextDelta("a")])


def test_calls_are_counted() -> None:
    stream = started()
    stream.feed([CALL])
    assert stream.num_calls == 1


@settings(max_examples=60)
@given(delta_lists, st.lists(st.integers(0, 30), max_size=4), usages)
def test_any_deltas_in_any_batches(deltas: list[Delta], cuts: list[int], usage: Usage) -> None:
    """Chunks parse strictly; what a reader collects is the object; the items are those of a
    Responses stream; and they are what comes of the message when the client sends it back.
    """
    stream = new_stream(include_usage=True)
    chunks = stream.start()
    edges = [0, *sorted(min(cut, len(deltas)) for cut in cuts), len(deltas)]
    for start, end in itertools.pairwise(edges):
        chunks += stream.feed(deltas[start:end])
    chunks += stream.finish(Finished(FinishReason.STOP, usage))
    for chunk in chunks:
        assert typed(chunk).id == "chatcmpl-1"

    completion = json.loads(stream.snapshot())
    completion_type.validate_python(completion)
    message = completion["choices"][0]["message"]
    assert collected(chunks) == message

    reference = ResponseStream("resp_1", REQUEST, created_at=1, new_id=lambda prefix: f"{prefix}_1")
    reference.start()
    reference.feed(deltas)
    reference.finish(STOP)
    assert stream.output_items == tuple(without_id(item) for item in reference.output_items)

    echoed = history_items([msgspec.convert(message, WireMessage)]).items
    assert echoed == merged(stream.output_items)


def typed(chunk: bytes) -> ChatCompletionChunk:
    """Checked against the SDK's type, which knows custom calls in whole answers but not in chunks."""
    fields = json.loads(chunk)
    for choice in fields["choices"]:
        for call in choice["delta"].get("tool_calls", ()):
            if call.pop("custom", None) is not None and "id" in call:
                assert call.pop("type") == "custom"
    return chunk_type.validate_python(fields, strict=True)


def without_id(item: Item) -> Item:
    return msgspec.structs.replace(item, id=None)


def merged(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """As one chat message can tell them: all thoughts, all text, all calls."""
    thoughts = "".join(
        text for item in items if isinstance(item, Reasoning) for text in item.summary
    )
    text = "".join(item.text for item in items if isinstance(item, Message))
    calls = tuple(item for item in items if isinstance(item, FunctionCall | CustomToolCall))
    spoken = (Message("assistant", (TextPart("output_text", text),)),) if text else ()
    return (*((Reasoning((thoughts,)),) if thoughts else ()), *spoken, *calls)


def collected(chunks: list[bytes]) -> dict[str, Any]:
    """The message that a plain reader makes of the chunks."""
    message: dict[str, Any] = {"role": None, "content": "", "refusal": None}
    calls: list[dict[str, Any]] = []
    for chunk in chunks:
        for choice in json.loads(chunk)["choices"]:
            delta = choice["delta"]
            message["role"] = delta.get("role", message["role"])
            message["content"] += delta.get("content", "")
            if "reasoning_content" in delta:
                thoughts = message.get("reasoning_content", "")
                message["reasoning_content"] = thoughts + delta["reasoning_content"]
            for call in delta.get("tool_calls", ()):
                add_call(calls, call)
    message["content"] = message["content"] or None
    return message | ({"tool_calls": calls} if calls else {})


def add_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    index = piece.pop("index")
    if index == len(calls):
        calls.append(piece)
        return
    assert index == len(calls) - 1  # one call after the other
    [(kind, fields)] = piece.items()
    [(field, text)] = fields.items()
    calls[index][kind][field] += text


def test_the_sdks_own_collector_takes_the_chunks() -> None:
    """Its helper knows function calls only, and fails for streamed custom calls of any server."""
    stream = new_stream(include_usage=True)
    chunks = stream.start() + stream.heartbeat() + stream.feed(FULL[:7]) + stream.finish(STOP)
    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(typed(chunk))
    final = state.get_final_completion()
    message = final.choices[0].message
    assert message.content == 'Hi "there"\n'
    assert message.tool_calls[0].function.arguments == '{"cmd":"ls"}'
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage.prompt_tokens_details.cached_tokens == 8


def test_the_tier_that_was_used_is_told_at_the_end() -> None:
    """From the finish reason on, and in the whole; the official types take it."""
    stream = started(include_usage=True)
    assert "service_tier" not in json.loads(stream.snapshot())
    chunks = stream.finish(STOP, extra={"service_tier": "flex", "end_turn": False})
    for chunk in chunks:
        assert chunk_type.validate_json(chunk).service_tier == "flex"
    whole = completion_type.validate_json(stream.snapshot())
    assert whole.service_tier == "flex"
    assert "end_turn" not in json.loads(stream.snapshot())
