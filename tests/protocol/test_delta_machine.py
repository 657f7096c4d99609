"""What holds for the streams of every dialect."""

from collections.abc import Callable

import pytest
from hypothesis import given

from tests.strategies import delta_lists
from tightloop.protocol.chat_stream import ChatStream
from tightloop.protocol.delta_machine import DeltaMachine
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import LocalProtocolError
from tightloop.protocol.messages_stream import MessagesStream
from tightloop.protocol.outgoing import OutgoingStream
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import ResponseStream

KINDS: list[Callable[..., OutgoingStream]] = [ResponseStream, ChatStream, MessagesStream]
STOP = Finished(FinishReason.STOP, Usage())


def begun(make: Callable[..., OutgoingStream]) -> OutgoingStream:
    request = ResponseRequest(model="m", input=())
    stream = make("resp_1", request, created_at=1, new_id=lambda prefix: f"{prefix}_1")
    stream.start()
    return stream


@pytest.mark.parametrize("make", KINDS)
def test_after_a_refused_delta_only_a_failure_can_follow(
    make: Callable[..., OutgoingStream],
) -> None:
    """And what was made before it is not lost."""
    stream = begun(make)
    with pytest.raises(LocalProtocolError):
        stream.feed([TextDelta("said"), ToolCallDone()])
    for more in ([TextDelta("more")], [ToolCallStarted("c", "f")]):
        with pytest.raises(LocalProtocolError):
            stream.feed(more)
    with pytest.raises(LocalProtocolError):
        stream.finish(STOP)
    assert b"said" in b"".join(stream.fail("server_error", "x"))
    assert stream.is_finished
    assert stream.output_items == ()


@pytest.mark.parametrize("make", KINDS)
def test_half_a_character_is_refused(make: Callable[..., OutgoingStream]) -> None:
    stream = begun(make)
    with pytest.raises(LocalProtocolError, match="half a character"):
        stream.feed([TextDelta("\ud800")])


@pytest.mark.parametrize("make", KINDS)
def test_calls_are_counted_while_they_are_open(make: Callable[..., OutgoingStream]) -> None:
    stream = begun(make)
    stream.feed([ToolCallStarted("c1", "f"), ToolCallDelta("{}"), ToolCallDone()])
    stream.feed([ToolCallStarted("c2", "f")])
    assert stream.num_calls == 2
    assert len(stream.output_items) == 1


@given(delta_lists)
def test_however_a_response_is_cut_into_batches_its_items_are_the_same(deltas: list[Delta]) -> None:
    for make in (ResponseStream, ChatStream):
        whole, single = begun(make), begun(make)
        whole.feed(deltas)
        for delta in deltas:
            single.feed([delta])
        whole.finish(STOP)
        single.finish(STOP)
        assert whole.output_items == single.output_items


def test_every_dialect_is_one_machine() -> None:
    assert all(isinstance(begun(make), DeltaMachine) for make in KINDS)
