"""How many tokens a step makes with each source of drafts, on the edits of this repository's own history.

Each edit of a Python file (between 500 and 16,000 characters) is answered in two ways, by a model that
would write exactly what was committed: ``whole`` is the new file, with the old one as the prediction
and in the prompt; ``patch`` is a patch as the JSON string of a call, with the old file as a tool's output
and in the prompt. Steps of ``k`` tokens are counted; nothing is timed, so the figures are the same on
every machine. ``published`` is prompt lookup without a cursor: the latest place of the last three
tokens. ``drafter`` is what an engine does on which longer steps cost nothing. The tokeniser is the
bundled model's.

Prints one JSON object: tokens a step, median and quartiles over the edits.
Usage: ``python -m benchmarks.bench_draft_sources [--edits N]``, in a checkout with its history.
"""

import argparse
import difflib
import json
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from tightloop.engine.drafts.aligned import GAP, AlignedCursor
from tightloop.engine.drafts.drafter import Drafter, Kind, Speculation
from tightloop.engine.drafts.lookup import PromptLookup
from tightloop.engine.drafts.ngram_index import NgramIndex
from tightloop.engine.drafts.references import patch_context, quoted
from tightloop.engine.drafts.source import DraftSource
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.model_files import resolve

STEPS: Final = (8, 16)
LEAST_CHARS, MOST_CHARS = 500, 16_000
Read = Callable[[str], list[int]]


class Follower(Protocol):
    """A source, or all of them."""

    def accept(self, token: int) -> None: ...
    def propose(self, num: int, /) -> Sequence[int]: ...


class Published:
    """Prompt lookup with a key of three tokens and nothing else."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        for token in prompt:
            self.accept(token)

    def accept(self, token: int) -> None:
        """The text went on with ``token``."""
        if len(self._tokens) >= 3:
            self._after[tuple(self._tokens[-3:])] = len(self._tokens)
        self._tokens.append(token)

    def propose(self, num: int, /) -> Sequence[int]:
        """What followed the last three tokens when they came last."""
        place = self._after.get(tuple(self._tokens[-3:]))
        return () if place is None else self._tokens[place : place + num]


def git(*words: str) -> str:
    """What git says."""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def edits() -> Iterator[tuple[str, str]]:
    """File texts before and after, the latest edit first."""
    for commit in git("log", "--no-merges", "--format=%H").split():
        for line in git("diff-tree", "--no-commit-id", "--name-status", "-r", commit).splitlines():
            status, _, path = line.partition("\t")
            if status != "M" or not path.endswith(".py"):
                continue
            old, new = (git("show", f"{where}:{path}") for where in (f"{commit}~1", commit))
            if LEAST_CHARS < len(old) < MOST_CHARS:
                yield old, new


def patch(old: str, new: str) -> str:
    """The edit in the form of ``apply_patch``."""
    lines = [*difflib.unified_diff(old.splitlines(True), new.splitlines(True))][2:]
    body = "".join("@@\n" if line.startswith("@@") else line for line in lines)
    return f"*** Begin Patch\n*** Update File: file.py\n{body}*** End Patch\n"


def tokens_per_step(answer: Sequence[int], follower: Follower, size: int) -> float:
    """With steps of at most ``size`` tokens."""
    steps = done = 0
    while done < len(answer):
        follower.accept(answer[done])
        done, steps = done + 1, steps + 1
        for draft in follower.propose(size - 1):
            if done == len(answer) or draft != answer[done]:
                break
            follower.accept(draft)
            done += 1
    return len(answer) / steps


def lookup(prompt: list[int]) -> PromptLookup:
    """Prompt lookup, ready."""
    made = PromptLookup(NgramIndex(), prompt)
    made.index_more(len(prompt))
    return made


def cursor(*texts: list[int], is_at_start: bool) -> AlignedCursor:
    """An aligned cursor over the texts."""
    made = AlignedCursor(is_at_start=is_at_start)
    for text in texts:
        made.extend([*text, GAP])
    return made


def measured(old: str, new: str, size: int, read: Read) -> dict[str, float]:
    """Tokens a step for one edit."""
    shown, free = read(old), {step: 1.0 for step in (1, 2, 4, 8, 16) if step <= size}
    spelled = [read(quoted(patch_context(old))), read(quoted(old))]
    answers = {"whole": read(new), "patch": read(quoted(patch(old, new)))}
    references: dict[str, tuple[Kind, Callable[[], AlignedCursor]]] = {
        "whole": (Kind.PREDICTION, lambda: cursor(shown, is_at_start=True)),
        "patch": (Kind.FILE, lambda: cursor(*spelled, is_at_start=False)),
    }
    found = {}
    for way, answer in answers.items():
        kind, reference = references[way]
        both: list[tuple[Kind, DraftSource]] = [(kind, reference()), (Kind.HISTORY, lookup(shown))]
        followers: dict[str, Follower] = {
            "published": Published(shown),
            "lookup": lookup(shown),
            "reference": reference(),
            "drafter": Drafter(Speculation(free), both),
        }
        for name, follower in followers.items():
            found[f"{way}/{size}/{name}"] = tokens_per_step(answer, follower, size)
    return found


def main() -> None:
    """Parse the command line, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=80)
    given = parser.parse_args()
    backend = LlamaCppBackend(resolve("patchling"))
    series: dict[str, list[float]] = {}
    for old, new in islice(edits(), given.edits):
        for size in STEPS:
            for name, value in measured(
                old, new, size, lambda text: backend.tokenize(text, special=False)
            ).items():
                series.setdefault(name, []).append(value)
    backend.shutdown()
    result: dict[str, Any] = {"edits": len(next(iter(series.values()), []))}
    for name, values in series.items():
        low, middle, high = statistics.quantiles(values, n=4)
        result[name] = {"median": round(middle, 2), "q1": round(low, 2), "q3": round(high, 2)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
