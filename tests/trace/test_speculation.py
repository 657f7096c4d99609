"""The figures of runs ahead add up."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.trace.speculation import Speculation, Try, sum_up

S = 1_000_000_000


def one(*, is_used: bool, ran: int = 1, ended: int = 3, asked: int = 2, cpu_s: float = 0.5) -> Try:
    return Try("pytest", is_used, "" if is_used else "why", 0, ran * S, ended * S, asked * S, cpu_s)


def test_what_a_used_run_saves() -> None:
    """As long as it had run when it was asked for, and not longer than it took."""
    assert one(is_used=True).saved_s == 1.0
    assert one(is_used=True, asked=9).saved_s == 2.0
    assert one(is_used=True, asked=1).saved_s == 0.0
    assert one(is_used=True, ran=0, asked=9).saved_s == 0.0
    assert one(is_used=False, asked=9).saved_s == 0.0


TRIES = st.lists(
    st.builds(
        one,
        is_used=st.booleans(),
        ran=st.integers(0, 9),
        ended=st.integers(0, 9),
        asked=st.integers(0, 9),
        cpu_s=st.integers(0, 100).map(float),
    )
)


@settings(max_examples=50)
@given(TRIES, TRIES)
def test_sums_add_up(some: list[Try], more: list[Try]) -> None:
    """Turn by turn or all at once; used and wasted are all there is, and nothing saves less than 0."""
    whole = sum_up([*some, *more])
    assert whole == sum_up(some) + sum_up(more)
    assert whole.num_used + whole.num_wasted == len(some) + len(more)
    assert whole.used_cpu_s + whole.wasted_cpu_s == sum(one.cpu_s for one in (*some, *more))
    assert whole.saved_s >= 0


def test_a_line_for_a_person() -> None:
    figures = Speculation(2, 1, 0.5, 0.25, 1.5)
    assert str(figures) == (
        "3 run ahead: 2 used, 1500 ms saved, 500 ms of processor time; 1 wasted, 250 ms"
    )
