import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import cuts
from tightloop.protocol import sse
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.sse import SseDecoder, SseEvent

STREAM = (
    b"\xef\xbb\xbf: comment\n\nevent: a\ndata: 1\n\ndata:2\r\ndata: 3\r\n\r\n"
    b"event: b\rdata:  x\r\rid: 7\nretry: 9\n\ndata\n\ndata: [DONE]\n\ndata: never ended\n"
)
EVENTS = [
    SseEvent("a", b"1"),
    SseEvent("message", b"2\n3"),
    SseEvent("b", b" x"),
    SseEvent("message", b""),
    SseEvent("message", sse.DONE_DATA),
]


def decoded(chunks: list[bytes]) -> list[SseEvent]:
    decoder = SseDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_line_ends_comments_and_fields() -> None:
    assert decoded([STREAM]) == EVENTS


def test_cut_at_every_byte_it_is_the_same() -> None:
    for place in range(len(STREAM) + 1):
        assert decoded([STREAM[:place], STREAM[place:]]) == EVENTS
    assert decoded([STREAM[n : n + 1] for n in range(len(STREAM))]) == EVENTS


PACKETS = [b"data: 1\n\n", b"data: \n\n", b"event: x\n", b"data: ", b"data: 2\ndata: 3\n\n", b"\r", b"data: 4\r\n\n"]  # fmt: skip


@given(st.lists(st.sampled_from(PACKETS), max_size=8))
@settings(max_examples=100, deadline=None)
def test_packets_of_one_event_are_no_other_events(packets: list[bytes]) -> None:
    """They have a shorter way, which must not be taken within an event or a line."""
    stream = b"".join(packets)
    assert decoded([stream[n : n + 1] for n in range(len(stream))]) == decoded(packets)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_cut_anywhere_it_is_the_same(data: st.DataObject) -> None:
    assert decoded(data.draw(cuts(STREAM))) == EVENTS


def test_an_event_is_given_out_with_its_blank_line() -> None:
    """Also when the line end is a lone carriage return: waiting for more would delay it."""
    decoder = SseDecoder()
    assert decoder.feed(b"data: 1\n\n") == [SseEvent("message", b"1")]
    assert decoder.feed(b"data: 2\r\n\r") == [SseEvent("message", b"2")]
    assert decoder.feed(b"\ndata: 3\n\n") == [SseEvent("message", b"3")]


def test_frames_survive() -> None:
    json = b'{"type":"response.created","sequence_number":0}'
    assert sse.frame(json) == sse.encode(json, "response.created")
    assert decoded([sse.frame(json) + sse.DONE]) == [
        SseEvent("response.created", json),
        SseEvent("message", b"[DONE]"),
    ]


def _feed_each_byte(decoder: SseDecoder, chunk: bytes) -> None:
    for n in range(len(chunk)):
        decoder.feed(chunk[n : n + 1])


@pytest.mark.parametrize(
    "chunk", [b"x" * 60, b"data: xxxxxx\n" * 9, b": " + b"x" * 60, b"data\n" * 60]
)
def test_an_event_that_never_ends_is_refused(chunk: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="longer than 50 bytes"):
        SseDecoder(max_event_bytes=50).feed(chunk)
    by_byte = SseDecoder(max_event_bytes=50)
    with pytest.raises(RemoteProtocolError):
        _feed_each_byte(by_byte, chunk)


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    decoder = SseDecoder(max_event_bytes=50)
    events = [event for _ in range(20) for event in decoder.feed(b"event: a\ndata: 123\n\n")]
    assert len(events) == 20
    by_byte = [e for _ in range(20) for n in b"data: 123\n\n" for e in decoder.feed(bytes([n]))]
    assert len(by_byte) == 20


LINES = st.lists(st.sampled_from([b"data: x", b"event: y", b"\r", b"\n", b"\r\n", b":", b"\xff"]))


@given(st.binary(max_size=60) | LINES.map(b"".join), st.data())
@settings(max_examples=100, deadline=None)
def test_any_bytes_in_any_pieces_give_the_same_events(stream: bytes, data: st.DataObject) -> None:
    assert decoded(data.draw(cuts(stream))) == decoded([stream])
