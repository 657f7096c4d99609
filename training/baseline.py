"""The random baseline: undo one declared edit, chosen at random among all that are possible."""

import ast
import math
import random

from tightloop.engine.patchling.edits import parse_function, undoes_declared
from tightloop.engine.patchling.inverse import proposals


def repairs(source: str, rng: random.Random, limit: int) -> list[str]:
    """Up to `limit` functions, drawn at random, that one declared edit turns into this one."""
    lines = source.split("\n")
    found: list[str] = []
    seen = {ast.dump(parse_function(source)[0])}
    edits = proposals(source)
    rng.shuffle(edits)
    for edit in edits:
        old = lines[edit.line]
        fixed = "\n".join([*lines[: edit.line], edit.apply(old), *lines[edit.line + 1 :]])
        try:
            tree = ast.dump(parse_function(fixed)[0])
        except (SyntaxError, ValueError):
            continue
        if tree not in seen and undoes_declared(fixed, edit.line, old):
            seen.add(tree)
            found.append(fixed)
        if len(found) == limit:
            break
    return found


def pass_at(num_candidates: int, num_passing: int, k: int) -> float:
    """Chance that k candidates drawn without replacement hold a passing one."""
    if num_candidates - num_passing < k:
        return 1.0 if num_passing else 0.0
    return 1 - math.comb(num_candidates - num_passing, k) / math.comb(num_candidates, k)
