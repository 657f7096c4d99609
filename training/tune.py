"""Tunes the ranking on training-side functions kept from training: `python -m training.tune`.

Prints, for each setting, how often the original line is among the first k candidates. The best setting
is copied by hand into `Ranking`; the held-out bank is never used for this.
"""

import argparse
import json
import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.patchling.edits import undoes_declared
from tightloop.engine.patchling.layout import hit_lines
from tightloop.engine.patchling.search import Candidate, CandidateSearch, FunctionTooLong, Ranking
from training.executed import report_from_json

MAX_CANDIDATES = 24


@dataclass(frozen=True, slots=True)
class Scored:
    """What the score of one candidate is made of."""

    divergence: float
    completion: float
    is_declared: bool
    is_hit: bool
    is_original: bool


class RecordingSearch(CandidateSearch):
    """Notes the parts of each candidate's score."""

    def __init__(self, backend: LlamaCppBackend, mutant: dict[str, Any], original: str) -> None:
        self.scored: list[Scored] = []
        self.original = original
        report = report_from_json(mutant["report"])
        super().__init__(backend, mutant["buggy"], report, ranking=Ranking(0.25, 0.0, 0.0))
        self.hits = hit_lines(self.view, report)

    def complete_all(self) -> None:
        """Complete divergences in order, whether or not they can still win."""
        while self._waiting and len(self.scored) < MAX_CANDIDATES:
            self._complete(self._waiting.pop())

    def _candidate(
        self, index: int, text: str, divergence: float, completion: float, num_decoded: int
    ) -> Candidate | None:
        candidate = super()._candidate(index, text, divergence, completion, num_decoded)
        if candidate is not None:
            declared = undoes_declared(
                candidate.function_source, candidate.first_line, candidate.old_lines[0]
            )
            is_original = candidate.function_source == self.original
            self.scored.append(
                Scored(divergence, completion, declared, index in self.hits, is_original)
            )
        return candidate


def collect(backend: LlamaCppBackend, rows: list[dict[str, Any]], limit: int) -> list[list[Scored]]:
    rng = random.Random(5)
    items = []
    for row in rows:
        single = [mutant for mutant in row["mutants"] if len(mutant["kinds"]) == 1]
        rng.shuffle(single)
        items += [(row["source"], mutant) for mutant in single[:4]]
    rng.shuffle(items)
    found = []
    for source, mutant in items[:limit]:
        try:
            search = RecordingSearch(backend, mutant, source)
        except FunctionTooLong:
            continue
        search.complete_all()
        search.close()
        found.append(search.scored)
    return found


def rank(scored: list[Scored], weight: float, penalty: float, bonus: float) -> int:
    """1-based rank of the original, 0 when it is not among the candidates."""

    def score(one: Scored) -> float:
        extra = bonus * one.is_hit - penalty * (not one.is_declared)
        return one.divergence + weight * one.completion + extra

    ordered = sorted(scored, key=score, reverse=True)
    return next((n for n, one in enumerate(ordered, 1) if one.is_original), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--model", type=Path, default=Path("src/tightloop/models/patchling.gguf"))
    parser.add_argument("--limit", type=int, default=150)
    args = parser.parse_args()
    rows = []
    for path in sorted(args.data.glob("dev_executed_*.jsonl")):
        rows += [json.loads(row) for row in path.open()]
    found = collect(LlamaCppBackend(args.model, num_threads=1), rows, args.limit)
    print(f"{len(found)} bugs of {len(rows)} functions")
    grid = product((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 2.0, 4.0, 8.0), (0.0, 1.0, 2.0))
    for weight, penalty, bonus in grid:
        ranks = [rank(scored, weight, penalty, bonus) for scored in found]
        shares = [sum(0 < r <= k for r in ranks) / len(ranks) for k in (1, 3, 8)]
        print(weight, penalty, bonus, " ".join(f"{100 * share:.1f}" for share in shares))


if __name__ == "__main__":
    main()
