"""Picks the source and the number of drafts for each step of an answer, and keeps the score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from tightloop.engine.drafts.policy import OFF, Plan, beside, pays, plan
from tightloop.engine.drafts.source import NOTHING, NUM_LEVELS, DraftSource, level_of
from tightloop.engine.drafts.step_times import StepTimes

REVIEW_TOKENS: Final = 16
"""Plans are made anew after this many judged tokens."""

SLOWEST_STEP: Final = 1 / 64
"""Weight of the newest token in a rate that has seen many."""

RETRY_ANSWERS: Final = 32
"""Answers without drafts after which a model that lost by them tries again."""

JUDGED_TOKENS: Final = 256
LEAST_USEFUL: Final = 0.05
"""Share of drafted tokens in so many below which a model with short steps gets no drafts: merely
following the sources would cost more."""

PRIOR_TOKENS: Final = 4
"""Tokens' worth of weight that the first guess of a rate has."""


class Kind(IntEnum):
    """What a source drafts from."""

    PREDICTION = 0
    FILE = 1
    HISTORY = 2


_PRIORS: Final = {
    Kind.PREDICTION: (0.9,) * NUM_LEVELS,
    Kind.FILE: (0.3, 0.4, 0.6, 0.8, 0.9, 0.9),
    Kind.HISTORY: (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
}


class Acceptance:
    """How often a kind of source is right, by its level of trust: moving averages."""

    def __init__(self, kind: Kind) -> None:
        self.rates = list(_PRIORS[kind])
        self._counts = [PRIOR_TOKENS] * NUM_LEVELS

    def note(self, level: int, *, is_right: bool) -> None:
        """A source at ``level`` expected a token, and was right or not."""
        self._counts[level] += 1
        weight = max(SLOWEST_STEP, 1 / self._counts[level])
        self.rates[level] += weight * (is_right - self.rates[level])

    def ahead(self, run: int, num: int) -> list[float]:
        """Chance of each of the next ``num`` drafts, given those before it, after ``run``."""
        return [self.rates[level_of(run + n)] for n in range(num)]


class Speculation:
    """What is known of drafts for one model: what steps cost, and how often sources are right.

    ``costs`` is c(k) as the backend measured it; empty where it cannot tell, which means no drafts.
    With ``learns`` the steps that are noted correct it.
    """

    def __init__(self, costs: Mapping[int, float], *, learns: bool = False) -> None:
        self._learns = learns
        self._times = StepTimes(costs)
        self._costs = self._times.costs() if learns else dict(costs)
        self._num_refused = 0
        self._num_followed = self._num_useful = 0
        self._is_idle = False
        self._acceptance = {kind: Acceptance(kind) for kind in Kind}
        self._plans: dict[tuple[Kind, int, int], Plan] = {}
        self._curves: dict[int, dict[int, float]] = {}
        self._num_notes = 0

    def begin(self) -> bool:
        """Whether the next answer should have drafts.

        Where they lost they are tried again now and then: what steps cost may have changed.
        """
        if pays(self._costs) and not self._is_idle:
            return True
        self._num_refused += 1
        if self._learns and self._num_refused >= RETRY_ANSWERS:
            self._num_refused, self._is_idle = 0, False
            self._times.forget()
            self._review()
        return False

    def note_answer(self, num_tokens: int, num_accepted: int) -> None:
        """An answer of ``num_tokens`` has ended, of which ``num_accepted`` were drafts."""
        self._num_followed += num_tokens
        self._num_useful += num_accepted
        if self._learns and self._num_followed >= JUDGED_TOKENS:
            is_useless = self._num_useful < LEAST_USEFUL * self._num_followed
            self._is_idle = is_useless and self._times.is_short
            self._num_followed = self._num_useful = 0

    def note_step(self, size: int, taken_ns: int) -> None:
        """A step of ``size`` tokens, of one session alone, took so long."""
        if self._learns:
            self._times.note(size, taken_ns)

    def note(self, kind: Kind, run: int, *, is_right: bool) -> None:
        """A source of ``kind`` expected a token after ``run`` right ones."""
        self._acceptance[kind].note(level_of(run), is_right=is_right)
        self._num_notes += 1
        if self._num_notes >= REVIEW_TOKENS:
            self._review()

    def _review(self) -> None:
        self._num_notes = 0
        self._plans.clear()
        self._curves.clear()
        if self._learns:
            self._costs = self._times.costs()

    def plan(self, kind: Kind, run: int, num_others: int) -> Plan:
        """The best number of drafts from a source beside ``num_others`` other sessions."""
        if self._learns and not num_others and not self._times.has_base:
            return OFF  # a few steps without drafts, to compare with
        key = (kind, level_of(run), num_others)
        found = self._plans.get(key)
        if found is None:
            curve = self._curve(num_others)
            ahead = self._acceptance[kind].ahead(run, max(curve, default=1))
            found = self._plans[key] = plan(curve, ahead, num_others)
        return found

    def _curve(self, num_others: int) -> dict[int, float]:
        if num_others not in self._curves:
            self._curves[num_others] = beside(self._costs, num_others)
        return self._curves[num_others]


@dataclass(slots=True)
class Score:
    """Drafts that were checked, and those of them that came true."""

    num_drafted: int = 0
    num_accepted: int = 0


@dataclass(slots=True)
class Drafter:
    """The sources of one answer.

    ``chores`` prepares them piece by piece, one before each proposal. Order: ``accept`` for every
    token; where the answer must be evaluated further ``propose``, and ``settle`` when it is known
    how many of the proposed came true.
    """

    speculation: Speculation
    sources: Sequence[tuple[Kind, DraftSource]]
    chores: Iterator[None] = field(default_factory=lambda: iter(()))
    total: Score = field(default_factory=Score)
    prediction: Score = field(default_factory=Score)
    """The part of ``total`` that came from the client's prediction."""
    _is_prediction: bool = False

    def accept(self, token: int) -> None:
        """The answer went on with ``token``."""
        for kind, source in self.sources:
            expected = source.expected
            if expected != NOTHING:
                self.speculation.note(kind, source.run, is_right=expected == token)
            source.accept(token)

    def propose(self, limit: int, num_others: int = 0) -> Sequence[int]:
        """At most ``limit`` tokens worth checking in the next step; often none.

        ``num_others`` sessions are evaluated in the same steps.
        """
        next(self.chores, None)
        best, drafts_from = OFF, None
        for kind, source in self.sources:
            if source.expected == NOTHING:
                continue
            found = self.speculation.plan(kind, source.run, num_others)
            if found.gain > best.gain:
                best, drafts_from = found, source
                self._is_prediction = kind is Kind.PREDICTION
        if drafts_from is None or limit < 1:
            return ()
        return drafts_from.propose(min(limit, best.num_drafts))

    def settle(self, num_drafted: int, num_accepted: int) -> None:
        """Of the drafts proposed last ``num_drafted`` were checked, ``num_accepted`` came true."""
        for score in (self.total, self.prediction) if self._is_prediction else (self.total,):
            score.num_drafted += num_drafted
            score.num_accepted += num_accepted
