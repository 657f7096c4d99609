"""Levels of trust."""

from tightloop.engine.drafts.source import NUM_LEVELS, level_of


def test_levels_rise_with_the_length_of_agreement() -> None:
    assert [level_of(run) for run in range(9)] == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    assert level_of(15) == NUM_LEVELS - 2
    assert level_of(16) == level_of(10_000) == NUM_LEVELS - 1
