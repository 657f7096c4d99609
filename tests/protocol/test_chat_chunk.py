from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values, texts
from tightloop.protocol.chat_chunk import (
    Choice,
    ChoiceDelta,
    Chunk,
    Function,
    ToolCall,
    WireUsage,
    complaint,
    host_error,
    read_odd_chunk,
    read_usage,
    usage_beside,
)
from tightloop.protocol.chat_completions import ChatStreamParser
from tightloop.protocol.deltas import Delta, Usage
from tightloop.protocol.errors import RemoteProtocolError


def read_delta(delta: object) -> ChoiceDelta | None:
    (choice,) = read_odd_chunk({"choices": [{"delta": delta}]}).choices or []
    return choice.delta


def read_call(call: object) -> ToolCall:
    delta = read_delta({"tool_calls": call})
    assert delta is not None
    (piece,) = delta.tool_calls or []
    return piece


def test_the_usual_shape_is_read_alike_in_both_ways() -> None:
    call = {"index": 1, "id": "c", "function": {"name": "f", "arguments": "{"}}
    delta = {"content": "a", "reasoning": "b", "refusal": "c", "tool_calls": [call]}
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 2.0,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4, "accepted_prediction_tokens": 5},
    }
    choice = {"index": 2, "delta": delta, "finish_reason": "stop", "error": None}
    chunk = {"choices": [choice], "usage": usage, "error": None}
    assert msgspec.convert(chunk, Chunk) == read_odd_chunk(chunk)


@pytest.mark.parametrize(
    ("content", "text", "thoughts"),
    [
        (None, "", ""),
        ("a", "a", ""),
        (["a", None, {"text": "b"}, {"type": "image_url"}], "ab", ""),
        ([{"thinking": ["h", {"text": "m"}]}, {"text": "a"}], "a", "hm"),
        ([["a"], [{"text": 3}]], "a", ""),
    ],
)
def test_content_is_text_or_parts(content: object, text: str, thoughts: str) -> None:
    delta = read_delta({"content": content})
    assert delta is not None
    assert (delta.content, delta.reasoning) == (text, thoughts)


@pytest.mark.parametrize(
    ("wire", "index", "call_id"),
    [
        ({"index": "3", "id": 7}, 3, "7"),
        ({"index": 3.0, "id": ""}, 3, ""),
        ({"index": "x", "id": None}, None, None),
        ({"index": -1, "id": True}, None, None),
        ({"index": True, "id": -3.5}, None, None),
        ({"index": [], "id": {}}, None, None),
    ],
)
def test_where_a_piece_of_a_call_belongs(
    wire: dict[str, Any], index: int | None, call_id: str | None
) -> None:
    assert read_call([wire]) == ToolCall(index, call_id, Function())
    assert read_call(wire) == ToolCall(index, call_id, Function())


@pytest.mark.parametrize("arguments", [[], 3, True])
def test_arguments_that_are_none_are_refused(arguments: object) -> None:
    with pytest.raises(RemoteProtocolError, match="arguments"):
        read_call({"function": {"name": "f", "arguments": arguments}})


def test_an_error_is_read_whatever_stands_beside_it() -> None:
    assert read_odd_chunk({"error": "died", "choices": 3, "usage": 3}) == Chunk(error="died")
    reason = {"type": "abort", "message": "died"}
    chunk = read_odd_chunk({"choices": [{"delta": 3, "finish_reason": reason}]})
    assert chunk.choices == [Choice(finish_reason="abort", error=reason)]


def test_figures_are_whole_and_no_less_than_nothing() -> None:
    assert read_usage(WireUsage()) is None
    assert read_usage(WireUsage(-3, float("nan"))) is None
    assert read_usage(WireUsage(float("inf"), 2.9)) == Usage(output_tokens=2)
    assert read_usage(WireUsage(2**53, 2**53 - 1)) == Usage(output_tokens=2**53 - 1)


@pytest.mark.parametrize(
    ("payload", "message", "code"),
    [
        ({"error": {"message": " died ", "code": "c"}}, "died", "c"),
        ({"error": {"message": "", "code": ""}}, "the server refused", None),
        ({"error": {"message": None, "detail": "died"}, "message": "x"}, "died", None),
        ({"error": True, "message": "died"}, "died", None),
        ({"detail": {"error": {"message": "died"}}}, "died", None),
        ({"detail": [{"msg": "a"}, {"loc": []}, {"msg": "b"}]}, "a; b", None),
        ({"object": "error", "message": "died", "code": 400}, "died", None),
        ([{"error": {"message": "died", "code": 400}}], "died", None),
        ("died", "died", None),
        (None, "the server refused the request (502) without a reason", None),
    ],
)
def test_a_hosts_words_are_found(payload: object, message: str, code: str | None) -> None:
    error = host_error(payload, status=502)
    assert (error.status, error.code) == (502, code)
    assert error.message.startswith(message)


def test_no_words_are_looked_for_too_deep() -> None:
    nested: object = "died"
    for _ in range(2_000):
        nested = {"error": nested}
    assert complaint(nested) is None
    assert host_error(nested, status=502).message


KEYS = (
    *("choices", "index", "delta", "content", "tool_calls", "function", "arguments", "id"),
    *("finish_reason", "type", "error", "usage", "prompt_tokens", "prompt_tokens_details"),
)
ODD = st.recursive(
    json_values | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(("choices", "usage", "error", "x")), ODD), texts)
@settings(max_examples=200, deadline=None)
def test_any_object_is_a_chunk_of_the_usual_shape_or_refused(
    chunk: dict[str, Any], key: str
) -> None:
    chunk[key] = 1
    try:
        read = read_odd_chunk(chunk)
    except RemoteProtocolError:
        return
    assert msgspec.convert(msgspec.structs.asdict(read), Chunk, from_attributes=True) == read


@given(ODD)
@settings(max_examples=100, deadline=None)
def test_any_payload_gives_an_error_with_words(payload: object) -> None:
    assert host_error(payload, status=502).message


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens_details": {"cached_tokens": 8}},
        {"prompt_tokens_details": {"cache_read_tokens": 8}},
        {"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2},
        {"cached_tokens": 8},
        {"cache_read_input_tokens": 8},
        {"prompt_tokens_details": None, "cached_tokens": 8.0},
    ],
)
def test_cached_tokens_are_found_where_hosts_write_them(fields: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, **fields}
    expected = Usage(input_tokens=10, cached_tokens=8, output_tokens=5)
    assert expected == read_usage(msgspec.convert(usage, WireUsage))
    odd = read_odd_chunk({"usage": {**usage, "odd": []}, "choices": [{"index": "0"}]})
    assert odd.usage is not None
    assert expected == read_usage(odd.usage)


def test_figures_as_anthropic_counts_them() -> None:
    """Its input tokens leave out what the cache held, and what was written to it."""
    usage = {
        "input_tokens": 3,
        "cache_read_input_tokens": 8,
        "cache_creation_input_tokens": 2,
        "output_tokens": 5,
    }
    expected = Usage(input_tokens=13, cached_tokens=8, output_tokens=5)
    assert expected == read_usage(msgspec.convert(usage, WireUsage))


def test_groqs_usage_stands_in_an_object_of_its_own() -> None:
    inner = {"prompt_tokens": 10, "completion_tokens": 5}
    assert Usage(10, 0, 5) == usage_beside({"x_groq": {"id": "r", "usage": inner}})
    for none in ({}, {"x_groq": None}, {"x_groq": {"id": "r"}}, {"x_groq": {"usage": [1]}}):
        assert usage_beside(none) is None


PIECES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.none() | st.integers(0, 2),
        "delta": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "content": st.none() | texts,
                "reasoning": st.none() | texts,
                "tool_calls": st.lists(
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "index": st.none() | st.integers(0, 2),
                            "id": st.none() | st.sampled_from(["a", "b"]),
                            "function": st.fixed_dictionaries(
                                {},
                                optional={
                                    "name": st.none() | st.sampled_from(["f", "g"]),
                                    "arguments": st.none() | st.sampled_from(["{", "}", "[]", ""]),
                                },
                            ),
                        },
                    ),
                    max_size=2,
                ),
            },
        ),
        "finish_reason": st.none() | st.sampled_from(["stop", "tool_calls", "error", "length"]),
        "error": st.none() | st.just({"message": "no"}),
    },
)
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.none() | st.lists(PIECES, max_size=2),
        "usage": st.none() | st.just({"prompt_tokens": 3}),
        "error": st.none() | st.just("no"),
        "time_info": st.none() | st.just({"completion_time": 1.0}),
        "object": texts,
    },
)


@given(st.lists(CHUNKS, max_size=5))
def test_a_usual_chunk_says_the_same_by_the_short_way(chunks: list[dict[str, Any]]) -> None:
    """It is decoded once, straight into its type; all others take the way over a dict."""
    short, long = (ChatStreamParser(["g"], new_id=lambda _: "new") for _ in range(2))

    def by_the_short_way(chunk: dict[str, Any]) -> list[Delta]:
        wire = msgspec.json.decode(msgspec.json.encode(chunk), type=Chunk)
        return short.feed_usual(wire) if wire.is_usual else short.feed(chunk)

    for chunk in chunks:
        assert said_by(by_the_short_way, chunk) == said_by(long.feed, chunk)
    assert short.end() == long.end()


def said_by(read: Callable[[dict[str, Any]], list[Delta]], chunk: dict[str, Any]) -> object:
    try:
        return read(chunk)
    except RemoteProtocolError as error:
        return str(error)
