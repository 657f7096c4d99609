"""Which turn is a race; what a person sees of one is in test_screens."""

import pytest

from tightloop.cli.chat.racing import Racing


def test_a_race_is_chosen_for_one_turn() -> None:
    racing = Racing()
    assert "a race of 3" in racing.choose("3", "auto")
    assert "a race of 3" in racing.choose("", "auto")  # as it stands
    assert racing.num == 3
    assert "an ordinary one" in racing.choose("1", "ask")


@pytest.mark.parametrize("argument", ["0", "65", "-1", "many", "²"])
def test_what_is_no_race(argument: str) -> None:
    """Nothing changes then."""
    racing = Racing()
    with pytest.raises(ValueError, match="from 1 to 64"):
        racing.choose(argument, "full")
    assert racing.num == 1


@pytest.mark.parametrize("approval", ["ask", "read-only"])
def test_candidates_cannot_ask(approval: str) -> None:
    with pytest.raises(ValueError, match="candidates cannot ask"):
        Racing().choose("2", approval)
