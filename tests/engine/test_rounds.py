"""Rounds: shared steps, prefill in pieces, and jobs that do not notice each other."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.engine.collecting import request
from tests.engine.test_admission import Nowhere
from tightloop.engine.interface import Cancelled, EngineError, Evaluate, GenerationRequest, Job
from tightloop.engine.rounds import ALONE_TOKENS, SHARED_TOKENS, Rounds
from tightloop.engine.run import Run
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.turn import Turn
from tightloop.protocol.deltas import FinishReason


@dataclass(frozen=True, slots=True)
class Ask:
    """So many tokens to evaluate; 0 is a step without an evaluation."""

    num_tokens: int
    all_logits: bool = False


@dataclass(slots=True)
class Family:
    """Each job asks for what its plan says and notes the best token of every row it is sent."""

    pool: SequencePool
    plans: Mapping[str, Sequence[Ask]]
    said: dict[str, list[int]] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    problems: dict[str, Exception] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    gives_back: bool = False
    name: str = "asking"

    def generate(self, job: Job) -> Generator[Evaluate | None, Any, FinishReason]:
        name = job.request.response_id
        sequence = self.sequences[name] = self.pool.open()
        said = self.said[name] = []
        count = 0
        for ask in self.plans[name]:
            self.order.append(name)
            if not ask.num_tokens:
                yield None
                continue
            tokens = [(count + n) % 250 for n in range(ask.num_tokens)]
            count += ask.num_tokens
            try:
                logits: NDArray[np.float32] = yield Evaluate(sequence, tokens, ask.all_logits)
            except (Cancelled, EngineError) as problem:
                self.problems[name] = problem
                if self.gives_back:
                    self.pool.close(sequence)
                raise
            said += [int(best) for best in np.atleast_2d(logits).argmax(axis=1)]
        return FinishReason.STOP

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        yield
        return 0


class Bench:
    """Rounds over a fake backend, driven by hand."""

    def __init__(
        self,
        plans: Mapping[str, Sequence[Ask]],
        *,
        num_cells: int = 100_000,
        backend: ScriptedBackend | None = None,
    ) -> None:
        self.backend = backend or ScriptedBackend(
            lambda held: sum(held) * 7 % 250, context_window=20_000, num_cells=num_cells
        )
        self.turn = Turn()
        self.turn.stop = self.backend.cancel
        self.pool = SequencePool(self.backend, lambda: self.turn.is_cancelled)
        self.family = Family(self.pool, plans)
        self.ends: dict[str, tuple[FinishReason, str | None]] = {}
        self.wakes: list[bool] = []
        self.undisturbed = 0
        """How often a lone job is told that nobody waits for it."""
        self.rounds = Rounds(self.family, self.pool, self.turn, self._finish, self._wake)
        self.running = [Run(Nowhere(), request(name=name), lambda _: None) for name in plans]

    def _finish(
        self, run: Run, reason: FinishReason, code: str | None = None, message: str | None = None
    ) -> None:
        self.ends[run.request.response_id] = (reason, code)

    def _wake(self, is_soon_again: bool) -> None:
        self.wakes.append(is_soon_again)

    def _is_undisturbed(self) -> bool:
        self.undisturbed -= 1
        return self.undisturbed >= 0

    def round(self) -> None:
        self.running = self.rounds.make(self.running, self._is_undisturbed)

    def to_the_end(self) -> "Bench":
        while self.running:
            self.round()
        return self

    def run(self, name: str) -> Run:
        return next(run for run in self.running if run.request.response_id == name)

    def sizes(self, name: str) -> list[int]:
        """Tokens of each evaluation on the job's sequence."""
        sequence = self.family.sequences[name]
        return [size for number, size in self.backend.evaluated if number == sequence]


TOKEN, DRAFT = Ask(1), Ask(5, all_logits=True)


def test_short_evaluations_of_all_jobs_share_one_step() -> None:
    """Tokens and drafts alike; jobs that end leave the others to go on."""
    bench = Bench({"a": [TOKEN] * 3, "b": [DRAFT] * 2, "c": [TOKEN] * 3}).to_the_end()
    assert bench.backend.joined == [3, 3, 2]
    assert {name: len(said) for name, said in bench.family.said.items()} == {
        "a": 3,
        "b": 10,
        "c": 3,
    }
    assert set(bench.ends.values()) == {(FinishReason.STOP, None)}


def test_a_job_that_is_alone_is_evaluated_alone() -> None:
    """One evaluation a round, none of them joined, and long ones in few pieces."""
    bench = Bench({"a": [Ask(1200), TOKEN, DRAFT]}).to_the_end()
    assert bench.backend.joined == []
    assert bench.sizes("a") == [ALONE_TOKENS, ALONE_TOKENS, 1200 - 2 * ALONE_TOKENS, 1, 5]


def test_beside_a_decoding_job_prefill_comes_in_small_pieces() -> None:
    """And the one that decodes has a token between any two of them."""
    bench = Bench({"long": [Ask(500)], "a": [TOKEN] * 20}).to_the_end()
    num_whole, rest = divmod(500, SHARED_TOKENS)
    assert bench.sizes("long") == [SHARED_TOKENS] * num_whole + [rest]
    long = bench.family.sequences["long"]
    owners = [number == long for number, _ in bench.backend.evaluated]
    places = [at for at, is_long in enumerate(owners) if is_long]
    assert all(later - earlier > 1 for earlier, later in pairwise(places))


def test_prefills_take_turns_in_large_pieces_when_nobody_decodes() -> None:
    bench = Bench({"a": [Ask(1024)], "b": [Ask(1024)]}).to_the_end()
    first, second = bench.family.sequences["a"], bench.family.sequences["b"]
    assert bench.backend.evaluated == [(first, 512), (second, 512), (first, 512), (second, 512)]


def test_pieces_come_to_what_the_whole_would_be() -> None:
    """With all logits as without."""
    plan = {"a": [Ask(700, all_logits=True), Ask(700)]}
    whole = [sum(n % 250 for n in range(end)) * 7 % 250 for end in (*range(1, 701), 1400)]
    assert Bench(plan).to_the_end().family.said["a"] == whole
    beside = Bench({**plan, "b": [TOKEN] * 30}).to_the_end()
    assert beside.family.said["a"] == whole
    assert SHARED_TOKENS in beside.sizes("a")


def test_jobs_that_evaluate_by_themselves_go_on_once_a_round() -> None:
    bench = Bench({"a": [Ask(0)] * 3, "b": [TOKEN] * 3})
    for number in range(1, 4):
        bench.round()
        assert bench.family.order.count("a") == number
        assert len(bench.family.said["b"]) == number
    assert bench.backend.joined == []


def test_one_that_does_not_fit_ends_alone() -> None:
    """Its sequence holds what it held, and the others never notice."""
    bench = Bench({"a": [Ask(20)] * 3, "b": [Ask(10)] * 3, "c": [TOKEN] * 3}, num_cells=75)
    bench.to_the_end()
    assert bench.ends["a"] == (FinishReason.ERROR, "server_is_overloaded")
    assert bench.ends["b"] == bench.ends["c"] == (FinishReason.STOP, None)
    assert bench.pool.num_tokens(bench.family.sequences["a"]) == 40


def test_of_those_that_do_not_fit_only_as_many_are_told_as_must_make_way() -> None:
    """The first gives its sequence back; then there is room for the second, which goes on."""
    bench = Bench({"a": [Ask(30), Ask(25)], "b": [Ask(30), Ask(25)]}, num_cells=80)
    bench.family.gives_back = True
    bench.to_the_end()
    assert bench.ends == {
        "a": (FinishReason.ERROR, "server_is_overloaded"),
        "b": (FinishReason.STOP, None),
    }


def test_a_failure_half_way_leaves_the_sequence_as_it_was() -> None:
    bench = Bench({"a": [TOKEN, Ask(1200)]}, num_cells=600).to_the_end()
    assert bench.ends["a"] == (FinishReason.ERROR, "server_is_overloaded")
    assert bench.sizes("a") == [1, ALONE_TOKENS]
    assert bench.pool.num_tokens(bench.family.sequences["a"]) == 1


def test_a_cancelled_job_leaves_and_the_step_goes_on_for_the_rest() -> None:
    bench = Bench({name: [TOKEN] * 4 for name in "abc"})
    bench.round()
    bench.turn.cancel(bench.run("b"))
    bench.to_the_end()
    assert bench.ends["b"] == (FinishReason.CANCELLED, None)
    assert bench.backend.joined == [3, 2, 2, 2]
    assert len(bench.family.said["b"]) == 1
    assert len(bench.family.said["a"]) == len(bench.family.said["c"]) == 4


def test_a_cancel_that_comes_late_does_not_stop_a_shared_step() -> None:
    """The backend was told to stop a job's evaluation that had just ended."""
    bench = Bench({"a": [TOKEN] * 2, "b": [Ask(7)] * 2})
    bench.backend.cancel()
    bench.to_the_end()
    assert set(bench.ends.values()) == {(FinishReason.STOP, None)}
    assert bench.pool.num_tokens(bench.family.sequences["b"]) == 14


class CancelledAt(ScriptedBackend):
    """The owner of ``bench`` cancels a job in the midst of one of its evaluations."""

    bench: Bench
    at: int = -1

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> NDArray[np.float32]:
        if len(self.evaluated) == self.at:
            self.bench.turn.cancel(self.bench.run("a"))
        return super().evaluate(sequence, tokens, all_logits=all_logits)


def test_a_job_cancelled_in_its_second_piece_is_told_and_keeps_the_first() -> None:
    backend = CancelledAt(lambda _: 0, context_window=20_000, num_cells=20_000)
    bench = backend.bench = Bench({"a": [Ask(1200)]}, backend=backend)
    backend.at = 1
    bench.to_the_end()
    assert bench.ends["a"] == (FinishReason.CANCELLED, None)
    assert isinstance(bench.family.problems["a"], Cancelled)
    assert bench.pool.num_tokens(bench.family.sequences["a"]) == ALONE_TOKENS


def test_deltas_of_a_shared_step_do_not_wait_for_a_piece_of_prefill() -> None:
    """The loop is woken after the step, and again after the piece."""
    bench = Bench({"a": [TOKEN] * 9, "long": [Ask(700)]})
    bench.round()
    bench.wakes.clear()
    bench.round()
    assert bench.wakes == [False, False]


def test_only_before_a_short_step_a_wake_may_be_left_out() -> None:
    """Not before a prompt is read, nor before a job evaluates by itself."""
    bench = Bench({"a": [TOKEN, TOKEN, Ask(33), Ask(0), TOKEN]})
    bench.to_the_end()
    assert bench.wakes == [True, True, False, False, True, False]
    shared = Bench({"a": [TOKEN] * 3, "b": [TOKEN, Ask(0), TOKEN]})
    shared.to_the_end()
    assert shared.wakes == [False, False, False, True, False]


def test_a_lone_job_goes_on_while_nothing_else_is_to_be_done() -> None:
    """One round makes all its short steps; a prompt and work of its own are rounds of their own."""
    plan = [TOKEN, TOKEN, DRAFT, Ask(33), TOKEN, Ask(0), TOKEN]
    bench = Bench({"a": plan})
    bench.undisturbed = 100
    num_evaluated: list[int] = []
    while bench.running:
        bench.round()
        num_evaluated.append(len(bench.backend.evaluated))
    assert num_evaluated == [3, 5, 6]
    assert bench.ends["a"] == (FinishReason.STOP, None)


def test_a_lone_job_stops_at_once_for_others_and_when_cancelled() -> None:
    bench = Bench({"a": [TOKEN] * 9})
    bench.undisturbed = 4
    bench.round()
    assert len(bench.backend.evaluated) == 4
    bench.undisturbed = 100
    bench.turn.cancel(bench.run("a"))
    bench.round()
    assert bench.ends["a"] == (FinishReason.CANCELLED, None)
    assert len(bench.backend.evaluated) == 4


plans = st.dictionaries(
    st.sampled_from("abcde"),
    st.lists(
        st.builds(Ask, st.sampled_from([0, 1, 1, 1, 4, 32, 33, 150, 600]), st.booleans()),
        max_size=6,
    ),
    min_size=1,
)


@settings(max_examples=40, deadline=None)
@given(plan=plans, undisturbed=st.integers(0, 12))
def test_every_job_gets_what_it_would_get_alone(
    plan: Mapping[str, Sequence[Ask]], undisturbed: int
) -> None:
    """Whatever they ask for, together or not, in many rounds or few, and everything ends."""
    together = Bench(plan).to_the_end()
    assert set(together.ends.values()) <= {(FinishReason.STOP, None)}
    for name, asks in plan.items():
        alone = Bench({name: asks})
        alone.undisturbed = undisturbed
        alone.to_the_end()
        assert alone.family.said[name] == together.family.said[name]
        assert sum(ask.num_tokens for ask in asks) == sum(together.sizes(name))
