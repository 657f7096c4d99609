import itertools
from xml.etree import ElementTree

import pytest

from benchmarks.page.canvas import Scale, nice_step, short, span_of
from benchmarks.page.charts import (
    LABEL_PX,
    Dot,
    Line,
    dot_chart,
    line_chart,
    spread_out,
    stacked_bars,
)
from benchmarks.page.plots import PLOTS, plots
from benchmarks.page.results import Results
from tests.benchmarks.page.samples import figure, network, per_token, replay


def texts(svg: str) -> list[str]:
    """What can be read in it; raises for what is no XML."""
    return [
        each.text or "" for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("text")
    ]


def test_a_line_chart_names_axes_units_and_lines() -> None:
    lines = [Line("a & b", [figure(10), figure(20)]), Line("c", [None, figure(15)])]
    said = texts(line_chart("A title", ["1k", "10k"], lines, "history", "us"))
    assert {"A title", "history", "us", "1k", "10k", "a & b", "c", "10", "20"} <= set(said)


def test_a_dot_chart_writes_every_value() -> None:
    dots = [Dot("one", figure(3)), Dot("two", figure(150))]
    said = texts(dot_chart("T", [("group", dots)], "ms", is_log=True))
    assert {"T", "group", "one", "two", "3.00", "150", "ms"} <= set(said)


def test_stacked_bars_leave_out_parts_that_are_nowhere() -> None:
    """The whole stands at the end of the bar; the drawn lengths add up to it."""
    svg = stacked_bars("T", [("bar", {"x": 1.0, "y": 3.0, "z": 0.0})], ["x", "y", "z"], "s")
    said = texts(svg)
    assert "4.00" in said
    assert "z" not in said
    boxes = [each for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("rect")]
    widths = sorted(
        float(each.attrib["width"]) for each in boxes if each.attrib["height"] == "24.0"
    )
    assert round(widths[1] / widths[0], 1) == 3.0


@pytest.mark.parametrize("bottom", [100.0, 400.0])
def test_labels_neither_cover_each_other_nor_leave_the_chart(bottom: float) -> None:
    placed = [at for at, _, _ in spread_out([(90.0, str(n), "") for n in range(5)], bottom)]
    assert max(placed) <= bottom
    assert all(b - a >= LABEL_PX for a, b in itertools.pairwise(placed))


@pytest.mark.parametrize(
    ("values", "is_log", "expected"),
    [([3, 700], True, (2, 1000)), ([5, 6], True, (5, 50)), ([0, 23], False, (0, 25)), ([0], False, (0, 1))],
)  # fmt: skip
def test_axes_end_at_round_numbers(
    values: list[float], is_log: bool, expected: tuple[float, float]
) -> None:
    assert expected == pytest.approx(span_of(values, is_log=is_log))


def test_scales_and_ticks() -> None:
    """A value in the middle of a logarithmic axis is the geometric mean of its ends."""
    scale = Scale(1, 100, 0, 200, is_log=True)
    assert [round(scale.at(value)) for value in (1, 10, 100, 5000)] == [0, 100, 200, 200]
    assert scale.ticks() == [1, 2, 5, 10, 20, 50, 100]
    assert Scale(0, 25, 0, 1).ticks()[::2] == [0, 10, 20]
    assert [short(value) for value in (20, 0.5, 2000, 1e6)] == ["20", "0.5", "2k", "1M"]
    assert [nice_step(value) for value in (0.9, 1.2, 3, 7)] == [1, 2, 5, 10]


def test_every_plot_is_drawn_from_results_and_only_from_them() -> None:
    """Each file is well-formed, with a title for who cannot see it."""
    assert plots(Results({}, {})) == {}
    found = Results({each.name: each for each in (network(), per_token(), replay())}, {})
    drawn = plots(found)
    assert {"network.svg", "per-token.svg", "edit-test-replay.svg"} == set(drawn)
    assert set(drawn) <= set(PLOTS)
    for svg in drawn.values():
        title = ElementTree.fromstring(svg)[0]
        assert title.tag.endswith("title")
        assert title.text
