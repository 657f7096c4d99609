"""The search proposes what the model prefers, best first, one line at a time, lazily."""

import pytest

from tests.engine.patchling.oracle_backend import OracleBackend
from tightloop.engine.patchling.report import FailingCase, TestReport
from tightloop.engine.patchling.search import (
    Candidate,
    CandidateSearch,
    FunctionTooLong,
    Ranking,
)

BUGGY = '''    def total(self, values, limit=3):
        """Sum of the first values.

        Not more than `limit`.
        """
        result = 0  # so far
        for value in values[:limit]:
            result -= value  # add it
        return result
'''
REPAIR = BUGGY.replace("-=", "+=")
OTHER = BUGGY.replace("result = 0 ", "result = 1 ")
REPORT = TestReport((FailingCase("total([1, 2])", "3", "-3"),), frozenset({7}))


def _all(search: CandidateSearch) -> list[Candidate]:
    found = []
    while (candidate := search.next()) is not None:
        found.append(candidate)
    return found


def test_the_preferred_repair_comes_first_and_keeps_every_other_byte() -> None:
    search = CandidateSearch(OracleBackend(REPAIR, OTHER), BUGGY)
    first, second = search.next(), search.next()
    assert first is not None
    assert second is not None
    assert first.function_source == REPAIR
    assert (first.first_line, first.old_lines, first.new_lines) == (
        7,
        ("            result -= value  # add it",),
        ("            result += value  # add it",),
    )
    assert second.function_source == OTHER
    assert first.score > second.score


def test_candidates_parse_differ_from_the_function_and_from_each_other() -> None:
    found = _all(CandidateSearch(OracleBackend(REPAIR, OTHER), BUGGY, None))
    texts = [candidate.function_source for candidate in found]
    assert {REPAIR, OTHER} <= set(texts)
    assert len(set(texts)) == len(texts)
    assert BUGGY not in texts
    scores = [candidate.score for candidate in found]
    assert scores == sorted(scores, reverse=True)


def test_a_line_may_become_longer_or_shorter() -> None:
    source = "def f(x):\n    y = x\n    return y\n"
    longer = source.replace("y = x", "y = x + 1")
    shorter = source.replace("return y", "return")
    found = [
        c.function_source for c in _all(CandidateSearch(OracleBackend(longer, shorter), source))
    ]
    assert {longer, shorter} <= set(found)


def test_candidates_are_made_only_when_asked_for() -> None:
    search = CandidateSearch(OracleBackend(REPAIR, OTHER), BUGGY, REPORT)
    assert search.num_decoded_tokens == 0
    assert search.next() is not None
    after_one = search.num_decoded_tokens
    _all(search)
    assert 0 < after_one < search.num_decoded_tokens


def test_every_sequence_is_given_back() -> None:
    backend = OracleBackend(REPAIR)
    search = CandidateSearch(backend, BUGGY, REPORT)
    _all(search)
    search.close()
    search.close()
    assert backend.sequences == {}


def test_a_function_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FunctionTooLong):
        CandidateSearch(OracleBackend(REPAIR, context_window=200), BUGGY, REPORT)
    with pytest.raises(FunctionTooLong):
        CandidateSearch(OracleBackend(), "def f():\n" + "    x = 1\n" * 70, None)
    with pytest.raises(FunctionTooLong):
        CandidateSearch(OracleBackend(), "", None)


def test_lines_named_by_a_traceback_are_preferred() -> None:
    elsewhere = TestReport((), frozenset({5}))
    search = CandidateSearch(
        OracleBackend(REPAIR, OTHER), BUGGY, elsewhere, ranking=Ranking(hit_bonus=30.0)
    )
    first = search.next()
    assert first is not None
    assert first.first_line == 5
