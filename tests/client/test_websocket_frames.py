"""Frames of a server, cut anywhere, and those that no server may send."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tightloop.client.websocket_frames import Ending, FrameReader

MAX_BYTES = 70_000


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, is_last: bool = True) -> bytes:
    """As another implementation writes it."""
    return Frame(opcode, payload, fin=is_last).serialize(mask=False)


def read(*reads: bytes) -> tuple[list[bytes], FrameReader]:
    reader = FrameReader(MAX_BYTES)
    return [text for data in reads for text in reader.feed(data)], reader


def test_all_messages_of_a_read_come_together() -> None:
    reader = FrameReader(MAX_BYTES)
    assert reader.feed(frame(b"a") + frame(b"") + frame(b"c")) == [b"a", b"", b"c"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, MAX_BYTES])
def test_every_form_of_length_is_read(size: int) -> None:
    """In one read, in two, and byte by byte."""
    data = frame(b"x" * size)
    for reads in ([data], [data[:1], data[1:]], [data[i : i + 1] for i in range(len(data))]):
        texts, reader = read(*reads)
        assert [b"x" * size] == texts
        assert reader.ending is None


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 3), st.booleans()), max_size=6),
    st.data(),
)
def test_messages_in_several_frames_cut_anywhere(
    messages: list[tuple[bytes, int, bool]], data: st.DataObject
) -> None:
    """With pings between the frames of a message, as is allowed."""
    wire = b""
    pings = []
    for payload, num_frames, has_ping in messages:
        step = max(1, -(-len(payload) // num_frames))
        parts = [payload[i * step : (i + 1) * step] for i in range(num_frames)]
        for i, part in enumerate(parts):
            opcode = Opcode.CONT if i else Opcode.TEXT
            wire += frame(part, opcode, is_last=i == num_frames - 1)
            if has_ping:
                pings.append(bytes([i]))
                wire += frame(pings[-1], Opcode.PING) + frame(b"", Opcode.PONG)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    places = [0, *cuts, len(wire)]
    texts, reader = read(*(wire[a:b] for a, b in pairwise(places)))
    assert [payload for payload, _, _ in messages] == texts
    assert (pings[-1] if pings else None) == reader.ping
    assert reader.ending is None


@pytest.mark.parametrize(
    ("wire", "code", "reason"),
    [
        (b"\xc1\x01x", 1002, "0xc1"),
        (b"\x83\x01x", 1002, "0x83"),
        (b"\x09\x00", 1002, "0x09"),
        (b"\x89\x7e\x00\x7e", 1002, "126 bytes"),
        (b"\x81\x81\0\0\0\0x", 1002, "masked"),
        (frame(b"x", Opcode.CONT), 1002, "mixed"),
        (frame(b"x", is_last=False) + frame(b"y"), 1002, "mixed"),
        (frame(b"x", is_last=False) + frame(b"y", is_last=False), 1002, "mixed"),
        (frame(b"x", Opcode.CLOSE), 1002, "half a code"),
        (frame(b"x", Opcode.BINARY), 1003, "binary frame"),
        (frame(b"x" * (MAX_BYTES + 1)), 1009, "more than"),
        (b"\x81\x7f" + b"\xff" * 8, 1009, "more than"),
        (frame(b"x" * MAX_BYTES, is_last=False) + frame(b"y", Opcode.CONT), 1009, "more than"),
    ],
)
def test_what_no_server_may_send(wire: bytes, code: int, reason: str) -> None:
    """It ends the reading, also byte by byte; what came before was taken, what follows is not."""
    for reads in ([frame(b"1") + wire, frame(b"2")], [frame(b"1"), *(wire[i : i + 1] for i in range(len(wire))), frame(b"2")]):  # fmt: skip
        texts, reader = read(*reads)
        assert texts == [b"1"]
        assert reader.ending is not None
        assert (code, True) == (reader.ending.code, reader.ending.is_fault)
        assert reason in reader.ending.reason


def test_a_length_that_is_too_large_is_refused_before_it_came() -> None:
    _, reader = read(frame(b"x" * (MAX_BYTES + 1))[:10])
    assert reader.ending is not None


@pytest.mark.parametrize("end", [frame(b"", Opcode.CLOSE), b"\x81\x7f" + b"\xff" * 8])
def test_what_comes_after_the_end_is_not_kept(end: bytes) -> None:
    """A server may go on for as long as our goodbye takes."""
    _, reader = read(end)
    late = frame(b"late")
    num_references = sys.getrefcount(late)
    assert reader.feed(late) == []
    assert num_references == sys.getrefcount(late)


@pytest.mark.parametrize(
    ("payload", "ending"),
    [
        (b"", Ending(1005, "")),
        (b"\x03\xf3no", Ending(1011, "no")),
        (b"\x03\xe8\xc3\xa4\xc3", Ending(1000, "ä\ufffd")),
    ],
)
def test_a_close_says_why(payload: bytes, ending: Ending) -> None:
    """Frames behind it are not read."""
    texts, reader = read(frame(b"a") + frame(payload, Opcode.CLOSE) + frame(b"b"))
    assert texts == [b"a"]
    assert ending == reader.ending


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_mean_the_same_however_they_are_cut(reads: list[bytes]) -> None:
    texts, reader = read(*reads)
    at_once, other = read(b"".join(reads))
    assert at_once == texts
    ends = [one.ending and (one.ending.code, one.ending.is_fault) for one in (reader, other)]
    assert ends[0] == ends[1]
