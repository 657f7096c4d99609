import re
from pathlib import Path

from benchmarks.lab.record import Experiment, Ratio
from benchmarks.page.headlines import reduction
from benchmarks.page.page import SECTIONS, page
from benchmarks.page.plots import plots
from benchmarks.page.results import COMMANDS, Results, load
from tests.benchmarks.page.samples import network, per_token, replay, round_trip


def results(*experiments: Experiment) -> Results:
    return Results({each.name: each for each in experiments}, {})


FULL = results(network(), per_token(), replay())


def test_a_page_without_results_says_what_measures_them() -> None:
    """Every section and every budget, and no number that looks measured."""
    text = page(results(), [])
    for name, title, _ in SECTIONS:
        section = text.split(f"## {title}\n")[1].split("\n## ")[0]
        assert f"Not measured; `{COMMANDS[name]}` measures it." in section
    table = text.split("## Budgets")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row for row in rows if "not measured; `python -m" not in row] == []
    assert re.search(r"\d \[", text) is None


def test_reductions_have_intervals_and_small_ones_are_named() -> None:
    text = page(FULL, [])
    cells = "-84 % [-85, -84] | -66 % [-67, -65] | -7 % [-10, +2] | -5 % [-8, -1] |"
    assert f"| 4 kB | tight | {cells}" in text
    assert (
        "| 30 kB | tight, streamed | -75 % [-76, -74] | not measured | not measured | - |" in text
    )
    named = text.split("dearer than the baseline, or with an interval that reaches zero:")[1].split(
        "Without"
    )[0]
    assert named.strip().splitlines() == [
        "- 50 ms cubic 50k +4 kB idle 0.6 s: 'tight' against 'kept, tuned'",
        "- 50 ms cubic 50k +4 kB idle 0.6 s: 'tight, tuned' against 'kept, tuned'",
    ]


def test_the_articles_figures_stand_beside_what_was_reached() -> None:
    text = page(FULL, [])
    assert "against new connection | -84 to -84 % | 1 of 1 conditions |" in text
    assert "against kept, tuned | -7 to -7 % | 0 of 1 conditions |" in text
    assert "gateway CPU, against tightloop, responses | -50 to -50 % | 1 of 1 conditions |" in text
    assert "tight, streamed, against kept, tuned | not measured | - |" in text


def test_a_baseline_that_was_not_measured_is_not_left_out() -> None:
    text = page(FULL, [])
    assert (
        "| 50 ms cubic random-3m | tight | -40 % [-50, -30] | not measured | not measured |" in text
    )


def test_what_our_server_adds_over_loopback_is_compared_way_by_way() -> None:
    """All of the time to its first token is overhead; a small reduction is named."""
    text = page(results(round_trip()), [])
    assert "| 1k | -50 % [-60, -38] | -9 % [-20, 0] |" in text
    assert "- 1k: against 'kept'\n" in text


def test_few_rounds_have_no_interval() -> None:
    ratio = Ratio("cpu 1000/s", "nginx, chat", "tightloop, websocket", 0.5, 0.4, 0.8, 3)
    assert reduction(ratio) == "-50 % (of 3)"


def test_per_token_reductions_turn_the_ratio_round() -> None:
    """A baseline of twice our cost is a reduction by half; the ends of the interval change places."""
    assert "| tightloop, responses | -50 % [-60, -38] | - |" in page(FULL, [])


def test_budgets_are_judged_by_the_numbers() -> None:
    text = page(FULL, [])
    assert "at most 20 us | 18.0 us | met |" in text
    assert "at most 3 us | 4.00 us | **not met**: an upstream's every token" in text
    assert (
        "exactly 1 | 1.02 to 1.02 RTT over 1 conditions (4 kB of new input, cubic) | met |" in text
    )


def test_rough_results_and_missing_ones_are_said() -> None:
    text = page(FULL, list(plots(FULL)))
    assert "busy machine: edit-test-replay." in text
    assert "- kept, tuned: not measured: no device" in text
    assert "- a note of network" in text
    assert "![What network is about](plots/network.svg)" in text


def test_tables_hold_medians_and_spread() -> None:
    assert "| 50.0 | cubic | 50k | 4 | 0.6 | 330 [297, 363] | 150 [135, 165] |" in page(FULL, [])


def test_files_of_another_form_are_passed_over(tmp_path: Path) -> None:
    network().write(tmp_path)
    (tmp_path / "other.json").write_text('{"benchmark": "x"}')
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "engine.json").write_text("no JSON")
    (tmp_path / "small" / "starts.json").write_text('{"import": {"median_ms": 12.5}}')
    found = load(tmp_path)
    assert list(found.experiments) == ["network"]
    assert found.small_number("starts", "import", "median_ms") == 12.5
    assert found.small_number("engine", "wall") is None
    assert "at most 60 ms | 12.5 ms | met |" in page(found, [])
