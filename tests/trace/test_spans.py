"""Recording spans."""

import pytest

from tightloop.trace.clock import ManualClock
from tightloop.trace.spans import Recorder


def test_a_span_is_filed_even_when_its_body_fails() -> None:
    clock = ManualClock()
    recorder = Recorder(clock)

    def body() -> None:
        with recorder.span("tool", "ls"):
            clock.advance_s(0.25)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        body()
    (span,) = recorder.spans
    assert (span.kind, span.label, span.duration_s) == ("tool", "ls", 0.25)
