"""Each fact once, and once that it is resolved."""

from hypothesis import given
from hypothesis import strategies as st

from tightloop.harness.checks.facts import Findings, News
from tightloop.harness.checks.formats import Fact


def fact(name: str, line: int = 1) -> Fact:
    return Fact("m.py", line, name, f"m.py {name}")


def test_what_was_there_before_is_not_news() -> None:
    findings = Findings()
    assert not findings.has_baseline("lint")
    assert findings.take("lint", [fact("old")]) is None
    assert findings.take("lint", [fact("old", 9)]) is None
    assert findings.take("lint", [fact("old"), fact("new")]) == News("lint", (fact("new"),), ())
    assert findings.take("lint", [fact("old"), fact("new", 3)]) is None
    assert findings.num_open("lint") == 2
    assert findings.take("lint", []) == News("lint", (), (fact("new"),))
    assert findings.take("lint", [fact("old")]) == News("lint", (fact("old"),), ())


def test_one_more_of_a_kind_is_new() -> None:
    findings = Findings()
    findings.set_baseline("lint", [fact("bad", 1)])
    both = [fact("bad", 1), fact("bad", 5)]
    assert findings.take("lint", both) == News("lint", (fact("bad", 5),), ())
    assert findings.take("lint", [fact("bad", 1)]) == News("lint", (), (fact("bad", 5),))
    assert findings.take("lint", []) is None  # nobody was told of that one


def test_a_baseline_is_nobodys_news() -> None:
    """What the user broke or mended; only what was told before and has stayed can be resolved."""
    findings = Findings()
    findings.set_baseline("lint", [])
    findings.take("lint", [fact("agent"), fact("gone")])
    findings.set_baseline("lint", [fact("agent"), fact("user")])
    assert findings.take("lint", [fact("agent"), fact("user")]) is None
    assert findings.take("lint", []) == News("lint", (), (fact("agent"),))


def test_half_a_result_resolves_nothing() -> None:
    findings = Findings()
    findings.set_baseline("lint", [])
    findings.take("lint", [fact("one"), fact("two")])
    half = findings.take("lint", [fact("three")], is_whole=False)
    assert half == News("lint", (fact("three"),), ())


def test_the_text_is_short() -> None:
    new = tuple(fact(f"bad {number}", number) for number in range(1, 13))
    lines = News("lint", new, (fact("old"),)).as_text().splitlines()
    assert lines[0] == "[check by tightloop, not by the user] lint: 12 new since your change:"
    assert lines[1] == "  m.py:1: bad 1"
    assert lines[11:] == ["  and 2 more", "lint: 1 resolved: m.py:1: old"]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5), min_size=1, max_size=8))
def test_what_was_told_adds_up(results: list[list[str]]) -> None:
    """A reader of the news knows of each kind whether there is more of it than at the beginning."""
    findings = Findings()
    findings.take("lint", [fact(name) for name in results[0]])
    known: set[str] = set()
    before = results[0]
    for result in results[1:]:
        news = findings.take("lint", [fact(name, n) for n, name in enumerate(result)])
        new = [one.text for one in news.new] if news is not None else []
        for name in "abc":
            assert max(0, result.count(name) - before.count(name)) == new.count(name)
        known |= set(new)
        known -= {one.text for one in news.resolved} if news is not None else set()
        assert all(name in result for name in known)
        before = result
