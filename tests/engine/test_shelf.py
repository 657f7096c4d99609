"""What is kept, what makes way, what is saved, and that it comes back as it was."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.interface import EngineError, SavedSequence
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.shelf import MIN_SAVED_TOKENS

LONG = MIN_SAVED_TOKENS
TOKEN_BYTES = 4


@dataclass(slots=True)
class Kept:
    """Filed state of one sequence that can be frozen, unless ``is_plain``."""

    pool: SequencePool
    held: list[int] = field(default_factory=list)
    is_plain: bool = False
    saved: SavedSequence = b""

    @property
    def sequences(self) -> Sequence[int]:
        return self.held

    def release(self) -> None:
        for sequence in self.held:
            self.pool.close(sequence)
        self.held = []

    def freeze(self) -> int:
        if self.is_plain:
            return 0
        self.saved = self.pool.save(self.held[0])
        self.release()
        return len(self.saved)

    def thaw(self) -> None:
        self.held = [self.pool.restore(self.saved)]


def pool_of(
    num_sequences: int = 3,
    *,
    num_cells: int = 1000,
    warm_bytes: int | None = None,
    saved_bytes: int = 1 << 20,
) -> SequencePool:
    backend = ScriptedBackend(
        lambda held: held[-1] if held else 0,
        num_sequences=num_sequences,
        num_cells=num_cells,
        context_window=500,
    )
    return SequencePool(backend, lambda: False, warm_bytes=warm_bytes, saved_bytes=saved_bytes)


def filed(pool: SequencePool, key: str, num_tokens: int = LONG, *, is_plain: bool = False) -> Kept:
    sequence = pool.open()
    pool.evaluate(sequence, [ord(key[0])] * num_tokens)
    state = Kept(pool, [sequence], is_plain)
    pool.file(key, state)
    return state


def keys(pool: SequencePool) -> list[str]:
    return [key for key, _ in pool.newest_first()]


def test_what_makes_way_is_saved_and_comes_back_as_it_was() -> None:
    pool = pool_of(2)
    first = filed(pool, "a")
    filed(pool, "b")
    live = pool.open()
    assert first.sequences == []
    assert pool.peek("a") is first
    assert keys(pool) == ["b", "a"]
    pool.close(live)
    assert pool.thaw(first)
    assert pool.num_tokens(first.sequences[0]) == LONG
    assert pool.evaluate(first.sequences[0], [9]).argmax() == 9
    assert keys(pool) == ["a", "b"]
    stats = pool.stats()
    assert (stats.num_evicted, stats.num_saved, stats.num_restored) == (1, 1, 1)
    assert (stats.num_warm, stats.num_frozen, stats.bytes_saved) == (2, 0, 0)


def test_restoring_makes_others_make_way() -> None:
    """Sequences or cells, whichever is short; what comes back is not pushed out itself."""
    pool = pool_of(2, saved_bytes=LONG * TOKEN_BYTES)
    first, second = filed(pool, "a"), filed(pool, "b")
    third = filed(pool, "c")
    assert first.sequences == []
    assert pool.thaw(first)
    assert second.sequences == []
    assert keys(pool) == ["a", "c", "b"]
    pool = pool_of(3, num_cells=2 * LONG)
    first, second, third = filed(pool, "a"), filed(pool, "b"), filed(pool, "c")
    assert pool.thaw(first)
    assert (second.sequences, third.held != []) == ([], True)


def test_without_room_for_it_saved_state_is_forgotten() -> None:
    pool = pool_of(1)
    state = filed(pool, "a")
    pool.open()
    assert not pool.thaw(state)
    assert pool.peek("a") is None
    assert pool.stats().bytes_saved == 0
    assert pool.take("a") is None


def test_warm_state_is_thawed_already() -> None:
    pool = pool_of()
    state = filed(pool, "a")
    assert pool.thaw(state)
    assert pool.stats().num_restored == 0


def test_taking_frozen_state_thaws_it() -> None:
    pool = pool_of(1)
    state = filed(pool, "a")
    filed(pool, "b")
    assert state.sequences == []
    assert pool.take("a") is state
    assert len(state.sequences) == 1
    pool = pool_of(1)
    filed(pool, "a")
    pool.open()
    assert pool.take("a") is None


@pytest.mark.parametrize(
    ("num_tokens", "is_plain", "saved_bytes"),
    [(LONG - 1, False, 1 << 20), (LONG, True, 1 << 20), (LONG, False, LONG * TOKEN_BYTES - 1)],
    ids=["short", "of a kind that is not saved", "too large for the budget"],
)
def test_what_is_not_saved_is_released(num_tokens: int, is_plain: bool, saved_bytes: int) -> None:
    pool = pool_of(1, saved_bytes=saved_bytes)
    filed(pool, "a", num_tokens, is_plain=is_plain)
    pool.open()
    assert keys(pool) == []
    assert pool.stats().num_saved == 0


def test_continued_state_is_not_saved() -> None:
    """Its continuation holds the same; what was saved of it is dropped, too."""
    pool = pool_of(2)
    filed(pool, "a")
    pool.demote("a")
    filed(pool, "b")
    filed(pool, "c")
    assert keys(pool) == ["c", "b"]
    filed(pool, "d")
    assert keys(pool) == ["d", "c", "b"]
    pool.demote("b")
    assert keys(pool) == ["d", "c"]
    assert pool.stats().bytes_saved == 0


def test_saved_state_unused_for_longest_is_dropped_when_the_budget_is_full() -> None:
    pool = pool_of(1, saved_bytes=2 * LONG * TOKEN_BYTES)
    for key in "abcd":
        filed(pool, key)
    assert keys(pool) == ["d", "c", "b"]
    assert pool.stats().bytes_saved == 2 * LONG * TOKEN_BYTES
    pool.drop("b")
    assert keys(pool) == ["d", "c"]
    assert pool.stats().bytes_saved == LONG * TOKEN_BYTES


def test_warm_bytes_are_limited_and_shared_tokens_count_once() -> None:
    pool = pool_of(8, warm_bytes=200 * TOKEN_BYTES)
    first = filed(pool, "a", 100)
    child = pool.fork(first.sequences[0], 100)
    pool.evaluate(child, [1] * 50)
    pool.file("b", Kept(pool, [child]))
    assert pool.stats().bytes_warm == 150 * TOKEN_BYTES
    filed(pool, "c", 60)
    assert keys(pool) == ["c", "b", "a"]
    assert first.sequences == []
    assert pool.stats().bytes_warm == 60 * TOKEN_BYTES
    assert pool.stats().num_warm == 1
    filed(pool, "d", 300)
    assert pool.stats().num_warm == 0
    assert "d" in keys(pool)


def test_the_shelf_is_empty_after_shutdown() -> None:
    pool = pool_of(1)
    filed(pool, "a")
    filed(pool, "b")
    pool.shutdown()
    assert keys(pool) == []
    assert pool.stats().bytes_saved == 0


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["file", "thaw", "take", "drop", "demote", "keep"]),
            st.sampled_from("abcdef"),
            st.integers(1, 300),
        ),
        max_size=40,
    )
)
def test_nothing_leaks_and_nothing_is_mixed_up(steps: list[tuple[str, str, int]]) -> None:
    """Whatever happens: sequences open are those of warm state, and each holds its own tokens."""
    pool = pool_of(3, num_cells=600, saved_bytes=900 * TOKEN_BYTES, warm_bytes=500 * TOKEN_BYTES)
    backend = pool.backend
    assert isinstance(backend, ScriptedBackend)
    sizes: dict[str, int] = {}
    for action, key, size in steps:
        if action == "file":
            pool.drop(key)
            sizes[key] = size
            filed(pool, key, size)
        elif action == "thaw":
            state = pool.peek(key)
            assert state is None or pool.thaw(state)
        elif action == "take":
            state = pool.take(key)
            if state is not None:
                assert pool.num_tokens(state.sequences[0]) == sizes[key]
                state.release()
        elif action == "keep":
            pool.keep_newest(size % 3)
        else:
            getattr(pool, action)(key)
        stats = pool.stats()
        assert stats.num_warm == backend.num_open()
        assert stats.bytes_warm <= 500 * TOKEN_BYTES
        assert 0 <= stats.bytes_saved <= 900 * TOKEN_BYTES
        assert len(keys(pool)) == len(set(keys(pool))) == stats.num_warm + stats.num_frozen


def test_freezing_that_fails_is_a_release() -> None:
    class Unsaveable(Kept):
        def freeze(self) -> int:
            raise EngineError("cannot be saved")

    pool = pool_of(1)
    sequence = pool.open()
    pool.evaluate(sequence, [1] * LONG)
    pool.file("a", Unsaveable(pool, [sequence]))
    pool.open()
    assert keys(pool) == []
