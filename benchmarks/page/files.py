"""The page and its plots as files: made, written, and compared with what is there."""

from pathlib import Path

from benchmarks.lab.record import RESULTS
from benchmarks.page.page import page
from benchmarks.page.plots import plots
from benchmarks.page.results import load

DOCS = RESULTS.parent.parent / "docs"
PAGE, PLOTS = "measured.md", "plots"


def made(results: Path = RESULTS) -> dict[str, str]:
    """Path below docs and text of each file."""
    found = load(results)
    drawn = plots(found)
    files = {PAGE: page(found, list(drawn))}
    return files | {f"{PLOTS}/{name}": svg for name, svg in drawn.items()}


def write(results: Path = RESULTS, docs: Path = DOCS) -> list[Path]:
    """Write them; plots that can no longer be drawn are removed."""
    (docs / PLOTS).mkdir(parents=True, exist_ok=True)
    wanted = made(results)
    for old in (docs / PLOTS).glob("*.svg"):
        if f"{PLOTS}/{old.name}" not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (docs / name).write_text(text, "utf-8")
    return [docs / name for name in wanted]


def differences(results: Path = RESULTS, docs: Path = DOCS) -> list[str]:
    """Names of the files in docs that are not what the results make; empty when all are."""
    wanted = made(results)
    there = {f"{PLOTS}/{path.name}" for path in (docs / PLOTS).glob("*.svg")}
    stale = [
        name
        for name, text in wanted.items()
        if not (docs / name).is_file() or (docs / name).read_text("utf-8") != text
    ]
    return sorted({*stale, *(there - wanted.keys())})
