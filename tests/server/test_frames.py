"""Frames: an independent reader takes them apart again."""

import pytest
from websockets.frames import OP_TEXT
from websockets.protocol import CLIENT, OPEN, Protocol

from tightloop.server.frames import text_frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70_000])
def test_every_header_size_is_read_back(size: int) -> None:
    """Payloads at the edges of the three header forms, followed by another frame."""
    reader = Protocol(CLIENT, state=OPEN)
    reader.receive_data(text_frames([b"x" * size, b"next"]))
    frames = reader.events_received()
    assert [(OP_TEXT, b"x" * size), (OP_TEXT, b"next")] == [(f.opcode, f.data) for f in frames]  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_frame_alone_is_the_same_as_among_others(size: int) -> None:
    """A token's batch has one event, which is framed a shorter way."""
    alone = text_frames([b"x" * size])
    assert alone + text_frames([b"y"]) == text_frames([b"x" * size, b"y"])


def test_no_payload_no_bytes() -> None:
    """An empty batch writes nothing."""
    assert text_frames([]) == b""
