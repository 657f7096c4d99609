"""Idle state makes room; live state never does."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine.stepping import result_of
from tightloop.engine.interface import Cancelled, EngineError, Evaluate
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SHORT_CHARS, SequencePool


@dataclass(slots=True)
class Kept:
    """Filed state of one sequence."""

    pool: SequencePool
    sequence: int

    @property
    def sequences(self) -> tuple[int, ...]:
        return (self.sequence,)

    def release(self) -> None:
        self.pool.close(self.sequence)

    def freeze(self) -> int:
        return 0

    def thaw(self) -> None:
        raise AssertionError("never frozen")


def pool_of(
    num_sequences: int = 3, *, num_cells: int = 100, cancelled: bool = False
) -> SequencePool:
    backend = ScriptedBackend(
        lambda held: len(held), num_sequences=num_sequences, num_cells=num_cells, context_window=60
    )
    return SequencePool(backend, lambda: cancelled)


def filed(pool: SequencePool, key: str, num_tokens: int = 1) -> Kept:
    state = Kept(pool, pool.open())
    pool.evaluate(state.sequence, [1] * num_tokens)
    pool.file(key, state)
    return state


def keys(pool: SequencePool) -> list[str]:
    return [key for key, _ in pool.newest_first()]


def test_the_state_unused_for_longest_goes_first() -> None:
    pool = pool_of()
    for key in ("a", "b", "c"):
        filed(pool, key)
    pool.open()
    assert keys(pool) == ["c", "b"]
    pool.demote("c")
    pool.open()
    assert keys(pool) == ["b"]


def test_only_the_newest_are_kept() -> None:
    """What is over the number goes, oldest first, and its cells with it."""
    pool = pool_of()
    for key in ("a", "b", "c"):
        filed(pool, key)
    pool.keep_newest(5)
    assert keys(pool) == ["c", "b", "a"]
    pool.keep_newest(1)
    assert keys(pool) == ["c"]
    for _ in range(2):  # the sequences of the two are free again
        pool.open()
    assert keys(pool) == ["c"]


def test_a_fork_spares_its_origin() -> None:
    pool = pool_of(2)
    origin = filed(pool, "old", 5)
    filed(pool, "new")
    child = pool.fork(origin.sequence, 5)
    assert keys(pool) == ["old"]
    assert pool.num_tokens(child) == 5


def test_what_was_taken_cannot_be_evicted() -> None:
    pool = pool_of(1)
    state = filed(pool, "a")
    assert pool.peek("a") is state
    assert pool.take("a") is state
    with pytest.raises(EngineError, match="all 1 sequences"):
        pool.open()
    assert pool.take("a") is None


def test_filing_again_releases_what_was_there() -> None:
    pool = pool_of(2)
    filed(pool, "a")
    filed(pool, "a")
    assert isinstance(pool.backend, ScriptedBackend)
    assert pool.backend.num_open() == 1
    pool.drop("a")
    pool.drop("a")
    assert pool.backend.num_open() == 0


def test_full_cells_evict_until_it_fits() -> None:
    pool = pool_of()
    filed(pool, "a", 40)
    filed(pool, "b", 40)
    live = pool.open()
    logits = pool.evaluate(live, [1] * 50)
    assert logits.argmax() == 50
    assert keys(pool) == ["b"]


def test_live_sequences_alone_filling_the_cells_is_a_refusal_to_retry() -> None:
    pool = pool_of()
    one, two = pool.open(), pool.open()
    pool.evaluate(one, [1] * 60)
    with pytest.raises(EngineError, match="sequences in use fill the context") as caught:
        pool.evaluate(two, [1] * 60)
    assert caught.value.code == "server_is_overloaded"


def test_a_prompt_longer_than_the_window_evicts_nothing() -> None:
    pool = pool_of()
    filed(pool, "a", 40)
    with pytest.raises(EngineError) as caught:
        pool.evaluate(pool.open(), [1] * 61)
    assert caught.value.code == "context_length_exceeded"
    assert keys(pool) == ["a"]


def test_a_cancel_meant_for_another_job_is_survived() -> None:
    pool = pool_of()
    sequence = pool.open()
    pool.cancel()
    assert pool.evaluate(sequence, [1, 2, 3]).argmax() == 3
    pool.cancel()
    assert pool.evaluate(sequence, [1, 2], all_logits=True).shape[0] == 2
    assert pool.num_tokens(sequence) == 5


def test_a_cancel_meant_for_this_job_ends_it() -> None:
    pool = pool_of(cancelled=True)
    sequence = pool.open()
    pool.cancel()
    with pytest.raises(Cancelled):
        pool.evaluate(sequence, [1, 2, 3])


def test_shutdown_releases_everything() -> None:
    pool = pool_of()
    filed(pool, "a")
    pool.shutdown()
    assert isinstance(pool.backend, ScriptedBackend)
    assert pool.backend.is_shut_down


class SlowReader(ScriptedBackend):
    """Tokenises once it may, and notes on which thread."""

    def __init__(self) -> None:
        super().__init__(lambda held: 0)
        self.may_read = threading.Event()
        self.threads: list[str] = []

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        self.threads.append(threading.current_thread().name)
        self.may_read.wait()
        assert not self.is_shut_down
        return [len(text)]


def test_a_long_text_is_read_aside() -> None:
    backend = SlowReader()
    pool = SequencePool(backend, lambda: False)
    steps = pool.read("x" * (SHORT_CHARS + 1), special=True)
    next(steps)
    next(steps)  # others go on
    backend.may_read.set()
    assert result_of(steps) == [SHORT_CHARS + 1]
    assert result_of(pool.read("x" * SHORT_CHARS, special=True)) == [SHORT_CHARS]
    here = threading.current_thread().name
    assert [name == here for name in backend.threads] == [False, True]
    pool.shutdown()


def test_the_backend_is_released_when_nobody_reads_with_it() -> None:
    """Also by a reader whose asker has left."""
    backend = SlowReader()
    pool = SequencePool(backend, lambda: False)
    steps = pool.read("x" * (SHORT_CHARS + 1), special=True)
    next(steps)
    steps.close()
    threading.Timer(0, backend.may_read.set).start()
    pool.shutdown()
    assert backend.is_shut_down


def code(answer: object) -> str | None:
    """Of an error; None of logits."""
    return answer.code if isinstance(answer, EngineError) else None


def test_a_shared_step_evicts_for_the_parts_that_lack_cells() -> None:
    """As few as are needed; every part is answered once."""
    pool = pool_of(5)
    filed(pool, "a", 20)
    filed(pool, "b", 40)
    one, two = pool.open(), pool.open()
    answers = pool.evaluate_many([Evaluate(one, [1] * 30), Evaluate(two, [1] * 30)])
    assert [code(answer) for answer in answers] == [None, None]
    assert keys(pool) == ["b"]
    assert (pool.num_tokens(one), pool.num_tokens(two)) == (30, 30)


def test_a_part_of_a_shared_step_that_never_fits_is_told_what_is_wrong() -> None:
    """Longer than the window, which evicts nothing; or than what those in use leave."""
    pool = pool_of(5)
    filed(pool, "a", 20)
    one, two, three = pool.open(), pool.open(), pool.open()
    answers = pool.evaluate_many([Evaluate(one, [1] * 61), Evaluate(two, [1] * 50)])
    assert [code(answer) for answer in answers] == ["context_length_exceeded", None]
    assert keys(pool) == ["a"]
    answers = pool.evaluate_many([Evaluate(two, [1]), Evaluate(three, [1] * 55)])
    assert [code(answer) for answer in answers] == [None, "server_is_overloaded"]
    assert keys(pool) == []
    assert (pool.num_tokens(two), pool.num_tokens(three)) == (51, 0)


def test_nobodys_cancel_stops_a_shared_step() -> None:
    pool = pool_of(cancelled=True)
    one, two = pool.open(), pool.open()
    pool.cancel()
    answers = pool.evaluate_many([Evaluate(one, [1]), Evaluate(two, [2, 3])])
    assert [code(answer) for answer in answers] == [None, None]
    assert (pool.num_tokens(one), pool.num_tokens(two)) == (1, 2)


def test_what_fails_leaves_the_sequence_as_it_was() -> None:
    """Also when part of it had been evaluated."""

    class InPieces(ScriptedBackend):
        def evaluate(
            self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
        ) -> NDArray[np.float32]:
            for token in tokens:
                logits = super().evaluate(sequence, [token], all_logits=all_logits)
            return logits

    backend = InPieces(lambda _: 0, num_cells=40, context_window=60)
    pool = SequencePool(backend, lambda: False)
    sequence = pool.open()
    pool.evaluate(sequence, [1] * 10)
    with pytest.raises(EngineError, match="fill the context"):
        pool.evaluate(sequence, [1] * 40)
    assert pool.num_tokens(sequence) == 10


def test_cells_become_free_when_something_goes() -> None:
    """And only then: cutting a sequence to what it holds frees nothing."""
    pool = pool_of()
    sequence = pool.open()
    pool.evaluate(sequence, [1] * 10)
    before = pool.num_freed
    pool.truncate(sequence, 10)
    assert pool.num_freed == before
    pool.truncate(sequence, 9)
    pool.close(sequence)
    assert pool.num_freed == before + 2


def test_without_room_to_measure_a_longer_step_costs_nothing_known() -> None:
    class Full(ScriptedBackend):
        def step_costs(self) -> dict[int, float]:
            raise EngineError("all sequences are in use", code="server_is_overloaded")

    assert SequencePool(Full(lambda _: 0), lambda: False).step_costs() == {1: 1.0}
    assert pool_of().step_costs()[16] == 1.0
