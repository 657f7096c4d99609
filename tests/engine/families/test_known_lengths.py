"""Texts are counted once, as long as they are remembered."""

from collections.abc import Generator

from tightloop.engine.families.known_lengths import KnownLengths
from tightloop.engine.scripted_backend import ScriptedBackend, replying
from tightloop.engine.sequence_pool import SequencePool


class Counting:
    """Known lengths, and which texts had to be counted. One token is one byte."""

    def __init__(self, max_chars: int = 1000) -> None:
        self.read: list[str] = []
        backend = ScriptedBackend(replying(b""))
        tokenize = backend.tokenize

        def noted(text: str, *, special: bool) -> list[int]:
            self.read.append(text)
            return tokenize(text, special=special)

        backend.tokenize = noted  # type: ignore[method-assign]
        pool = SequencePool(backend, lambda: False)
        self._lengths = KnownLengths(pool, max_chars=max_chars)

    def count(self, *texts: str) -> int:
        steps: Generator[None, None, int] = self._lengths.count(texts)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                length: int = end.value
                return length


def test_a_text_is_counted_once() -> None:
    known = Counting()
    assert known.count("abc", "de") == 5
    assert known.count("abc", "de", "fghi", "de") == 11
    assert known.read == ["abc", "de", "fghi"]


def test_the_text_asked_about_longest_ago_is_forgotten_first() -> None:
    known = Counting(max_chars=6)
    for texts in (("abc", "def"), ("abc",), ("ghi",), ("abc",), ("def",)):
        known.count(*texts)
    assert known.read == ["abc", "def", "ghi", "def"]


def test_a_text_too_long_to_remember_is_counted_all_the_same() -> None:
    known = Counting(max_chars=2)
    assert known.count("abc") == known.count("abc") == 3
    assert known.read == ["abc", "abc"]
