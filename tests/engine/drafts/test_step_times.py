"""Curves from what steps take."""

from tightloop.engine.drafts.step_times import (
    ENOUGH,
    FORGOTTEN_AFTER,
    StepTimes,
    completed,
    possible,
)

MEASURED = {1: 1.0, 2: 1.5, 4: 2.0, 8: 3.0, 16: 5.0}


def test_sizes_without_time_at_load_are_hoped_for() -> None:
    """To be tried once drafts are right often enough; then what is seen counts."""
    assert completed({1: 1.0, 4: 2.0}) == {1: 1.0, 4: 2.0, 8: 0.9 * 4, 16: 0.9 * 2 * 0.9 * 4}
    assert completed({1: 1.0}) == {1: 1.0}
    assert completed({}) == {}


def test_figures_that_cannot_be_are_corrected() -> None:
    """Eight tokens never cost more than two steps of four."""
    assert possible({1: 1.0, 4: 2.0, 8: 36.0, 16: 5.0}) == {1: 1.0, 4: 2.0, 8: 4.0, 16: 5.0}
    assert possible({1: 1.0, 2: 2.9, 16: 40.0}) == {1: 1.0, 2: 2.0, 16: 16.0}
    assert possible({}) == {}


def test_nothing_is_hoped_for_where_nothing_pays() -> None:
    assert completed({1: 1.0, 4: 3.9}) == {1: 1.0, 4: 3.9}


def noted(*steps: tuple[int, int], times: StepTimes | None = None) -> StepTimes:
    made = times or StepTimes(MEASURED)
    for size, taken_ns in steps:
        made.note(size, taken_ns)
    return made


def test_what_was_measured_at_load_holds_until_enough_is_known() -> None:
    assert noted().costs() == MEASURED
    few = noted(*[(1, 100)] * (ENOUGH - 1), *[(4, 900)] * ENOUGH)
    assert not few.has_base
    assert few.costs() == MEASURED


def test_then_the_latest_steps_do_size_by_size() -> None:
    times = noted(*[(1, 100)] * ENOUGH, *[(4, 350)] * ENOUGH, (8, 100))
    assert times.has_base
    assert times.costs() == MEASURED | {4: 3.5}
    noted(*[(4, 150)] * 100, times=times)
    assert times.costs()[4] == 1.5


def test_steps_are_short_below_a_millisecond() -> None:
    assert noted(*[(1, 900_000)] * ENOUGH).is_short
    assert not noted(*[(1, 1_100_000)] * ENOUGH).is_short
    assert not noted().is_short


def test_a_disturbed_step_has_no_effect() -> None:
    times = noted(*[(1, 100)] * 6, (1, 10**9), *[(4, 300)] * 6, (4, 10**9))
    assert times.costs()[4] == 3.0


def test_sizes_without_a_figure_are_left_out() -> None:
    assert noted((3, 7), *[(1, 100)] * ENOUGH).costs() == MEASURED


def test_a_size_that_was_not_tried_for_long_gets_its_first_figure_back() -> None:
    times = noted(*[(1, 100)] * ENOUGH, *[(4, 390)] * ENOUGH)
    assert times.costs()[4] == 3.9
    noted(*[(1, 100)] * (FORGOTTEN_AFTER + 1), times=times)
    assert times.costs()[4] == MEASURED[4]


def test_everything_can_be_forgotten() -> None:
    times = noted(*[(1, 100)] * ENOUGH, *[(4, 390)] * ENOUGH)
    times.forget()
    assert times.costs() == MEASURED
