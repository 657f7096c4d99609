"""Injects declared bugs into functions."""

import random
import tokenize
from collections import defaultdict

from tightloop.engine.patchling.edits import Edit, apply_edit, mutations, parse_function


def draw(edits: list[Edit], lines: list[str], rng: random.Random, count: int) -> list[Edit]:
    """Up to `count` edits on different lines, kinds drawn uniformly, each leaving valid Python."""
    by_kind: dict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        by_kind[edit.kind].append(edit)
    chosen: list[Edit] = []
    used: set[int] = set()
    for _ in range(count * 4):
        if len(chosen) == count or not by_kind:
            break
        edit = rng.choice(by_kind[rng.choice(sorted(by_kind))])
        if edit.line not in used and is_valid(apply_edit(lines, edit)):
            used.add(edit.line)
            chosen.append(edit)
    return chosen


def is_valid(lines: list[str]) -> bool:
    try:
        parse_function("\n".join(lines) + "\n")
    except (SyntaxError, ValueError):
        return False
    return True


def inject(source: str, rng: random.Random, count: int) -> tuple[str, list[Edit]] | None:
    """The function with up to `count` bugs, or None when it offers none."""
    try:
        edits = mutations(source)
    except (SyntaxError, ValueError, tokenize.TokenError, IndexError, RecursionError):
        return None
    lines = source.split("\n")
    chosen = draw(edits, lines, rng, count)
    for edit in chosen:
        lines = apply_edit(lines, edit)
    buggy = "\n".join(lines)
    return (buggy, chosen) if chosen and is_valid(lines) else None
