from benchmarks.lab.record import Row
from benchmarks.page.results import COMMANDS, Results
from benchmarks.page.workshop import SECTIONS, ratio_table, workshop_lines
from tests.benchmarks.page.samples import commands, warm_runs


def test_a_section_without_results_says_what_measures_it() -> None:
    lines = workshop_lines(Results({}, {}))
    assert [f"Not measured; `{COMMANDS[name]}` measures it." for name, _ in SECTIONS] == [
        line for line in lines if line.startswith("Not measured")
    ]


def test_rows_ratios_and_what_is_missing_stand_in_their_section() -> None:
    found = commands()
    found.rows.append(Row("codex", {}, {}, missing="not installed"))
    text = "\n".join(workshop_lines(Results({found.name: found}, {})))
    section = text.split("### A command\n")[1].split("\n### ")[0]
    assert "| bubblewrap per command | quick | 10.0 [9.00, 11.0] | 9.00 [8.10, 9.90] |" in section
    assert "| bubblewrap per command | time quick | 6.25x [6.00 6.50] |" in section
    assert "- codex: not measured: not installed" in section


def test_each_of_ours_has_a_column_of_ratios() -> None:
    found = warm_runs(9.0)
    head, rule, line = ratio_table(found)[:3]
    assert head.count("|") == rule.count("|") == line.count("|") == 4
    assert "9.00x [8.00 10.0]" in line
