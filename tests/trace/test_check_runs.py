"""Runs of checks add up: each is used or wasted."""

from tightloop.trace.check_runs import CheckFigures, CheckRun, sum_up


def test_figures() -> None:
    runs = [
        CheckRun("lint", "", 0, 5, 0.25, 2, 1),
        CheckRun("lint", "a later change made it stale", 5, 9, 0.5),
        CheckRun("types", "", 9, 20, 1.0),
    ]
    figures = sum_up(runs)
    assert figures == CheckFigures(2, 1, 1.25, 0.5, 2, 1)
    assert str(figures) == (
        "3 checks: 2 used, 1250 ms of processor time; 1 wasted, 500 ms; 2 new, 1 resolved"
    )
    assert sum_up([]) == CheckFigures()
