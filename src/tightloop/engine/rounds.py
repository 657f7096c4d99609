"""Rounds: every job that runs goes on by one step, and what they want evaluated is shared.

Short evaluations of all jobs (a token, or a draft to verify) are one step of the backend. Long ones
(prefill) take turns, one piece a round, so that nobody who decodes waits for more than one piece.
A job that is alone pays for none of this: its round is one evaluation.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from tightloop.engine.interface import Cancelled, EngineError, Evaluate, ModelFamily
from tightloop.engine.run import Run, Steps
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.turn import Turn
from tightloop.protocol.deltas import FinishReason
from tightloop.trace.clock import now_ns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

SMALL_TOKENS: Final = 32
"""Most tokens of an evaluation that shares a step: it must not hold up the others in it."""

ALONE_TOKENS: Final = 512
"""Prefill at a time when nobody else would have to wait."""

SHARED_TOKENS: Final = 64
"""Prefill at a time beside others (figures: design/0016-warm-sessions.md)."""


class Finish(Protocol):
    """How a run's end is told."""

    def __call__(
        self, run: Run, reason: FinishReason, code: str | None = None, message: str | None = None
    ) -> None: ...


def never() -> bool:
    """Somebody else always has something to do."""
    return False


class Rounds:
    """``finish`` is called for each run that ends, ``wake`` whenever deltas may have come:
    with True if only short steps follow, after which it is called again.

    ``shared_tokens`` of a prefill are evaluated at a time while somebody else would wait.
    """

    def __init__(
        self,
        family: ModelFamily,
        pool: SequencePool,
        turn: Turn,
        finish: Finish,
        wake: Callable[[bool], None],
        *,
        shared_tokens: int = SHARED_TOKENS,
    ) -> None:
        self._family = family
        self._shared_tokens = shared_tokens
        self._pool = pool
        self._turn = turn
        self._finish = finish
        self._wake = wake

    def make(self, running: list[Run], is_undisturbed: Callable[[], bool] = never) -> list[Run]:
        """One round; those that go on, in the order in which their next prefill comes.

        A job that is alone makes more short steps while ``is_undisturbed``.
        """
        if len(running) == 1:  # the one who is alone: whatever it wants is evaluated for it
            run = running[0]
            is_going_on = self._step(run, ALONE_TOKENS, is_undisturbed=is_undisturbed)
            self._wake(is_going_on and _is_small(run.wanted))
            return running if is_going_on else []
        if any(run.wanted is None for run in running):
            self._wake(False)  # nobody waits for what a job does by itself
        running = [
            run
            for run in running
            if (run.wanted is not None and not run.is_cancelled)
            or self._step(run, self._shared_tokens)
        ]
        ended = self._join([run for run in running if _is_small(run.wanted)])
        if ended:
            running = [run for run in running if run not in ended]
        reading = next((run for run in running if _is_large(run.wanted)), None)
        # Nor for somebody else's prefill.
        self._wake(bool(running) and all(_is_small(run.wanted) for run in running))
        if reading is not None:
            is_waited_for = not all(_is_large(run.wanted) for run in running)
            running.remove(reading)
            if self._step(reading, self._shared_tokens if is_waited_for else ALONE_TOKENS):
                running.append(reading)
            self._wake(False)
        return running

    def _join(self, runs: list[Run]) -> list[Run]:
        """One step for all; those that have ended by it."""
        if len(runs) == 1:
            return [] if self._step(runs[0], SMALL_TOKENS) else runs
        if not runs:
            return []
        parts = [run.wanted for run in runs if run.wanted is not None]
        self._turn.pass_on()
        before_ns = now_ns()
        answers: Sequence[Logits | EngineError]
        try:
            answers = self._pool.evaluate_many(parts)
        except EngineError as error:
            answers = [error] * len(runs)
        taken_ns = now_ns() - before_ns
        num_freed = self._pool.num_freed
        ended: list[Run] = []
        for run, answer in zip(runs, answers, strict=True):
            if _is_crowded(answer) and self._pool.num_freed != num_freed:
                continue  # somebody has just made way: it may fit now, and is asked for again
            if not self._step(run, 0, answer, taken_ns):
                ended.append(run)
        return ended

    def _step(
        self,
        run: Run,
        max_tokens: int,
        answer: "Logits | EngineError | None" = None,
        taken_ns: int = 0,
        is_undisturbed: Callable[[], bool] | None = None,
    ) -> bool:
        """One step of one job; False when the job has ended, however it ended.

        ``answer`` is to what it wanted, if it was evaluated; else up to ``max_tokens`` of it are.
        With ``is_undisturbed`` more short ones follow while it says so.
        """
        self._turn.take(run)
        try:
            steps = run.steps
            if steps is None:
                steps = run.start(self._family)
            if run.is_cancelled:
                steps.close()
                self._finish(run, FinishReason.CANCELLED)
                self._turn.pass_on()
                return False
            if answer is None:
                run.wanted = self._advance(run, steps, max_tokens)
                if is_undisturbed is not None:
                    self._decode_on(run, steps, is_undisturbed)
            elif isinstance(answer, EngineError):
                run.wanted = steps.throw(answer)
            else:
                run.count_evaluated(taken_ns)
                run.wanted = steps.send(answer)
        except StopIteration as end:
            self._finish(run, end.value or FinishReason.STOP)
        except Cancelled:
            self._finish(run, FinishReason.CANCELLED)
        except EngineError as error:
            self._finish(run, FinishReason.ERROR, error.code, str(error))
        except BaseException as error:  # noqa: BLE001 - one bad job must not end the others
            # A panic of a native library is no Exception, and no signal is handled in this thread.
            text = f"{type(error).__name__}: {error}"
            self._finish(run, FinishReason.ERROR, "server_error", text)
        else:
            return True
        self._turn.pass_on()
        return False

    def _advance(self, run: Run, steps: Steps, max_tokens: int) -> Evaluate | None:
        """Evaluate what the job wants, or a piece of it; what it wants next."""
        wanted = run.wanted
        if wanted is None:
            return next(steps)
        tokens = wanted.tokens
        done = run.num_done
        is_whole = not done and len(tokens) <= max_tokens
        part = tokens if is_whole else tokens[done : done + max_tokens]
        before_ns = now_ns()
        try:
            logits = self._pool.evaluate(wanted.sequence, part, all_logits=wanted.all_logits)
        except (Cancelled, EngineError) as problem:
            if done:
                self._undo(run, wanted, problem)
            return steps.throw(problem)
        run.count_evaluated(now_ns() - before_ns)
        if is_whole:
            return steps.send(logits)
        if wanted.all_logits:
            run.rows.append(logits)
        run.num_done += len(part)
        if run.num_done < len(tokens):
            return wanted
        whole = _stacked(run.rows) if wanted.all_logits else logits
        run.forget_progress()
        return steps.send(whole)

    def _decode_on(self, run: Run, steps: Steps, is_undisturbed: Callable[[], bool]) -> None:
        """One short step after the other, with as little in between as there can be."""
        evaluate, wake = self._pool.evaluate, self._wake
        while not run.is_cancelled and is_undisturbed():
            wanted = run.wanted
            if wanted is None or len(wanted.tokens) > SMALL_TOKENS:
                return
            wake(True)
            before_ns = now_ns()
            try:
                logits = evaluate(wanted.sequence, wanted.tokens, all_logits=wanted.all_logits)
            except (Cancelled, EngineError) as problem:
                run.wanted = steps.throw(problem)
                continue
            if run.prefilled_ns:
                run.decode_ns += now_ns() - before_ns
            run.wanted = steps.send(logits)

    def _undo(self, run: Run, wanted: Evaluate, problem: Exception) -> None:
        """Unless it was cancelled, the sequence holds what it held before the first piece."""
        held = self._pool.num_tokens(wanted.sequence)
        if not isinstance(problem, Cancelled):
            with suppress(EngineError):  # a model that cannot forget a part: it starts over
                self._pool.truncate(wanted.sequence, held - run.num_done)
        run.forget_progress()


def _is_crowded(answer: object) -> bool:
    return isinstance(answer, EngineError) and answer.code == "server_is_overloaded"


def _is_small(wanted: Evaluate | None) -> bool:
    return wanted is not None and len(wanted.tokens) <= SMALL_TOKENS


def _is_large(wanted: Evaluate | None) -> bool:
    return wanted is not None and len(wanted.tokens) > SMALL_TOKENS


def _stacked(rows: "Sequence[Logits]") -> "Logits":
    import numpy as np

    return np.concatenate(rows)
