import json
from typing import Any

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
    ("chunks", "code"),
    [
        ([chunk({"content": "x"})], "upstream_error"),
        ([chunk({}, "content_filter")], "content_filter"),
        ([{"error": {"message": "died", "code": "overloaded"}}], "overloaded"),
        ([{"error": "died"}], "upstream_error"),
    ],
)
def test_bad_endings_are_errors_with_a_code(chunks: list[dict[str, Any]], code: str) -> None:
    last = parsed(*chunks)[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.error_code) == (FinishReason.ERROR, code)
    assert last.error_message


@pytest.mark.parametrize(
    "bad",
    [{"choices": 3}, {"choices": [{"delta": {"content": 3}}]}, piece("{}"), {"usage": "x"}],
)
def test_what_is_no_chunk_is_the_peers_fault(bad: dict[str, Any]) -> None:
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
NONSENSE = st.dictionaries(st.sampled_from(["choices", "usage", "error"]), json_values)


@given(st.lists(PIECES | TEXTS, max_size=8), ENDS, st.none() | NONSENSE)
@settings(max_examples=150, deadline=None)
def test_any_chunks_make_a_legal_response(
    chunks: list[dict[str, Any]], end: dict[str, Any], nonsense: dict[str, Any] | None
) -> None:
    """Or are the peer's fault: ``ResponseStream`` is the judge of what is legal."""
    request = ResponseRequest(model="m", input=())
    stream = ResponseStream("r", request, created_at=1, new_id=lambda prefix: f"{prefix}_1")
    stream.start()
    parser = new_parser()
    deltas: list[Delta] = []
    try:
        for one in [*chunks, end, *([nonsense] if nonsense else [])]:
            deltas += parser.feed(one)
    except RemoteProtocolError:
        stream.feed(delta for delta in deltas if not isinstance(delta, Finished))
        return
    *body, last = deltas + parser.end()
    assert isinstance(last, Finished)
    stream.feed(body)
    assert stream.finish(last)
