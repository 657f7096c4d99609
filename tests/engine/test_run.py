"""A run's figures, in order even when it ended early."""

from collections.abc import Generator

from tests.engine.collecting import request
from tightloop.engine.interface import Evaluate, GenerationRequest, Job
from tightloop.engine.run import Run
from tightloop.protocol.deltas import Delta, FinishReason, TextDelta, ToolCallDone
from tightloop.trace.clock import Clock, ManualClock


class Hub:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.clock: Clock = ManualClock(1)
        self.put_deltas: list[tuple[Delta, bool]] = []

    def cancel(self, run: Run) -> None:
        run.is_cancelled = True

    def put(self, run: Run, delta: Delta, *, is_urgent: bool) -> None:
        self.put_deltas.append((delta, is_urgent))


class OneStep:
    """Emits and evaluates nothing."""

    name = "one"

    def generate(self, job: Job) -> Generator[Evaluate | None, None, FinishReason]:
        job.count_prefill(3, 2)
        job.emit(TextDelta("a"))
        job.emit(TextDelta("b"))
        job.emit(ToolCallDone())
        yield None
        job.mark_prefilled()
        yield None
        return FinishReason.STOP

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        yield
        return 0


def test_the_first_delta_and_a_closed_call_are_urgent() -> None:
    hub = Hub()
    run = Run(hub, request(), lambda _: None)
    next(run.start(OneStep()))
    assert [is_urgent for _, is_urgent in hub.put_deltas] == [True, False, True]


def test_only_what_is_evaluated_after_the_prompt_is_decoding() -> None:
    run = Run(Hub(), request(), lambda _: None)
    steps = run.start(OneStep())
    next(steps)
    run.count_evaluated(10)
    next(steps)
    run.count_evaluated(5)
    done = run.finished(FinishReason.STOP, None, None)
    assert done.timing is not None
    assert done.timing.decode_ns == 5
    assert (done.usage.input_tokens, done.usage.cached_tokens) == (5, 2)


def test_marks_are_in_order_for_one_that_never_began() -> None:
    done = Run(Hub(), request(), lambda _: None).finished(FinishReason.ERROR, "code", "words")
    assert done.timing is not None
    marks = [done.timing.submitted_ns, done.timing.started_ns, done.timing.prefilled_ns]
    assert sorted(marks) == marks
    assert (done.error_code, done.error_message) == ("code", "words")
