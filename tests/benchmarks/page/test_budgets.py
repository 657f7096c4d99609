import re

import pytest

from benchmarks.lab.record import Experiment, Value
from benchmarks.page.budgets import BUDGETS, budget_table, overhead
from benchmarks.page.results import Results
from tests.benchmarks.page.samples import experiment, figure, per_token, row


def overheads(**medians: float) -> Results:
    """Of our server at one size, by variant."""
    rows = [
        row(variant, {"ttft": figure(median, "us")}, api="websocket", history="1k")
        for variant, median in medians.items()
    ]
    return with_(experiment("round-trip", rows, []))


def with_(*experiments: Experiment) -> Results:
    return Results({each.name: each for each in experiments}, {})


@pytest.mark.parametrize(("median", "is_met"), [(200.0, True), (201.0, False)])
def test_a_cause_stands_beside_what_is_not_met_and_nowhere_else(
    median: float, is_met: bool
) -> None:
    found = overheads(**{"tightloop scripted": median})
    verdict = overhead(found)
    assert verdict.is_met is is_met
    line = next(line for line in budget_table(found) if "round-trip overhead" in line)
    assert (BUDGETS[0].why in line) is not is_met


def test_every_budget_has_a_cause_and_none_holds_a_figure() -> None:
    """Numbers on the page come from results; those of a design note's name are none."""
    for each in BUDGETS:
        assert each.why
        assert re.search(r"\d", re.sub(r"design/\S+", "", each.why)) is None, each.why


def test_the_limit_is_said_with_what_it_is_judged_by() -> None:
    """The pinned figure beside the overhead; nginx beside the cost of a token."""
    pinned: dict[str, float] = {"tightloop scripted": 300.0, "tightloop scripted, pinned": 250.0}
    said = overhead(overheads(**pinned)).measured
    assert said == (
        "1k: 300 us; the dearest over the cheapest size 1.00x, within the middle 80 % of their turns;"
        " moved to a core of its own before each turn 250 us"
    )
    place: dict[str, Value] = {"api": "websocket", "rate": "1000/s"}
    tokens = per_token()
    tokens.rows.append(row("nginx", {"cpu": figure(40.0, "us/token")}, **place))
    table = budget_table(with_(tokens))
    assert any(
        "18.0 us; nginx, passing the bytes through, 40.0 us | met |" in line for line in table
    )


@pytest.mark.parametrize(("longest", "is_met"), [(180.0, True), (190.0, False)])
def test_an_overhead_that_grows_with_the_history_is_not_met(longest: float, is_met: bool) -> None:
    """However small it is: the budget is flat. Figures here spread by a tenth."""
    rows = [
        row("tightloop scripted", {"ttft": figure(median, "us")}, api="websocket", history=size)
        for size, median in (("1k", 150.0), ("200k", longest))
    ]
    verdict = overhead(with_(experiment("round-trip", rows, [])))
    assert verdict.is_met is is_met
    assert ("beyond the middle" in verdict.measured) is not is_met
