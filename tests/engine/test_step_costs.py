"""What is measured when steps take this long or that."""

from itertools import pairwise

from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.step_costs import measure


class Slow(ScriptedBackend):
    """Steps of one token take ``step_ns``, and half of it more for each further token."""

    def __init__(self, step_ns: int) -> None:
        super().__init__(lambda _: 0, num_sequences=1)
        self.step_ns = step_ns
        self.now_ns = 0

    def clock(self) -> int:
        """The time so far; every evaluation takes it further."""
        self.now_ns = sum(self.step_ns * (1 + count) // 2 for _, count in self.evaluated)
        return self.now_ns


def test_a_fast_model_has_every_size_measured_five_times() -> None:
    model = Slow(1000)
    assert measure(model, model.clock) == {1: 1.0, 2: 1.5, 4: 2.5, 8: 4.5, 16: 8.5}
    assert [size for _, size in model.evaluated].count(16) == 5
    assert model.num_open() == 0


def test_a_slow_model_has_few_sizes_measured_once() -> None:
    """One and four whatever it takes; nothing further once 0.3 s have gone."""
    model = Slow(200_000_000)
    assert measure(model, model.clock) == {1: 1.0, 4: 2.5}
    assert [size for _, size in model.evaluated] == [1, 1, 4]


def test_a_middling_model_has_every_size_measured_three_times() -> None:
    """A single measurement may be far off, more would take longer than they are worth."""
    model = Slow(1_000_000)
    assert set(measure(model, model.clock)) == {1, 2, 4, 8, 16}
    sizes = [size for _, size in model.evaluated[1:]]
    assert {sizes.count(size) for size in (2, 4, 8, 16)} == {3}


def test_measuring_ends_in_time() -> None:
    model = Slow(10_000_000)
    assert set(measure(model, model.clock)) == {1, 2, 4, 8, 16}
    assert len(model.evaluated) < 16


def test_the_least_counts() -> None:
    """A disturbance that only the first measurement met leaves no trace."""
    model = Slow(1000)
    extra = iter([0, 0, 7000])

    def clock() -> int:
        model.now_ns += next(extra, 0)
        return model.clock()

    assert measure(model, clock)[4] == 2.5


def test_a_step_of_one_token_is_measured_after_another_one() -> None:
    """As decoding is: kernels and graphs are in place then."""
    model = Slow(1000)
    measure(model, model.clock)
    sizes = [size for _, size in model.evaluated]
    assert sum(before == size == 1 for before, size in pairwise(sizes)) >= 5
