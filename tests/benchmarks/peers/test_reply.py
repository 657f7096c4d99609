from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers.client import pong, text_frame
from benchmarks.peers.reply import HttpReply, Reply, Token, WebSocketReply, failure, tokens
from benchmarks.peers.stub import unmasked
from benchmarks.peers.stub_events import ChatWords, ResponsesWords, Words

WORDS: dict[str, Callable[[], Words]] = {
    "chat": lambda: ChatWords(1),
    "responses": lambda: ResponsesWords(1, is_websocket=False),
    "websocket": lambda: ResponsesWords(1, is_websocket=True),
}


def answer(words: Words, num: int) -> bytes:
    return words.opening() + words.tokens(0, num) + words.ending(num)


def fed(reply: Reply, data: bytes, cuts: list[int]) -> list[bool]:
    """Feed the pieces between the cuts, each a tick later; what ``feed`` said of each."""
    edges = [0, *sorted({cut % len(data) for cut in cuts} - {0}), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    return [reply.feed(piece, time) for time, piece in enumerate(pieces)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(WORDS)), st.lists(st.integers(1, 5000), max_size=8))
def test_any_split_has_the_same_tokens_and_ends_with_the_last_byte(
    kind: str, cuts: list[int]
) -> None:
    data = answer(WORDS[kind](), 5)
    whole: Reply = WebSocketReply() if kind == "websocket" else HttpReply()
    split: Reply = WebSocketReply() if kind == "websocket" else HttpReply()
    assert fed(whole, data, []) == [True]
    said = fed(split, data, cuts)
    assert said == [False] * (len(said) - 1) + [True]
    stamps = [token.stamp_ns for token in tokens(whole)]
    assert len(stamps) == 5
    assert [token.stamp_ns for token in tokens(split)] == stamps
    assert [token.arrived_ns for token in tokens(split)] == sorted(
        token.arrived_ns for token in tokens(split)
    )
    assert failure(split) == ""


def test_a_token_arrives_with_the_end_of_its_event() -> None:
    """Not with the beginning of it, nor with the end of what came along."""
    words = ChatWords(1)
    reply = HttpReply()
    event = words.tokens(0, 1)
    reply.feed(words.opening() + event[:-20], 100)
    reply.feed(event[-20:], 200)
    reply.feed(words.tokens(1, 1) + words.ending(2), 300)
    assert [token.arrived_ns for token in tokens(reply)] == [200, 300]


def test_an_event_that_a_gateway_cuts_in_two_chunks_is_one_token() -> None:
    reply = HttpReply()
    event = b'data: {"choices":[{"delta":{"content":"123456789012 "}}]}\n\n'
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (event[:40], event[40:]))
    reply.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, 7)
    assert reply.feed(b"0\r\n\r\n", 8)
    assert tokens(reply) == [Token(123456789012, 7)]


def test_several_tokens_in_one_event_are_counted_each() -> None:
    """A gateway may join what is there already."""
    reply = WebSocketReply()
    data = b'{"type":"response.output_text.delta","delta":"123456789012 123456789013 "}'
    reply.feed(b"\x81%c%s" % (len(data), data), 5)
    assert tokens(reply) == [Token(123456789012, 5), Token(123456789013, 5)]


def test_an_answer_cut_short_has_the_tokens_that_came() -> None:
    words = ChatWords(1)
    reply = HttpReply()
    assert tokens(reply) == []
    assert not reply.feed(words.opening() + words.tokens(0, 2) + b"80\r\ndata: {", 1)
    assert len(tokens(reply)) == 2


def test_an_error_with_a_stated_length_ends_with_it() -> None:
    reply = HttpReply()
    head = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\n"
    assert not reply.feed(head[:20], 1)
    assert not reply.feed(head[20:] + b"no", 2)
    assert reply.feed(b"ne", 3)
    assert (reply.status, reply.text()) == (503, "none")


@pytest.mark.parametrize(
    "event",
    [
        b'{"type":"error","status":400}',
        b'{"type": "response.failed","response":{}}',
        b'event: error\ndata: {"message":"no"}',
        b'data: {"error":{"message":"no"}}',
    ],
)
def test_an_answer_that_failed_says_so(event: bytes) -> None:
    """Also when the status was 200."""
    reply = WebSocketReply()
    reply.feed(b"\x81%c%s" % (len(event), event), 1)
    assert failure(reply) == event.decode()


def test_pings_wait_for_their_answer_and_a_close_ends() -> None:
    reply = WebSocketReply()
    assert not reply.feed(b"\x89\x02hi", 1)
    assert reply.pongs == [b"hi"]
    assert pong(b"hi")[:2] == b"\x8a\x82"
    assert reply.feed(b"\x88\x00", 2)
    assert reply.is_closed


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames_of_every_length_are_masked(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    frame = text_frame(payload[:size])
    start = len(frame) - size
    assert unmasked(frame[start:], frame[start - 4 : start]) == payload[:size]
    assert frame[1] & 0x80
