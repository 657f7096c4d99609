from pathlib import Path

import msgspec
import pytest

from benchmarks.lab.record import Experiment, Figure, Machine, Row, number, read
from benchmarks.lab.statistics import paired_ratio

MACHINE = Machine(2, "a processor", "Linux 6.18", "3.11.7", 0.1)


def experiment(**fields: object) -> Experiment:
    named = {"name": "trial", "title": "A trial", "settings": {"rounds": 3}, "machine": MACHINE}
    return Experiment(**{**named, **fields})  # type: ignore[arg-type]


def test_a_figure_is_the_exact_summary_of_its_samples() -> None:
    """Quantiles interpolate linearly between the ordered samples."""
    figure = Figure.of([5.0, 1.0, 3.0, 2.0, 4.0], "ms")
    assert Figure(median=3.0, p10=1.4, p90=4.6, min=1.0, n=5, unit="ms") == figure


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a figure in ms needs at least one sample"):
        Figure.of([], "ms")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """All of it, with floats rounded to six digits."""
    rows = [
        Row("direct", {"history": "1k"}, {"ttft": Figure.of([1 / 3], "ms")}),
        Row("absent", {"history": "1k"}, {}, missing="not installed"),
    ]
    ratios = [paired_ratio("ttft", "a", "b", [2.0, 4.0], [1.0, 2.0])]
    made = experiment(rows=rows, ratios=ratios, versions={"nginx": "1.22"}, notes=["a note"])
    path = made.write(tmp_path / "new")
    assert tmp_path / "new" / "trial.json" == path
    figure = Figure(0.333333, 0.333333, 0.333333, 0.333333, 1, "ms")
    expected = msgspec.structs.replace(
        made, rows=[Row("direct", {"history": "1k"}, {"ttft": figure}), rows[1]]
    )
    assert expected == read(path)


def test_a_row_is_found_by_what_it_is() -> None:
    rows = [Row("a", {"history": "1k", "way": "ws"}, {}), Row("a", {"history": "10k"}, {})]
    found = experiment(rows=rows)
    assert rows[1] == found.row("a", history="10k")
    with pytest.raises(KeyError, match="has no row 'b'"):
        found.row("b")


def test_the_table_says_everything_in_a_terminals_width() -> None:
    """Figures that do not fit go on below, with the variants again; nothing has trailing blanks."""
    rows = [
        Row(
            variant,
            {"history": "200k"},
            {
                f"figure {index}": Figure.of([float(index), 2000.0 + index], "us")
                for index in range(6)
            },
        )
        for variant in ("one", "another with a long name")
    ]
    rows.append(Row("absent", {"history": "200k"}, {}, missing="no package"))
    ratios = [
        paired_ratio("figure 1", "one", "another", [3.0] * 5, [2.0] * 5),
        paired_ratio("figure 2", "one", "another", [3.0], [1.0]),
    ]
    text = experiment(rows=rows, ratios=ratios, notes=["noise"]).table()
    lines = text.splitlines()
    assert lines[0] == "A trial"
    assert max(map(len, lines)) <= 100
    assert [line.rstrip() for line in lines] == lines
    assert "absent, 200k: not measured: no package" in lines
    assert all(f"figure {index} us" in text for index in range(6))
    assert sum(line.startswith("variant") for line in lines) > 1
    assert "1.50x [1.50 1.50]" in text
    assert "3.00x (of 1)" in text
    assert lines[-1] == "- noise"


@pytest.mark.parametrize(
    ("expected", "value"),
    [("0", 0.0), ("0.00123", 0.00123), ("0.12", 0.1234), ("12.3", 12.34), ("1234", 1234.4)],
)
def test_numbers_have_three_digits(expected: str, value: float) -> None:
    assert expected == number(value)
