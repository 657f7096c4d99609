import re

import pytest

from benchmarks.lab.record import Experiment, Ratio, Value
from benchmarks.page.budgets import (
    BUDGETS,
    budget_table,
    command,
    fresh_workspace,
    overhead,
)
from benchmarks.page.budgets import tests as judge_tests
from benchmarks.page.results import Results
from tests.benchmarks.page.samples import (
    commands,
    experiment,
    figure,
    fresh,
    per_token,
    replay,
    row,
    warm_runs,
)


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


@pytest.mark.parametrize(("over_ms", "is_met"), [(1.0, True), (1.1, False)])
def test_a_command_is_judged_by_what_the_sandbox_adds(over_ms: float, is_met: bool) -> None:
    """Beside what entering bubblewrap for it adds."""
    verdict = command(with_(commands(over_ms)))
    assert verdict.is_met is is_met
    assert verdict.measured == f"{over_ms:.2f} ms; bubblewrap per command 9.00 ms"


@pytest.mark.parametrize(("small_ms", "is_met"), [(10.0, True), (10.5, False)])
def test_a_fresh_workspace_is_judged_on_the_small_tree(small_ms: float, is_met: bool) -> None:
    """The other ways and the large tree stand beside it."""
    verdict = fresh_workspace(with_(fresh(small_ms)))
    assert verdict.is_met is is_met
    small, large = verdict.measured.split("; ")
    assert small.startswith("300 files: tightloop")
    assert small.endswith("cp -a 80.0 ms")
    assert large.startswith("16000 files: tightloop")


def test_warm_tests_of_real_projects_count_where_a_body_was_edited() -> None:
    """Other edits are another matter."""
    ratios = [
        Ratio(f"click test_a.py, {edit}", "python -m pytest", "tightloop test", times, 1, 99, 9)
        for edit, times in (("function body", 8.5), ("module constant", 2.0))
    ]
    verdict = judge_tests(with_(experiment("warm-tests", [], ratios)))
    assert verdict.is_met is True
    assert verdict.measured == "click test_a.py: 8.50x [1.00 99.0]"


def test_warm_tests_are_judged_by_the_project_that_gains_least() -> None:
    """A replayed session's tests are said, and do not count."""
    assert judge_tests(with_(warm_runs(9.0, 8.0))).is_met is True
    verdict = judge_tests(with_(warm_runs(9.0, 7.9), replay()))
    assert verdict.is_met is False
    assert verdict.measured == (
        "project 0: 9.00x [8.00 10.0]; project 1: 7.90x [6.90 8.90];"
        " a replayed session's tests, all they contain: 10.0x"
    )
