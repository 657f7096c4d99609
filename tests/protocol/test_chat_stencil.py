"""A stencil reads what it fits as the long way does, and nothing else."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import texts
from tightloop.protocol.chat_chunk import Chunk
from tightloop.protocol.chat_completions import ChatStreamParser
from tightloop.protocol.chat_stencil import stencil_of
from tightloop.protocol.deltas import Delta, ReasoningDelta, TextDelta, ToolCallDelta
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.sse import SseDecoder

HEAD = b'{"id":"c1","model":"m","choices":[{"index":0,"delta":{'
TAIL = b'},"logprobs":null,"finish_reason":null}]}'


def event(data: bytes, end: bytes = b"\n\n") -> bytes:
    return b"data: %b%b" % (data, end)


def chunk(text: str, key: bytes = b"content") -> bytes:
    return b'%b"%b":%b%b' % (HEAD, key, json.dumps(text).encode(), TAIL)


def read_in_full(piece: bytes) -> list[Delta] | None:
    """The deltas of whole events after a plain beginning; None where they cannot be read as chunks."""
    decoder, parser = SseDecoder(), ChatStreamParser(new_id=str)
    decoder.feed(b": begun\n\n")
    deltas: list[Delta] = []
    for _event, data in decoder.feed(piece):
        try:
            wire = msgspec.json.decode(data, type=Chunk)
        except (msgspec.DecodeError, UnicodeError):
            return None
        deltas += parser.feed_usual(wire)
    return deltas


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"content", TextDelta),
        (b"reasoning_content", ReasoningDelta),
        (b"reasoning", ReasoningDelta),
    ],
)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_texts_are_read_alone_and_many_at_a_time(key: bytes, kind: type[Any], end: bytes) -> None:
    """Each text is one delta of its kind; an empty one is none."""
    data = chunk("begins", key)
    stencil = stencil_of(data, end)
    assert stencil is not None
    said = ["lo", 'a "b" \\ \n\x00', "é\U0001f600", ""]
    pieces = [event(chunk(text, key), end) for text in said]
    read = [stencil.read(piece) for piece in pieces]
    assert read == [[kind(said[0])], [kind(said[1])], [kind(said[2])], []]
    assert stencil.read(b"".join(pieces)) == [kind(text) for text in said if text]


def test_arguments_are_read_as_the_host_wrote_them() -> None:
    """The call they are for is the same for all."""
    data = HEAD + b'"tool_calls":[{"index":1,"function":{"arguments":"{\\"a"}}]' + TAIL
    stencil = stencil_of(data, b"\n\n")
    assert stencil is not None
    other = data.replace(b'{\\"a"', b'\\":1}"')
    assert stencil.read(event(other)) == [ToolCallDelta('":1}')]
    assert stencil.read(event(other.replace(b'"index":1', b'"index":2'))) is None


def test_a_space_before_the_text_is_known() -> None:
    """Python's own encoder writes one."""
    data = json.dumps({"choices": [{"delta": {"role": "assistant", "content": "a"}}]}).encode()
    stencil = stencil_of(data, b"\n\n")
    assert stencil is not None
    assert stencil.read(event(data.replace(b'"a"', b'"b"'))) == [TextDelta("b")]


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        event(chunk("x"))[:-1],
        event(chunk("x")) + b"d",
        b"\n" + event(chunk("x")),
        event(chunk("x").replace(b"c1", b"c2")),
        event(chunk("x").replace(b"null}", b'"stop"}')),
        event(HEAD + b'"content":null' + TAIL),
        event(HEAD + b'"content":"a","content":"b"' + TAIL),
        event(HEAD + b'"content":"a" "' + TAIL),
        event(HEAD + b'"content":"a"\n,"x":""' + TAIL),
        event(HEAD + b'"content":"\n"' + TAIL),
        event(HEAD + b'"content":"\x01"' + TAIL),
        event(HEAD + b'"content":"\\"' + TAIL),
        event(HEAD + b'"content":"\\ud83d"' + TAIL),
        event(HEAD + b'"content":"\xff"' + TAIL),
        event(HEAD + b'"content":"' + TAIL),  # one quote, which is that of both ends
        event(HEAD + b'"content":' + TAIL),
        event(chunk("x")) + event(b"[DONE]"),
        event(chunk("x")) + event(chunk("y").replace(b'"y"', b"3")),
        event(chunk("x")) + b": a sign of life\n\n" + event(chunk("x")),
        event(chunk("x")) + event(chunk("y").replace(b'"y"', b'"y" ')),
    ],
)
def test_what_is_of_another_shape_is_left_to_the_long_way(piece: bytes) -> None:
    data = chunk("a")
    stencil = stencil_of(data, b"\n\n")
    assert stencil is not None
    assert stencil.read(piece) is None


@pytest.mark.parametrize(
    "data",
    [
        b"[DONE]",
        chunk(""),
        HEAD + b'"role":"assistant"' + TAIL,
        HEAD + b'"content":"a","reasoning":"b"' + TAIL,
        HEAD + b'"reasoning_content":"a","reasoning":"b"' + TAIL,
        HEAD + b'"content":"a","refusal":"b"' + TAIL,
        HEAD + b'"refusal":"a"' + TAIL,
        HEAD + b'"content":"a","tool_calls":[{"index":0}]' + TAIL,
        HEAD + b'"content":"a","tool_calls":[{"index":0,"function":{"arguments":"b"}}]' + TAIL,
        HEAD + b'"tool_calls":[{"index":0,"function":{"name":"f","arguments":"b"}}]' + TAIL,
        HEAD + b'"tool_calls":[{"index":0,"function":{"arguments":""}}]' + TAIL,
        HEAD + b'"tool_calls":[{"index":0,"function":{"arguments":{"a":1}}}]' + TAIL,
        HEAD
        + b'"tool_calls":[{"function":{"arguments":"b"}},{"function":{"arguments":"b"}}]'
        + TAIL,
        chunk("a").replace(b"null}", b'"stop"}'),
        chunk("a").replace(b'"index":0', b'"index":1'),
        chunk("a").replace(b"{", b"{\n", 1),
        chunk("a").replace(b'"c1"', b'"c1","usage":{}'),
        chunk("a").replace(b'"c1"', b'"c1","error":0'),
        chunk("a").replace(b'{"index":0', b'{"index":0},{"index":0'),
        chunk("a").replace(b'"content"', b'"\\u0063ontent"'),
        chunk("a").replace(b'"content":"a"', b'"content":3'),
        b'{"choices":[]}',
        b"{",
    ],
)
def test_a_chunk_that_says_more_than_a_text_gives_no_stencil(data: bytes) -> None:
    assert stencil_of(data, b"\n\n") is None


def test_the_text_is_found_where_it_is_read_and_nowhere_else() -> None:
    """The same string may stand elsewhere, or look like a field while it is none."""
    data = (
        b'{"x":{"content":"a"},"content":"a","y":"\\"content\\":\\"a\\"","choices":[{"delta":'
        b'{"content":"a","content":"a"},"message":{"content":"a"}}]}'
    )
    stencil = stencil_of(data, b"\n\n")
    assert stencil is not None
    other = data.replace(b'a"},"message', b'new"},"message')
    assert stencil.read(event(other)) == [TextDelta("new")]
    for place in (b'"x":{"content":"a"', b'"content":"a",'):
        assert stencil.read(event(data.replace(place, place.replace(b'"a"', b'"b"'), 1))) is None


JSON_STRING = texts.map(json.dumps) | texts.map(lambda text: json.dumps(text, ensure_ascii=False))
STRINGS = JSON_STRING.map(lambda text: text.encode("utf-8", "surrogatepass"))
NOISE = st.sampled_from(
    [b'"', b"\\", b"\n", b" ", b",", b"}", TAIL, b'"content":"', b"\xff", b"\x00"]
)


@given(
    st.lists(STRINGS | st.lists(NOISE | STRINGS, max_size=4).map(b"".join), min_size=1, max_size=3),
    st.sampled_from([b"content", b"reasoning", b"reasoning_content"]),
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)
@settings(max_examples=300, deadline=None)
def test_both_ways_read_the_same(strings: list[bytes], key: bytes, end: bytes) -> None:
    """Whatever stands in the text's place, one event or several: the same deltas, or the long way."""
    data = chunk("a", key)
    stencil = stencil_of(data, end)
    assert stencil is not None
    piece = b"".join(event(b'%b"%b":%b%b' % (HEAD, key, string, TAIL), end) for string in strings)
    deltas = stencil.read(piece)
    try:
        expected = read_in_full(piece)
    except RemoteProtocolError:
        expected = None
    if deltas is None:
        # Nothing that is a row of well-formed texts is left to the long way.
        assert not all(_is_string(string) for string in strings)
    else:
        assert expected == deltas


def _is_string(string: bytes) -> bool:
    try:
        msgspec.json.decode(string, type=str)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return string.startswith(b'"') and string.endswith(b'"')
