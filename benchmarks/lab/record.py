"""The result of an experiment: what was measured, on what, with what settings, as JSON and text."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.lab.columns import NOTHING, Column, layout
from benchmarks.lab.machine import Machine, this_machine
from benchmarks.lab.statistics import Ratio, paired_ratio, unpaired_ratio
from tightloop.trace.clock import wall_label

__all__ = [
    "QUICK_RESULTS",
    "RESULTS",
    "Experiment",
    "Figure",
    "Machine",
    "Ratio",
    "Row",
    "paired_ratio",
    "read",
    "this_machine",
    "unpaired_ratio",
]

RESULTS = Path(__file__).resolve().parent.parent / "results"
QUICK_RESULTS = RESULTS.parent.parent / "build" / "quick-results"
"""Of runs with too few samples to quote; git ignores it."""


MIN_FOR_INTERVAL = 5
"""Samples below which a bootstrap interval says nothing."""

Value = str | int | float | bool


class Figure(Struct, frozen=True):
    """Summary of ``n`` samples, all in ``unit``."""

    median: float
    p10: float
    p90: float
    min: float
    n: int
    unit: str

    @classmethod
    def of(cls, samples: Sequence[float], unit: str) -> "Figure":
        """Summarise; quantiles interpolate linearly. Raises ValueError without samples."""
        if not len(samples):
            raise ValueError(f"a figure in {unit} needs at least one sample")
        low, median, high = np.quantile(np.asarray(samples, dtype=float), [0.1, 0.5, 0.9])
        return cls(float(median), float(low), float(high), float(min(samples)), len(samples), unit)


class Row(Struct, frozen=True):
    """One variant under one set of parameters. ``missing`` says why it was not measured."""

    variant: str
    params: dict[str, Value]
    figures: dict[str, Figure]
    missing: str = ""


class Experiment(Struct, frozen=True, kw_only=True):
    """All that one experiment found. ``versions`` are those of the programs measured."""

    name: str
    title: str
    settings: dict[str, Value]
    machine: Machine
    versions: dict[str, str] = {}
    rows: list[Row] = []
    ratios: list[Ratio] = []
    notes: list[str] = []
    made: str = msgspec.field(default_factory=lambda: wall_label()[:10])

    def row(self, variant: str, **params: Value) -> Row:
        """The row of that variant whose parameters contain these. Raises KeyError."""
        for row in self.rows:
            if row.variant == variant and params.items() <= row.params.items():
                return row
        raise KeyError(f"{self.name} has no row {variant!r} with {params}")

    def write(self, directory: Path = RESULTS) -> Path:
        """Write ``directory/NAME.json``, readable and stable; the directory is made if need be."""
        directory.mkdir(parents=True, exist_ok=True)
        target = directory / f"{self.name}.json"
        plain = _rounded(msgspec.to_builtins(self))
        target.write_bytes(msgspec.json.format(msgspec.json.encode(plain), indent=1) + b"\n")
        return target

    def table(self) -> str:
        """Rows, then ratios, as plain text of at most 100 columns without trailing blanks."""
        lines = [self.title, ""]
        params = list(dict.fromkeys(key for row in self.rows for key in row.params))
        names = list(dict.fromkeys(key for row in self.rows for key in row.figures))
        heads = [Column("variant", [row.variant for row in self.rows])]
        heads += [
            Column(key, [str(row.params.get(key, "")) for row in self.rows]) for key in params
        ]
        figures = [_figure_column(name, self.rows) for name in names]
        lines += layout(heads, figures)
        lines += dict.fromkeys(_missing(row) for row in self.rows if row.missing)
        lines += ratio_lines(self.ratios)
        lines += ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def read(path: Path) -> Experiment:
    """An experiment as it was written. Raises ``msgspec.DecodeError`` for anything else."""
    return msgspec.json.decode(path.read_bytes(), type=Experiment)


def number(value: float) -> str:
    """Three significant digits, as far as there are any to show."""
    size = abs(value)
    if size >= 99.95 or value == 0:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.0995 else f"{value:.3g}"


def times(ratio: Ratio) -> str:
    """``1.5x [1.4 1.6]``; without an interval where too few samples were taken for one."""
    if ratio.num < MIN_FOR_INTERVAL:
        return f"{number(ratio.median)}x (of {ratio.num})"
    return f"{number(ratio.median)}x [{number(ratio.low)} {number(ratio.high)}]"


def _figure_column(name: str, rows: Sequence[Row]) -> Column:
    units = {row.figures[name].unit for row in rows if name in row.figures}
    cells = [_cell(row.figures.get(name)) for row in rows]
    return Column(f"{name} {'/'.join(sorted(units))}", cells, is_number=True)


def _missing(row: Row) -> str:
    said = ", ".join(map(str, (row.variant, *row.params.values())))
    return f"{said}: not measured: {row.missing}"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return NOTHING
    if figure.n == 1:
        return number(figure.median)
    return f"{number(figure.median)} [{number(figure.p10)} {number(figure.p90)}]"


def ratio_lines(ratios: Sequence[Ratio]) -> list[str]:
    """One block for each thing compared with, in the order in which they come."""
    lines: list[str] = []
    for over in dict.fromkeys(each.over for each in ratios):
        block = [each for each in ratios if each.over == over]
        heads = [
            Column("ratio of", [each.of for each in block]),
            Column("figure", [each.name for each in block]),
        ]
        said = Column("median [95 %]", [times(each) for each in block], is_number=True)
        lines += ["", f"over {over}", *layout(heads, [said])]
    return lines


def _rounded(value: object) -> object:
    """Floats with six significant digits: more is noise, and makes changes unreadable."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value
