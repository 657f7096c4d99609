"""One response being made, as its caller, the engine's thread and the family see it."""

from collections.abc import Generator
from typing import Any, Protocol

from tightloop.engine.interface import Evaluate, GenerationRequest, Job, ModelFamily, Sink
from tightloop.protocol.deltas import (
    Delta,
    EngineTiming,
    Finished,
    FinishReason,
    ToolCallDone,
    Usage,
)
from tightloop.trace.clock import Clock

Steps = Generator[Evaluate | None, Any, FinishReason]


class Hub(Protocol):
    """Where a run's deltas go and its cancel is heard; the engine."""

    clock: Clock

    def cancel(self, run: "Run") -> None:
        """The run ends soon. Any thread may call."""

    def put(self, run: "Run", delta: Delta, *, is_urgent: bool) -> None:
        """Hand a delta to the event loop: now if urgent, else at the end of the step."""


class Run:
    """One response being made: the handle for the caller, the bookkeeping for the thread."""

    def __init__(self, engine: Hub, request: GenerationRequest, sink: Sink) -> None:
        self.request = request
        self.sink = sink
        self.is_cancelled = False
        self.is_finished = False
        self.steps: Steps | None = None
        self.wanted: Evaluate | None = None
        """What its last step asked for."""
        self.num_done = 0
        """Tokens of it that were evaluated already, where that takes several steps."""
        self.rows: list[Any] = []
        """Their logits, where all are wanted."""
        self.session: str | None = None
        """Found when it matters (``admission``)."""
        self._engine = engine
        self._now_ns = engine.clock.now_ns
        self.submitted_ns = self._now_ns()
        self.started_ns = self.prefilled_ns = self.first_delta_ns = 0
        self.num_prefill = self.num_reused = self.num_steps = 0
        self.num_input = self.num_known = 0
        self.decode_ns = self.num_output = self.num_reasoning = 0
        self.num_drafted = self.num_accepted = 0
        self.num_predicted = self.num_foretold = 0
        self.stop_sequence: str | None = None

    def cancel(self) -> None:
        """The response ends soon with ``Finished`` (CANCELLED); after its end this does nothing."""
        self._engine.cancel(self)

    def start(self, family: ModelFamily) -> Steps:
        """Its steps, from now on."""
        self.started_ns = self._now_ns()
        self.steps = family.generate(self.job())
        return self.steps

    def forget_progress(self) -> None:
        """What it wants next is evaluated from its first token."""
        self.num_done = 0
        self.rows = []

    def count_evaluated(self, taken_ns: int) -> None:
        """Something was evaluated for it: decoding, if the prompt has been read."""
        if self.prefilled_ns:
            self.decode_ns += taken_ns

    def job(self) -> Job:
        """What the family gets to see."""
        return Job(
            request=self.request,
            emit=self._emit,
            is_cancelled=lambda: self.is_cancelled,
            mark_prefilled=self._mark_prefilled,
            count_prefill=self._count_prefill,
            count_input=self._count_input,
            count_decode=self._count_decode,
            count_output=self._count_output,
            count_reasoning=self._count_reasoning,
            count_drafts=self._count_drafts,
            count_prediction=self._count_prediction,
            report_stop=self._report_stop,
        )

    def finished(self, reason: FinishReason, code: str | None, message: str | None) -> Finished:
        """The last delta, with every mark in order even when a phase was never reached."""
        now = self._now_ns()
        started = self.started_ns or now
        timing = EngineTiming(
            submitted_ns=self.submitted_ns,
            started_ns=started,
            prefilled_ns=max(started, self.prefilled_ns or self.first_delta_ns or now),
            finished_ns=now,
            num_prefill_tokens=self.num_prefill,
            num_decode_steps=self.num_steps,
            decode_ns=self.decode_ns,
            first_delta_ns=self.first_delta_ns,
            num_draft_tokens=self.num_drafted,
            num_accepted_tokens=self.num_accepted,
        )
        usage = Usage(
            input_tokens=self.num_input or self.num_prefill + self.num_reused,
            cached_tokens=self.num_known if self.num_input else self.num_reused,
            output_tokens=self.num_output,
            reasoning_tokens=self.num_reasoning,
            accepted_prediction_tokens=self.num_foretold,
            rejected_prediction_tokens=self.num_predicted - self.num_foretold,
        )
        return Finished(reason, usage, timing, code, message, self.stop_sequence)

    def _emit(self, delta: Delta) -> None:
        is_first = not self.first_delta_ns
        if is_first:
            self.first_delta_ns = self._now_ns()
        # The first delta is what the user waits for, and a closed tool call can be started: both
        # go at once. The rest goes at the end of the step, at most one token later.
        self._engine.put(self, delta, is_urgent=is_first or isinstance(delta, ToolCallDone))

    def _mark_prefilled(self) -> None:
        self.prefilled_ns = self._now_ns()

    def _count_prefill(self, evaluated: int, reused: int) -> None:
        self.num_prefill += evaluated
        self.num_reused += reused

    def _count_input(self, tokens: int, known: int) -> None:
        self.num_input += tokens
        self.num_known += known

    def _count_decode(self, steps: int, inside_ns: int) -> None:
        self.num_steps += steps
        self.decode_ns += inside_ns

    def _count_output(self, tokens: int) -> None:
        self.num_output += tokens

    def _count_reasoning(self, tokens: int) -> None:
        self.num_reasoning += tokens

    def _count_drafts(self, checked: int, accepted: int) -> None:
        self.num_drafted += checked
        self.num_accepted += accepted

    def _count_prediction(self, checked: int, accepted: int) -> None:
        self.num_predicted += checked
        self.num_foretold += accepted

    def _report_stop(self, text: str) -> None:
        self.stop_sequence = text
