"""A turn's closing event and its figures."""

import pytest

from tightloop.agent.events import TurnCompleted, TurnFailed
from tightloop.agent.turn import Status, TurnResult
from tightloop.protocol.deltas import Usage
from tightloop.trace.latency import RoundTrip
from tightloop.trace.spans import Span


def _result(status: Status, message: str = "") -> TurnResult:
    trip = RoundTrip(
        0, 200_000_000, 400_000_000, engine_first_token_s=0.15, prefill_s=0.1, decode_s=0.2
    )
    span = Span("test", 500_000_000, 900_000_000, "pytest")
    usage = Usage(10, 5, 3, 1)
    return TurnResult("t", status, [span], [trip], 0, 1_000_000_000, usage, [], message)


def test_completed() -> None:
    event = _result(Status.COMPLETED).closing_event()
    assert isinstance(event, TurnCompleted)
    assert event.tightloop is not None
    assert (event.tightloop.num_round_trips, event.tightloop.wall_s) == (1, 1.0)
    assert event.tightloop.ttft_s == (0.2,)
    assert event.tightloop.overhead_s == pytest.approx((0.05,))
    assert event.tightloop.ledger is not None
    assert event.tightloop.ledger["test"] == pytest.approx(0.4)
    assert (event.usage.input_tokens, event.usage.reasoning_output_tokens) == (10, 1)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.COMPLETED])
def test_other_endings(status: Status) -> None:
    event = _result(status, "why").closing_event()
    assert isinstance(event, TurnFailed)
    assert event.error.message == "why"
