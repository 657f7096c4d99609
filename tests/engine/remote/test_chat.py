"""The way of a chat stream's bytes to the sink: the same deltas however they come."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.remote.test_engine import USAGE, call_chunk, chunk
from tests.strategies import texts
from tightloop.engine.remote.call import Call
from tightloop.engine.remote.chat import MAX_VAIN_STENCILS, StreamReader
from tightloop.protocol.chat_completions import ChatStreamParser
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.sse import DONE
from tightloop.trace.clock import ManualClock


class Read:
    """What a reader made of a stream: every batch its sink had, up to the end or the fault."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.batches: list[Sequence[Delta]] = []
        self.fault = ""
        call = Call(ManualClock(), self.batches.append, "host")
        self.reader = StreamReader(call, ChatStreamParser(["custom"], new_id=str))
        try:
            self.is_complete = any(self.reader.take(piece) for piece in pieces)
        except RemoteProtocolError as error:
            self.fault = str(error)

    @property
    def deltas(self) -> list[Delta]:
        return [delta for batch in self.batches for delta in batch]


def event(data: Any, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(data)}{end}".encode()


def text_events(*said: str) -> list[bytes]:
    return [event(chunk(content=text)) for text in said]


def byte_by_byte(stream: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in stream]


def test_texts_alike_but_for_the_text() -> None:
    """One batch for each piece; the role before them and the end after them are read in full."""
    role = event(chunk(role="assistant", content=""))
    ending = [event(chunk("stop")), event(USAGE), DONE]
    read = Read([role, *text_events("a", "b", "c", "", "d"), *ending])
    assert read.is_complete
    assert read.batches[:4] == [[TextDelta(text)] for text in "abcd"]
    (finished,) = read.batches[4]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.usage.output_tokens) == (FinishReason.STOP, 5)


def test_nothing_is_said_after_a_cancel() -> None:
    read = Read(text_events("a", "b", "c"))
    read.reader.end()
    for piece in text_events("d", "e"):
        read.reader.take(piece)
    assert isinstance(read.deltas[-1], Finished)
    assert len(read.deltas) == 4


def test_a_text_cut_in_two_and_the_texts_after_it() -> None:
    """Between the halves the decoder is in the middle of an event."""
    pieces = text_events("a", "b", "c", "d", "e", "f", "g")
    middle = len(pieces[3]) // 2
    read = Read([*pieces[:3], pieces[3][:middle], pieces[3][middle:], *pieces[4:]])
    assert read.deltas == [TextDelta(text) for text in "abcdefg"]


def test_texts_that_come_in_batches() -> None:
    """A sign of life at the end of one, a cut in the next."""
    stream = [*text_events("a", "b", "c", "d"), b": hm\n\n", *text_events("e", "f", "g", "h")]
    for num in (2, 3, 4):
        batches = [b"".join(stream[n : n + num]) for n in range(0, len(stream), num)]
        assert Read(batches).deltas == [TextDelta(text) for text in "abcdefgh"]
        ends = [b"".join(batches)[n : n + 100] for n in range(0, len(b"".join(stream)), 100)]
        assert Read(ends).deltas == [TextDelta(text) for text in "abcdefgh"]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_reads_that_end_anywhere(end: str) -> None:
    """The texts before a cut are handed over with the read that brought them."""
    said = "abcdefghijkl"
    pieces = [event(chunk(content=text), end) for text in said]
    many = b"".join(pieces[3:])
    for cut in range(1, len(many)):
        read = Read([*pieces[:3], many[:cut], many[cut:]])
        assert read.deltas == [TextDelta(text) for text in said]
        num_whole = cut // len(pieces[3])
        assert sum(map(len, read.batches[3:-1])) >= num_whole


def test_an_event_without_an_end_is_not_kept_by_two() -> None:
    """The decoder has a limit, and gets it as soon as a read brings no whole event."""
    read = Read(
        [*text_events("a", "b", "c"), text_events("d")[0] + b"data: ", b"x" * 10, b"y" * 10]
    )
    assert read.deltas == [TextDelta(text) for text in "abcd"]
    with pytest.raises(RemoteProtocolError, match="xxxxxxxxxxyyyyyyyyyy"):
        read.reader.take(b"\n\n")


def test_a_bad_chunk_after_good_ones_is_named() -> None:
    read = Read([*text_events("a", "b", "c"), b'data: {"broken\n\n'])
    assert "is not JSON" in read.fault
    assert read.deltas == [TextDelta(text) for text in "abc"]


def test_text_after_a_call_closes_it_however_alike_its_chunks() -> None:
    """White space beside an open call is layout, and was text before."""
    call = [event(call_chunk("{", id="c", name="f")), *text_events(" ", "  ")]
    stream = [*text_events("a", "b", "c"), *call, event(call_chunk("}")), *text_events("d", "e")]
    assert Read(stream).deltas == Read(byte_by_byte(b"".join(stream))).deltas


@pytest.mark.parametrize("name", ["f", "custom"])
def test_arguments_go_on_to_their_end(name: str) -> None:
    """The end is known by the JSON, and what comes after it is dropped, alone and in one read."""
    pieces = ["{", '"input', '":"', "a", "b", '\\"c', '"', " }", "}", "x"]
    stream = [event(call_chunk(pieces[0], id="c", name=name))]
    stream += [event(call_chunk(piece)) for piece in pieces[1:]]
    expected = Read(byte_by_byte(b"".join(stream))).deltas
    assert expected[-1] == ToolCallDone()
    assert expected == Read(stream).deltas
    assert expected == Read([*stream[:4], b"".join(stream[4:])]).deltas


def test_a_break_in_the_input_of_a_custom_tool_is_named() -> None:
    """What came before it in the same read is part of the answer."""
    pieces = [call_chunk(text) for text in ('":"', "a", "b", '"', "?")]
    stream = [event(call_chunk('{"input', id="c", name="custom")), *map(event, pieces)]
    read = Read([*stream[:3], b"".join(stream[3:])])
    assert read.fault
    assert (read.deltas, read.fault) == (Read(stream).deltas, Read(stream).fault)
    assert "".join(d.text for d in read.deltas if isinstance(d, ToolCallDelta)) == "ab"


def test_chunks_that_differ_in_more_are_given_up_after_a_while() -> None:
    """Some hosts add noise to each. All are read."""
    num = 3 * MAX_VAIN_STENCILS
    pieces = [event({**chunk(content="a"), "noise": n}) for n in range(num)]
    assert Read(pieces).deltas == [TextDelta("a")] * num


CHUNKS = st.one_of(
    st.builds(lambda text: chunk(content=text), texts),
    st.builds(lambda text: chunk(content=text), texts),
    st.builds(lambda text: chunk(reasoning_content=text, content=None), texts),
    st.builds(lambda text: chunk(content=text, refusal="no"), texts),
    st.builds(lambda text: {**chunk(content=text), "id": "x"}, texts),
    st.sampled_from(
        [
            call_chunk("{", id="c", name="f"),
            call_chunk('"input'),
            call_chunk('":"x'),
            call_chunk('"'),
            call_chunk("}"),
            call_chunk('{"input":"x', id="d", name="custom"),
            call_chunk("{", id="d", name="g"),
            chunk("stop"),
            chunk("length", content="x"),
            chunk("error"),
            USAGE,
            {"error": {"message": "died"}},
            {**chunk(content="a"), "usage": USAGE["usage"]},
            {"choices": [{"index": 1, "delta": {"content": "b"}}]},
        ]
    ),
)


@given(
    st.lists(st.tuples(CHUNKS, st.integers(1, 4)), max_size=12),
    st.sampled_from(["\n\n", "\r\n\r\n"]),
    st.lists(st.integers(1, 300), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_any_stream_in_any_pieces_gives_the_same_deltas(
    chunks: list[tuple[Any, int]], end: str, sizes: list[int]
) -> None:
    """Whole events, several at a time or cut anywhere: as when every byte comes alone."""
    events = [event(data, end) for data, num in chunks for _ in range(num)]
    stream = b"".join(events)
    expected = Read(byte_by_byte(stream))
    cuts: list[bytes] = []
    rest = stream
    for size in sizes:
        cuts.append(rest[:size])
        rest = rest[size:]
    for pieces in (events, [*cuts, rest], [stream]):
        read = Read(pieces)
        assert (expected.deltas, expected.fault) == (read.deltas, read.fault)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_all_of_a_read_is_one_batch(end: str) -> None:
    """However many texts it brought."""
    pieces = [event(chunk(content=text), end) for text in "abcdef"]
    read = Read([*pieces[:3], b"".join(pieces[3:])])
    assert read.batches[3] == [TextDelta(text) for text in "def"]
