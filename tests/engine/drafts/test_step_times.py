"""Curves from what steps take."""

from tightloop.engine.drafts.step_times import ENOUGH, FORGOTTEN_AFTER, StepTimes

MEASURED = {1: 1.0, 4: 2.0, 8: 3.0}


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
    assert times.costs() == {1: 1.0, 4: 3.5, 8: 3.0}
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
