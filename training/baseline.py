"""The random baseline: undo one declared edit, chosen at random among all that are possible."""

import ast
import math
import tokenize
from collections.abc import Iterator

from tightloop.engine.patchling.edits import (
    BUILTIN_NAMES,
    Edit,
    local_names,
    mutations,
    parse_function,
    typos,
    undoes_declared,
)


def inverse_edits(source: str) -> list[tuple[Edit, str]]:
    """(edit, repaired source) of every way to undo one declared edit; texts are all different.

    Most kinds are their own inverse; the others are proposed by name. Every proposal is admitted
    by the check that the search uses: some declared edit of the repair gives back the buggy line.
    """
    lines = source.split("\n")
    tree, shift = parse_function(source)
    proposals = [*mutations(source), *_named(tree, shift, lines)]
    found: dict[str, Edit] = {}
    seen = {ast.dump(tree)}
    for edit in proposals:
        if edit.kind == "misspelt_name" and edit.text not in BUILTIN_NAMES:
            continue  # a repair never invents a misspelling
        old = lines[edit.line]
        fixed = "\n".join([*lines[: edit.line], edit.apply(old), *lines[edit.line + 1 :]])
        try:
            tree_text = ast.dump(parse_function(fixed)[0])
        except (SyntaxError, ValueError):
            continue
        if tree_text in seen or not undoes_declared(fixed, edit.line, old):
            continue
        seen.add(tree_text)
        found[fixed] = edit
    return [(edit, fixed) for fixed, edit in found.items()]


def _named(tree: ast.Module, shift: int, lines: list[str]) -> Iterator[Edit]:
    """Proposals for the kinds that are not their own inverse."""
    names = local_names(tree)
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    known = sorted(
        {*names, *BUILTIN_NAMES, *(n.id for n in ast.walk(tree) if isinstance(n, ast.Name))}
    )
    misspelt = {typo: name for name in known if len(name) >= 3 for typo in typos(name)}
    for node in ast.walk(tree):
        row = getattr(node, "lineno", 0) - 1 - shift
        if (
            not 0 <= row < len(lines)
            or not lines[row].isascii()
            or row != getattr(node, "end_lineno", 0) - 1 - shift
        ):
            continue
        start, end = node.col_offset, node.end_col_offset  # type: ignore[attr-defined]
        if isinstance(node, ast.Expr):
            yield Edit("missing_return", row, start, start, "return ")
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
            for name in names:
                yield Edit("return_value", row, start, end, f"return {name}")
        elif isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Constant):
            yield Edit("off_by_one", row, end, end, " - 1")
            yield Edit("off_by_one", row, end, end, " + 1")
            yield Edit("sign", row, start, start, "-")
        if isinstance(node, ast.Name):
            yield Edit("missing_self", row, start, start, "self.")
            if node.id in misspelt:
                yield Edit("misspelt_name", row, start, end, misspelt[node.id])
        elif isinstance(node, ast.Attribute):
            for other in sorted(attributes):
                yield Edit("attribute", row, end - len(node.attr), end, other)
        elif isinstance(node, ast.Slice):
            for text in ("1", "-1", *names):
                if node.lower is None:
                    yield Edit("slice_bound", row, start, start, text)
                if node.upper is None:
                    yield Edit("slice_bound", row, end, end, text)


def pass_at(num_candidates: int, num_passing: int, k: int) -> float:
    """Chance that k candidates drawn without replacement hold a passing one."""
    if num_candidates - num_passing < k:
        return 1.0 if num_passing else 0.0
    return 1 - math.comb(num_candidates - num_passing, k) / math.comb(num_candidates, k)


def proposals(source: str) -> list[str]:
    try:
        return [fixed for _, fixed in inverse_edits(source)]
    except (SyntaxError, ValueError, tokenize.TokenError, IndexError):
        return []
