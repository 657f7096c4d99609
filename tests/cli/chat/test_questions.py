"""Which keys answer, and when they must not."""

import pytest

from tightloop.cli.chat.questions import GUARD_NS, Choice, Question, Questions

APPLY = Question(0, "apply 2 files?", (Choice("y", "yes"), Choice("n", "no")), "n")
RUN = Question(1, "run it?", (Choice("y", "once"), Choice("a", "always: pytest *")))


def test_how_it_is_shown() -> None:
    assert APPLY.answers == "[y]es  [n]o"
    assert RUN.answers == "[y] once  [a]lways: pytest *"


@pytest.mark.parametrize(("typed", "key"), [("y", "y"), ("YES", "y"), (" no ", "n"), ("ye", None)])
def test_letters_and_words_answer(typed: str, key: str | None) -> None:
    assert APPLY.choice(typed) == key


def test_a_new_question_takes_no_key_for_a_moment() -> None:
    asked = Questions()
    asked.add(APPLY, 1000)
    assert asked.answer_of("y", 1000 + GUARD_NS - 1) is None
    assert asked.answer_of("y", 1000 + GUARD_NS) == "y"


def test_the_next_question_has_a_moment_of_its_own() -> None:
    """It comes up where the first one was: a second press of the same key must not answer it."""
    asked = Questions()
    asked.add(APPLY, 0)
    asked.add(RUN, 0)
    assert asked.first is APPLY
    assert asked.drop(APPLY.id, 10 * GUARD_NS)
    assert asked.first is RUN
    assert asked.answer_of("y", 10 * GUARD_NS + 1) is None
    assert asked.answer_of("y", 11 * GUARD_NS) == "y"


def test_one_behind_can_go_without_being_shown() -> None:
    asked = Questions()
    asked.add(APPLY, 0)
    asked.add(RUN, 0)
    assert asked.drop(RUN.id, GUARD_NS)
    assert asked.answer_of("y", GUARD_NS) == "y"
    assert not asked.drop(RUN.id, GUARD_NS)


def test_no_question_no_answer() -> None:
    asked = Questions()
    assert asked.first is None
    assert asked.answer_of("y", GUARD_NS) is None
