"""Texts are counted once, as long as they are remembered."""

from collections.abc import Generator

from tightloop.engine.families.known_lengths import KnownLengths, Length
from tightloop.engine.scripted_backend import ScriptedBackend, replying
from tightloop.engine.sequence_pool import SequencePool


def result(steps: Generator[None, None, Length]) -> Length:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            length: Length = end.value
            return length


def lengths(max_chars: int = 1000) -> KnownLengths:
    pool = SequencePool(ScriptedBackend(replying(b"")), lambda: False)
    return KnownLengths(pool, max_chars=max_chars)


def test_what_was_counted_before_is_told_apart() -> None:
    """One token is one byte here."""
    known = lengths()
    assert result(known.count(["abc", "de"])) == Length(5, 0)
    assert result(known.count(["abc", "de", "fghi"])) == Length(9, 5)


def test_the_text_asked_about_longest_ago_is_forgotten_first() -> None:
    known = lengths(max_chars=6)
    for texts, num_known in (
        (["abc", "def"], 0),
        (["abc"], 3),
        (["ghi"], 0),
        (["abc"], 3),
        (["def"], 0),
    ):
        assert result(known.count(texts)).num_known == num_known


def test_a_text_too_long_to_remember_is_counted_all_the_same() -> None:
    known = lengths(max_chars=2)
    assert result(known.count(["abc"])) == result(known.count(["abc"])) == Length(3, 0)
