import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values, texts
from tightloop.protocol.chat_completions import ChatStreamParser
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
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import ResponseStream

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
DONE = ToolCallDone()


def new_parser() -> ChatStreamParser:
    return ChatStreamParser(["apply_patch"], new_id=lambda prefix: f"{prefix}_new")


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}


def piece(
    arguments: object, *, index: int | None = 0, id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    call = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [{k: v for k, v in call.items() if v is not None}]})


def parsed(*chunks: dict[str, Any]) -> list[Delta]:
    parser = new_parser()
    deltas = [delta for one in chunks for delta in parser.feed(one)]
    return deltas + parser.end()


def finished(reason: FinishReason) -> Finished:
    return Finished(reason, Usage())


def test_text_reasoning_and_usage() -> None:
    deltas = parsed(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "h"}),
        chunk({"reasoning": "m"}),
        chunk({"content": "Hi"}),
        chunk({}, "stop"),
        {"choices": [], "usage": USAGE},
    )
    assert deltas == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("Hi"),
        Finished(FinishReason.STOP, Usage(10, 8, 5, 2)),
    ]


def test_the_end_comes_with_the_usage_chunk_and_only_once() -> None:
    parser = new_parser()
    parser.feed(chunk({"content": "x"}, "stop"))
    assert not parser.is_finished
    assert len(parser.feed({"choices": [], "usage": USAGE})) == 1
    assert parser.is_finished
    assert parser.feed({"choices": [], "usage": USAGE}) == []
    assert parser.end() == []


def test_a_call_is_done_when_its_json_closes() -> None:
    """Not when the upstream's finish reason comes: a tool can start before that."""
    parser = new_parser()
    assert parser.feed(piece("", id="c1", name="f")) == [ToolCallStarted("c1", "f")]
    assert parser.feed(piece('{"a":"}')) == [ToolCallDelta('{"a":"}')]
    assert parser.feed(piece('"}')) == [ToolCallDelta('"}'), DONE]
    assert parser.feed(piece("}")) == []
    assert parser.feed(chunk({"tool_calls": [{"index": 0}]})) == []
    assert parser.feed(chunk({}, "tool_calls")) == []
    assert parser.end() == [finished(FinishReason.TOOL_CALLS)]


def test_parallel_calls_one_after_the_other() -> None:
    deltas = parsed(
        piece('{"a":1}', id="c1", name="f"),
        piece("{", id="c2", name="g", index=1),
        piece("}", index=1),
        chunk({}, "stop"),
    )
    assert deltas == [
        ToolCallStarted("c1", "f"),
        ToolCallDelta('{"a":1}'),
        DONE,
        ToolCallStarted("c2", "g"),
        ToolCallDelta("{"),
        ToolCallDelta("}"),
        DONE,
        finished(FinishReason.TOOL_CALLS),
    ]


def test_interleaved_calls_are_put_in_order() -> None:
    deltas = parsed(
        piece('{"a"', id="c1", name="f"),
        piece("{", id="c2", name="g", index=1),
        piece(":1}"),
        piece("}", index=1),
        chunk({}, "tool_calls"),
    )
    assert deltas == [
        ToolCallStarted("c1", "f"),
        ToolCallDelta('{"a"'),
        ToolCallDelta(":1}"),
        DONE,
        ToolCallStarted("c2", "g"),
        ToolCallDelta("{"),
        ToolCallDelta("}"),
        DONE,
        finished(FinishReason.TOOL_CALLS),
    ]


def test_a_custom_tools_input_is_unwrapped_while_it_streams() -> None:
    text = "*** Begin\n\u00e9\U0001f600"
    wire = json.dumps({"input": text})
    parser = new_parser()
    deltas = parser.feed(piece("", id="c1", name="apply_patch"))
    for char in wire:
        deltas += parser.feed(piece(char))
    assert deltas[0] == ToolCallStarted("c1", "apply_patch", is_custom=True)
    assert deltas[-1] == DONE
    assert "".join(d.text for d in deltas if isinstance(d, ToolCallDelta)) == text


def test_a_custom_tools_input_without_wrapping_is_taken_as_it_is() -> None:
    deltas = parsed(
        piece(" ", id="c1", name="apply_patch"),
        piece("*** Begin"),
        piece(" {"),
        chunk({}, "tool_calls"),
    )
    assert deltas[1:-1] == [ToolCallDelta("*** Begin"), ToolCallDelta(" {"), DONE]


def test_a_custom_tools_broken_wrapping_is_an_error_not_half_an_input() -> None:
    parser = new_parser()
    parser.feed(piece('{"input":"a', id="c1", name="apply_patch"))
    with pytest.raises(RemoteProtocolError):
        parser.feed(piece("\\q"))
    parser = new_parser()
    parser.feed(piece('{"input":"rm -r a', id="c1", name="apply_patch"))
    with pytest.raises(RemoteProtocolError, match="ended before its JSON did"):
        parser.feed(chunk({}, "stop"))


def test_servers_that_do_not_stream_calls() -> None:
    """Whole calls in one piece: with index 0 for each, without index or id, arguments decoded."""
    deltas = parsed(
        piece('{"a":1}', id="c1", name="f"),
        piece('{"a":2}', id="c2", name="f"),
        piece({"a": 3}, id="c3", name="f", index=None),
        chunk({}, "stop"),
    )
    started = [d.call_id for d in deltas if isinstance(d, ToolCallStarted)]
    texts_ = [d.text for d in deltas if isinstance(d, ToolCallDelta)]
    assert started == ["c1", "c2", "c3"]
    assert texts_ == ['{"a":1}', '{"a":2}', '{"a":3}']
    (first, *_) = parsed(piece("{}", name="f"))
    assert first == ToolCallStarted("call_new", "f")


def test_a_call_without_arguments_has_the_empty_object() -> None:
    deltas = parsed(piece("", id="c1", name="f"), chunk({}, "tool_calls"))
    assert deltas[1:-1] == [ToolCallDelta("{}"), DONE]


def test_arguments_while_the_open_call_is_broken_wait_for_the_end() -> None:
    deltas = parsed(
        piece("oops", id="c1", name="f"),
        piece("{}", id="c2", name="g", index=1),
        piece("{}", id="c3", name="g", index=2),
        chunk({}, "tool_calls"),
    )
    done = [d for d in deltas if isinstance(d, ToolCallStarted | ToolCallDone)]
    assert done == [
        ToolCallStarted("c1", "f"),
        DONE,
        ToolCallStarted("c2", "g"),
        DONE,
        ToolCallStarted("c3", "g"),
        DONE,
    ]


def test_arguments_that_are_no_json_end_with_the_finish_reason() -> None:
    deltas = parsed(piece("oops", id="c1", name="f"), piece("}"), chunk({}, "tool_calls"))
    assert deltas[1:-1] == [ToolCallDelta("oops"), ToolCallDelta("}"), DONE]


def test_the_token_limit_leaves_the_call_open() -> None:
    deltas = parsed(piece('{"a', id="c1", name="f"), chunk({}, "length"))
    assert deltas[1:] == [ToolCallDelta('{"a'), finished(FinishReason.LENGTH)]


def test_text_ends_a_call_and_white_space_does_not() -> None:
    deltas = parsed(
        piece('{"a', id="c1", name="f"), chunk({"content": "\n"}), piece('":1}'), chunk({}, "stop")
    )
    assert deltas[1:-1] == [ToolCallDelta('{"a'), ToolCallDelta('":1}'), DONE]
    deltas = parsed(piece("x", id="c1", name="f"), chunk({"content": "so"}, "stop"))
    assert deltas[2:-1] == [DONE, TextDelta("so")]


@pytest.mark.parametrize(
    ("chunks", "code", "message"),
    [
        ([chunk({"content": "x"})], "upstream_error", "without a finish reason"),
        ([chunk({}, "content_filter")], "content_filter", "content filter"),
        ([chunk({"content": "x"}, "SAFETY")], "content_filter", "content filter"),
        ([chunk({}, "abort")], "upstream_error", "'abort'"),
        ([chunk({}, "error"), {"choices": [], "usage": USAGE}], "upstream_error", "'error'"),
        ([chunk({}, "network_error")], "upstream_error", "'network_error'"),
        ([chunk({}, "error"), chunk({}, "stop")], "upstream_error", "'error'"),
        ([chunk({}, "insufficient_system_resource")], "upstream_error", "insufficient_system"),
        ([{"message": "died"}, chunk({}, "abort")], "upstream_error", "died"),
        ([chunk({}, "abort"), {"message": "died"}], "upstream_error", "died"),
        ([{"error": {"message": "died", "code": "overloaded"}}], "overloaded", "died"),
        ([{"error": "died"}], "upstream_error", "died"),
        ([{"error": "died", "choices": 3}], "upstream_error", "died"),
        ([{"error": {"error": {"message": "died"}}}], "upstream_error", "died"),
        ([{"error": {}}], "upstream_error", "without a reason"),
        ([{"detail": "died"}], "upstream_error", "died"),
        ([{"detail": [{"msg": "bad"}, {"msg": "died"}]}], "upstream_error", "bad; died"),
        ([{"message": "died", "code": 500}], "upstream_error", "died"),
        ([{"object": "error", "message": "died"}, chunk({}, "stop")], "upstream_error", "died"),
        ([{"type": "error", "message": "died"}, chunk({}, "stop")], "upstream_error", "died"),
        (
            [{"choices": [{"error": {"message": "died"}, "finish_reason": "error"}]}],
            "upstream_error",
            "died",
        ),
        (
            [{"choices": [{"finish_reason": {"type": "abort", "message": "died"}}]}],
            "upstream_error",
            "died",
        ),
    ],
)
def test_bad_endings_are_errors_with_a_code_and_the_hosts_words(
    chunks: list[dict[str, Any]], code: str, message: str
) -> None:
    last = parsed(*chunks)[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.error_code) == (FinishReason.ERROR, code)
    assert message in str(last.error_message)


def test_a_failure_keeps_the_usage_that_came_with_it() -> None:
    (last,) = parsed({"error": {"message": "died"}, "usage": USAGE})
    assert isinstance(last, Finished)
    assert last.usage == Usage(10, 8, 5, 2)


@pytest.mark.parametrize("payload", ["died", {"error": "died"}, [{"error": {"message": "died"}}]])
def test_an_error_event_fails_with_whatever_it_says(payload: object) -> None:
    parser = new_parser()
    (last,) = parser.fail(payload)
    assert isinstance(last, Finished)
    assert (last.error_code, last.error_message) == ("upstream_error", "died")
    assert parser.fail("again") == parser.end() == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("eos", FinishReason.STOP),
        ("END_TURN", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.STOP),  # there was none
    ],
)
def test_unknown_reasons_are_a_stop_and_do_not_end_the_reading(
    reason: str, expected: FinishReason
) -> None:
    deltas = parsed(chunk({"content": "a"}, reason), {"choices": [], "usage": USAGE})
    assert deltas == [TextDelta("a"), Finished(expected, Usage(10, 8, 5, 2))]
    deltas = parsed(chunk({"content": "a"}, reason), chunk({"content": "b"}))
    assert deltas == [TextDelta("a"), TextDelta("b"), finished(expected)]


@pytest.mark.parametrize("reason", ["null", "none", "", 3])
def test_what_only_looks_like_a_reason_is_none(reason: object) -> None:
    odd: dict[str, Any] = {"choices": [{"delta": {"content": "a"}, "finish_reason": reason}]}
    assert parsed(odd, chunk({}, "stop")) == [TextDelta("a"), finished(FinishReason.STOP)]
    assert parsed(odd)[-1] != finished(FinishReason.STOP)


@pytest.mark.parametrize(
    "ending", [[], [chunk({}, "abort")], [chunk({}, "content_filter")], [{"error": "died"}]]
)
@pytest.mark.parametrize("arguments", ['{"a', "", '{"input":"rm -r a'])
@pytest.mark.parametrize("name", ["f", "apply_patch"])
def test_a_call_that_was_cut_is_never_done(
    name: str, arguments: str, ending: list[dict[str, Any]]
) -> None:
    """Clients start a tool when its call is done: half of its arguments must not run."""
    waiting = piece("{}", id="c2", name="f", index=1)
    *body, last = parsed(piece(arguments, id="c1", name=name), waiting, *ending)
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.ERROR
    assert DONE not in body


@pytest.mark.parametrize("late", [chunk({"content": "so"}), piece("}"), chunk({}, "stop")])
def test_nothing_after_a_failure_completes_a_call(late: dict[str, Any]) -> None:
    *body, last = parsed(piece("{", id="c1", name="f"), chunk({}, "abort"), late)
    assert body == [ToolCallStarted("c1", "f"), ToolCallDelta("{")]
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.ERROR


def test_a_call_that_began_after_the_finish_reason_must_still_be_whole() -> None:
    late = piece('{"a', id="c1", name="f")
    *body, last = parsed(chunk({}, "stop"), late)
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.ERROR
    assert DONE not in body
    assert "in the middle of a tool call" in str(last.error_message)
    whole = parsed(chunk({}, "stop"), late, piece('":1}'))
    assert whole[-2:] == [DONE, finished(FinishReason.TOOL_CALLS)]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"index": None, "delta": {"content": None}}]},
        {"choices": [{"delta": {"role": "assistant", "tool_calls": None}}]},
        {"choices": [{"delta": {"tool_calls": [None, {}, {"index": 0}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": None}]}}]},
        {"choices": [{"delta": {"reasoning": 7, "reasoning_content": False}}]},
        {"choices": [{"index": 1, "delta": {"content": "of another answer"}}]},
        {"usage": None},
        {"usage": "x"},
        {"usage": {}},
        {"error": None},
        {"choices": [], "error": ""},
        {"type": "ping", "message": "still here"},
    ],
)
def test_empty_chunks_of_every_shape_are_passed_over(odd: dict[str, Any]) -> None:
    deltas = parsed(
        odd, chunk({"content": "a"}), odd, chunk({"content": "b"}), chunk({}, "stop"), odd
    )
    assert deltas == [TextDelta("a"), TextDelta("b"), finished(FinishReason.STOP)]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"prompt_tokens": 10.0, "completion_tokens": 5.9}, Usage(10, 0, 5)),
        ({"prompt_tokens": -1, "completion_tokens": -0.5}, Usage()),
        ({"prompt_tokens": None, "completion_tokens": 3}, Usage(output_tokens=3)),
        ({"prompt_tokens": "12", "completion_tokens": True}, Usage()),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, Usage()),
        ({"prompt_tokens": 10**40, "completion_tokens": 2}, Usage(output_tokens=2)),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(4, 4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": 3}, Usage(4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": -9}}, Usage(4)),
        ({"completion_tokens_details": {"reasoning_tokens": 2.0}}, Usage(reasoning_tokens=2)),
        (
            {"completion_tokens_details": {"accepted_prediction_tokens": 3}},
            Usage(accepted_prediction_tokens=3),
        ),
        (
            {"completion_tokens_details": {"rejected_prediction_tokens": 4}},
            Usage(rejected_prediction_tokens=4),
        ),
    ],
)
def test_no_usage_figure_is_nonsense(figures: dict[str, Any], expected: Usage) -> None:
    (last,) = parsed(chunk({}, "stop"), {"choices": None, "usage": figures})
    assert last == Finished(FinishReason.STOP, expected)


def test_empty_figures_do_not_undo_those_that_came() -> None:
    first = {"choices": [], "usage": USAGE}
    (last,) = parsed(first, chunk({}, "stop"), {"choices": [], "usage": {}})
    assert last == Finished(FinishReason.STOP, Usage(10, 8, 5, 2))


def test_content_in_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [thinking, {"type": "text", "text": "a"}, "b", None, {"type": "image_url"}]
    deltas = parsed(chunk({"content": parts}), chunk({"content": {"text": "c"}}, "stop"))
    assert deltas[:-1] == [ReasoningDelta("hm"), TextDelta("ab"), TextDelta("c")]


def test_calls_in_odd_shapes() -> None:
    """One call instead of a list, an index as text or a fraction, a number as the id."""
    for call in (
        {"index": "0", "id": 7, "function": {"name": "f", "arguments": {"a": 1}}},
        {"index": 0.0, "id": "7", "type": 3, "function": {"name": "f", "arguments": '{"a":1}'}},
        {"index": -1, "id": "7", "function": {"name": "f", "arguments": {"a": 1}}},
    ):
        for calls in (call, [call]):
            deltas = parsed(chunk({"tool_calls": calls}), chunk({}, "stop"))
            assert deltas[0] == ToolCallStarted("7", "f")
            assert deltas[1:-1] == [ToolCallDelta('{"a":1}'), DONE]


def test_a_name_may_come_after_the_id() -> None:
    deltas = parsed(
        chunk({"tool_calls": [{"index": 0, "id": "c1", "function": None}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": None}}]}),
        piece("{}"),
        chunk({}, "tool_calls"),
    )
    assert deltas[:-1] == [ToolCallStarted("c1", "f"), ToolCallDelta("{}"), DONE]


def test_whole_calls_without_index_and_id_are_all_kept() -> None:
    deltas = parsed(
        piece('{"a":1}', index=None, name="f"),
        piece({"a": 2}, index=None, name="f"),
        piece(" ", index=None, name="f"),
        chunk({}, "stop"),
    )
    assert [d.text for d in deltas if isinstance(d, ToolCallDelta)] == ['{"a":1}', '{"a":2}']


def test_pieces_without_index_go_to_the_call_of_their_id() -> None:
    deltas = parsed(
        piece('{"a"', index=None, id="c1", name="f"),
        piece("{", index=None, id="c2", name="g"),
        piece(":1}", index=None, id="c1"),
        piece("}", index=None, id="c2"),
        chunk({}, "tool_calls"),
    )
    assert [d.text for d in deltas if isinstance(d, ToolCallDelta)] == ['{"a"', ":1}", "{", "}"]


def test_an_id_given_twice_is_given_once() -> None:
    """Or the client could not say which call its output is for."""
    deltas = parsed(
        piece("{}", id="c", name="f"), piece("{}", id="c", name="g", index=1), chunk({}, "stop")
    )
    started = [d.call_id for d in deltas if isinstance(d, ToolCallStarted)]
    assert started == ["c", "call_new"]


def test_an_answer_that_was_not_streamed_is_read_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "so", "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    deltas = new_parser().feed_whole({"choices": [choice], "usage": USAGE})
    assert deltas == [
        TextDelta("so"),
        ToolCallStarted("c1", "f"),
        ToolCallDelta("{}"),
        DONE,
        Finished(FinishReason.TOOL_CALLS, Usage(10, 8, 5, 2)),
    ]


@pytest.mark.parametrize("body", [{"error": "died"}, {"detail": "died"}, ["died"], "died"])
def test_a_body_that_is_no_answer_fails_with_what_it_says(body: object) -> None:
    (last,) = new_parser().feed_whole(body)
    assert isinstance(last, Finished)
    assert (last.reason, last.error_message) == (FinishReason.ERROR, "died")


@pytest.mark.parametrize("body", [None, {}, [], 3, {"choices": []}, {"choices": [{}]}])
def test_a_body_that_says_nothing_is_a_failure_too(body: object) -> None:
    (last,) = new_parser().feed_whole(body)
    assert isinstance(last, Finished)
    assert (last.reason, last.error_code) == (FinishReason.ERROR, "upstream_error")


@pytest.mark.parametrize(
    "bad",
    [
        {"choices": 3},
        {"choices": [3]},
        {"choices": [{"delta": {"content": 3}}]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"tool_calls": 3}}]},
        {"choices": [{"delta": {"tool_calls": [3]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": 3}]}}]},
        piece("{}"),
        piece([1], name="f"),
        piece(3, name="f"),
    ],
)
def test_what_is_no_chunk_is_the_peers_fault(bad: dict[str, Any]) -> None:
    """What was lost there may be half of an answer: it is not passed over."""
    with pytest.raises(RemoteProtocolError):
        new_parser().feed(bad)


PIECES = st.builds(
    piece,
    texts | st.just("{}"),
    index=st.sampled_from([0, 1, 2, None]),
    id=st.sampled_from([None, "c1", "c2"]),
    name=st.sampled_from([None, "f", "apply_patch"]),
)
TEXTS = st.builds(
    lambda key, text: chunk({key: text}), st.sampled_from(["content", "reasoning"]), texts
)
ENDS = st.builds(chunk, st.just({}), st.sampled_from(["stop", "tool_calls", "length", "x"]))


ODD = st.sampled_from(
    [
        *(None, True, -1, 0, 1, 2.5, "", "x", "{}", '{"a', "stop", "abort", "length", "tool_calls"),
        *([], {}, [None], {"text": "t"}, {"message": "m"}, {"type": "error"}, ["a", {"text": "b"}]),
    ]
)


def odd_objects(*keys: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(keys), values, max_size=4)


ODD_FUNCTIONS = odd_objects("name", "arguments", values=ODD | texts)
ODD_CALLS = odd_objects("index", "id", "function", values=ODD | ODD_FUNCTIONS)
ODD_DELTAS = odd_objects(
    *("content", "reasoning", "refusal", "tool_calls"),
    values=ODD | st.lists(ODD_CALLS, max_size=2),
)
ODD_CHOICES = odd_objects("index", "delta", "finish_reason", "error", values=ODD | ODD_DELTAS)
ODD_USAGES = odd_objects(*USAGE, values=ODD | st.floats() | st.integers())
ODD_CHUNKS = odd_objects(
    *("choices", "usage", "error", "object", "message", "detail"),
    values=json_values | ODD | ODD_USAGES | st.lists(ODD_CHOICES, min_size=1, max_size=2),
)
CHUNKS = PIECES | TEXTS | ENDS | ODD_CHUNKS


@given(st.lists(CHUNKS, max_size=8))
@settings(max_examples=250, deadline=None)
def test_any_chunks_make_a_legal_response(chunks: list[dict[str, Any]]) -> None:
    """Or are the peer's fault: ``ResponseStream`` is the judge of what is legal."""
    request = ResponseRequest(model="m", input=())
    stream = ResponseStream("r", request, created_at=1, new_id=lambda prefix: f"{prefix}_1")
    stream.start()
    parser = new_parser()
    deltas: list[Delta] = []
    try:
        for one in chunks:
            deltas += parser.feed(one)
        deltas += parser.end()
    except RemoteProtocolError:
        stream.feed(delta for delta in deltas if not isinstance(delta, Finished))
        return
    *body, last = deltas
    assert isinstance(last, Finished)
    assert last.reason is not FinishReason.ERROR or last.error_message
    assert all(0 <= figure < 2**53 for figure in msgspec.structs.astuple(last.usage))
    stream.feed(body)
    assert stream.finish(last)


@given(json_values, json_values)
@settings(max_examples=100, deadline=None)
def test_any_body_and_any_error_event_end_with_one_finished(body: Any, payload: Any) -> None:
    assert isinstance(new_parser().fail(payload)[-1], Finished)
    parser = new_parser()
    try:
        *_, last = parser.feed_whole(body)
    except RemoteProtocolError:
        return
    assert isinstance(last, Finished)
    assert parser.is_finished
