"""The results there are, found by name; what is missing is None, and the page says so."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson

from benchmarks.lab.record import Experiment, Figure, Row, read

COMMANDS = {
    "round-trip": "python -m benchmarks.peers --only round-trip",
    "engine-round-trip": "python -m benchmarks.peers --only engine-round-trip",
    "per-token": "python -m benchmarks.peers --only per-token",
    "concurrency": "python -m benchmarks.peers --only concurrency",
    "follow-up-ttft": "python -m benchmarks.net --only follow-up-ttft",
    "network": "python -m benchmarks.net --only network",
    "edit-test-replay": "python -m benchmarks.net --only edit-test-replay",
    "workshop-commands": "python -m benchmarks.workshop --only workshop-commands",
    "workshop-workspaces": "python -m benchmarks.workshop --only workshop-workspaces",
    "workshop-tests": "python -m benchmarks.workshop --only workshop-tests",
    "warm-tests": "python -m benchmarks.warm.speed",
    "workshop-patches": "python -m benchmarks.workshop --only workshop-patches",
    "tool-calls": "python -m benchmarks.workshop --only tool-calls",
    "rounds": "python -m benchmarks.workshop --only rounds",
    "time-to-green": "python -m benchmarks.workshop --only time-to-green",
    "small/engine": "python -m benchmarks.lab --only bench_engine",
    "small/starts": "python -m benchmarks.lab --only bench_starts",
}
"""Each result that the page uses, and what makes it."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a folder holds."""

    experiments: dict[str, Experiment]
    small: dict[str, dict[str, Any]]

    def rows(self, name: str) -> list[Row]:
        """The measured rows of an experiment; none when there is no such result."""
        experiment = self.experiments.get(name)
        return [row for row in experiment.rows if row.figures] if experiment else []

    def figure(
        self, name: str, variant: str, figure: str, **params: str | float | bool
    ) -> Figure | None:
        """One figure of one row."""
        for row in self.rows(name):
            if row.variant == variant and params.items() <= row.params.items():
                return row.figures.get(figure)
        return None

    def small_number(self, name: str, *path: str) -> float | None:
        """A number in what a small program printed."""
        found: Any = self.small.get(name)
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return float(found) if isinstance(found, int | float) else None


def load(directory: Path) -> Results:
    """Everything in ``directory`` and its folder of small programs; other files are passed over."""
    experiments: dict[str, Experiment] = {}
    for path in sorted(directory.glob("*.json")):
        with suppress(msgspec.DecodeError):
            found = read(path)
            experiments[found.name] = found
    small: dict[str, dict[str, Any]] = {}
    for path in sorted((directory / "small").glob("*.json")):
        with suppress(orjson.JSONDecodeError):
            small[path.stem] = orjson.loads(path.read_bytes())
    return Results(experiments, small)


def missing(name: str) -> str:
    """The words for a result that is not there."""
    return f"not measured; `{COMMANDS[name]}` measures it"
