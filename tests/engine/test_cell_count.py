"""Shared tokens are counted once, whatever is forked, cut, goes on and ends."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.cell_count import CellCount


class Sequences:
    """Sequences as lists of cells, where a fork has the very cells of its origin."""

    def __init__(self) -> None:
        self.held: dict[int, list[object]] = {0: []}
        self.count = CellCount(lambda number: len(self.held[number]))

    def fork(self, origin: int, num_tokens: int) -> None:
        child = max(self.held) + 1
        self.held[child] = self.held[origin][:num_tokens]
        self.count.forked(origin, child, num_tokens)

    def truncate(self, number: int, num_tokens: int) -> None:
        del self.held[number][num_tokens:]
        self.count.truncated(number, num_tokens)

    def close(self, number: int) -> None:
        del self.held[number]
        self.count.closed(number)

    def extend(self, number: int, num_tokens: int) -> None:
        self.held[number] += [object() for _ in range(num_tokens)]

    def totals(self) -> tuple[int, int]:
        """Cells that there are, and as they are counted."""
        cells = {id(cell) for cells in self.held.values() for cell in cells}
        return len(cells), sum(map(self.count.own, self.held))


def test_a_fork_owns_what_it_adds() -> None:
    sequences = Sequences()
    sequences.extend(0, 10)
    sequences.fork(0, 6)
    sequences.extend(1, 3)
    assert (sequences.count.own(0), sequences.count.own(1)) == (10, 3)


def test_what_forks_share_stays_with_the_longest_when_the_origin_ends() -> None:
    sequences = Sequences()
    sequences.extend(0, 10)
    sequences.fork(0, 6)
    sequences.fork(0, 8)
    sequences.close(0)
    assert (sequences.count.own(1), sequences.count.own(2)) == (0, 8)


def test_what_a_fork_forgets_is_still_shared_by_its_own_forks_and_the_origin() -> None:
    sequences = Sequences()
    sequences.extend(0, 10)
    sequences.fork(0, 8)
    sequences.fork(1, 8)
    sequences.truncate(1, 3)
    assert [sequences.count.own(number) for number in (0, 1, 2)] == [10, 0, 0]


actions = st.lists(
    st.tuples(
        st.sampled_from(["fork", "truncate", "close", "extend"]),
        st.integers(0, 7),
        st.integers(0, 12),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(actions=actions)
def test_every_cell_is_counted_once(actions: Sequence[tuple[str, int, int]]) -> None:
    """Against the cells themselves, after every step."""
    sequences = Sequences()
    for action, place, size in actions:
        numbers = sorted(sequences.held)
        number = numbers[place % len(numbers)]
        size = min(size, len(sequences.held[number])) if action != "extend" else size
        if action == "fork":
            sequences.fork(number, size)
        elif action == "truncate":
            sequences.truncate(number, size)
        elif action == "extend":
            sequences.extend(number, size)
        elif len(numbers) > 1:
            sequences.close(number)
        cells, counted = sequences.totals()
        assert cells == counted
