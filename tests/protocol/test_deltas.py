import pytest

from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage


def test_deltas_are_values() -> None:
    assert TextDelta("a") == TextDelta("a")
    with pytest.raises(AttributeError):
        TextDelta("a").text = "b"  # type: ignore[misc]


def test_an_end_needs_no_timing() -> None:
    finished = Finished(FinishReason.STOP, Usage())
    assert (finished.timing, finished.error_code) == (None, None)
