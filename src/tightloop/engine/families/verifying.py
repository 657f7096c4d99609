"""Checks drafts while an answer is decoded: several tokens in one step, the wrong ones forgotten."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

from tightloop.engine.crowd import Place
from tightloop.engine.drafts.drafter import Drafter
from tightloop.engine.families.warm_sequence import Logits, WarmSequence
from tightloop.engine.interface import EngineError, Evaluate, Job
from tightloop.engine.sequence_pool import SequencePool
from tightloop.trace.clock import now_ns


class Verifier:
    """Evaluates the tokens of one answer, each with drafts of those that may follow.

    The drafts never change what is chosen: they only make its logits known earlier.
    ``give_up`` is called when the model could not forget a rejected draft.
    """

    def __init__(
        self,
        pool: SequencePool,
        place: Place,
        warm: WarmSequence,
        drafter: Drafter,
        give_up: Callable[[], None],
    ) -> None:
        self._give_up = give_up
        self._can_forget = True
        self._pool = pool
        self._place = place
        self._warm = warm
        self._drafter = drafter
        self._drafts: Sequence[int] = ()
        self._num_right = 0
        self._num_tokens = 0
        self._rows: Logits | None = None

    def logits_after(self, token: int, room: int) -> Generator[Evaluate | None, Any, Logits]:
        """The logits after ``token``, with which the answer went on, ``warm.tokens`` being before it.

        The caller appends it then. ``room`` is how many drafts after it could be used at most.
        """
        self._drafter.accept(token)
        self._num_tokens += 1
        num_right = self._num_right
        if num_right < len(self._drafts):
            if self._drafts[num_right] == token:
                self._num_right = num_right + 1
                assert self._rows is not None
                row: Logits = self._rows[num_right + 1]
                return row
            self._forget()
        self._settle()
        if self._can_forget and not self._warm.is_parked:
            num_others = self._place.num_others
            drafts = self._drafter.propose(room, num_others)
            before = now_ns()
            if drafts and (yield from self._check(token, drafts)):
                assert self._rows is not None
                logits: Logits = self._rows[0]
            else:
                logits = yield from self._warm.evaluate(self._place, (token,))
            if not num_others:
                self._drafter.speculation.note_step(1 + len(self._drafts), now_ns() - before)
            return logits
        return (yield from self._warm.evaluate(self._place, (token,)))

    def _check(self, token: int, drafts: Sequence[int]) -> Generator[Evaluate | None, Any, bool]:
        warm = self._warm
        try:
            self._rows = yield Evaluate(warm.sequence, (token, *drafts), all_logits=True)
        except EngineError:  # no room for the drafts: alone the token may fit
            self._pool.truncate(warm.sequence, len(warm.tokens))
            return False
        self._drafts = drafts
        return True

    def _forget(self) -> None:
        """The sequence holds ``warm.tokens`` only."""
        warm = self._warm
        try:
            self._pool.truncate(warm.sequence, len(warm.tokens))
        except EngineError:  # a model that cannot forget a part: it is read again, and never drafts
            self._can_forget = False
            self._give_up()
            warm.park()

    def _settle(self) -> None:
        if self._drafts:
            self._drafter.settle(len(self._drafts), self._num_right)
        self._drafts, self._num_right, self._rows = (), 0, None

    def report(self, job: Job) -> None:
        """``job`` knows how many drafts were checked; call it once, at the end."""
        self._settle()
        total, prediction = self._drafter.total, self._drafter.prediction
        self._drafter.speculation.note_answer(self._num_tokens, total.num_accepted)
        job.count_drafts(total.num_drafted, total.num_accepted)
        job.count_prediction(prediction.num_drafted, prediction.num_accepted)
