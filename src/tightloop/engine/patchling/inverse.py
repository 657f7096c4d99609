"""Repairs that undo one declared edit: the closed set from which most candidates come.

Most kinds undo themselves (`<` and `<=`, `and` and `or`), so the forward edits are proposed too; the
others are proposed by name here. Proposals are generous: `undoes_declared` decides.
"""

import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from tightloop.engine.patchling.edits import (
    ARITHMETIC,
    BUILTIN_NAMES,
    Edit,
    local_names,
    mutations,
    parse_function,
    typos,
)


@dataclass(frozen=True, slots=True)
class _Names:
    """Names and attributes that a function uses, and what they may be misspelt as."""

    local: tuple[str, ...]
    attributes: tuple[str, ...]
    misspelt: dict[str, tuple[str, ...]]


def _names(tree: ast.AST) -> _Names:
    local = local_names(tree)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    misspelt: dict[str, list[str]] = {}
    for name in sorted({*local, *BUILTIN_NAMES, *used, *attributes}):
        if len(name) >= 3:
            for typo in set(typos(name)):
                misspelt.setdefault(typo, []).append(name)
    return _Names(
        tuple(local), tuple(sorted(attributes)), {k: tuple(v) for k, v in misspelt.items()}
    )


def proposals(source: str) -> list[Edit]:
    """Edits of a buggy function that may undo a declared edit; none when it is not Python.

    Not every one does, and some texts are no valid Python.
    """
    try:
        tree, shift = parse_function(source)
        forward = [edit for edit in mutations(source) if edit.kind != "misspelt_name"]
    except (SyntaxError, ValueError, IndexError, tokenize.TokenError):
        return []
    lines = source.split("\n")
    found: dict[tuple[int, str], Edit] = {}
    for edit in (*forward, *_by_name(tree, shift, lines)):
        new = edit.apply(lines[edit.line])
        if new != lines[edit.line]:
            found.setdefault((edit.line, new), edit)
    return list(found.values())


def _by_name(tree: ast.Module, shift: int, lines: list[str]) -> Iterator[Edit]:
    """Repairs of the kinds that do not undo themselves."""
    names = _names(tree)
    for node in ast.walk(tree):
        row = getattr(node, "lineno", 0) - 1 - shift
        last = (getattr(node, "end_lineno", None) or 0) - 1 - shift
        if not 0 <= row < len(lines) or not lines[row].isascii():
            continue
        if isinstance(node, ast.Expr):
            yield Edit("missing_return", row, node.col_offset, node.col_offset, "return ")
            continue
        if isinstance(node, ast.Assign):
            yield from _assigned(node, row)
        if row != last or not isinstance(node, ast.expr | ast.Return | ast.Slice):
            continue
        start, end = node.col_offset, node.end_col_offset
        assert end is not None
        if isinstance(node, ast.Return):
            yield from _returned(node, row, names)
        elif isinstance(node, ast.Name | ast.Call | ast.Attribute | ast.Constant | ast.Subscript):
            yield Edit("off_by_one", row, end, end, " - 1")
            yield Edit("off_by_one", row, end, end, " + 1")
            yield Edit("sign", row, start, start, "-")
        if isinstance(node, ast.BinOp):
            yield from _operated(node, row, lines[row])
        if isinstance(node, ast.Name):
            yield Edit("missing_self", row, start, start, "self.")
            for name in names.misspelt.get(node.id, ()):
                yield Edit("misspelt_name", row, start, end, name)
        elif isinstance(node, ast.Attribute):
            for name in (*names.attributes, *names.misspelt.get(node.attr, ())):
                yield Edit("attribute", row, end - len(node.attr), end, name)
        elif isinstance(node, ast.Slice):
            for text in ("1", "-1", *names.local):
                if node.lower is None:
                    yield Edit("slice_bound", row, start, start, text)
                if node.upper is None:
                    yield Edit("slice_bound", row, end, end, text)


def _assigned(node: ast.Assign, row: int) -> Iterator[Edit]:
    """Augmented assignments that may have stood in place of a plain one."""
    target, value = node.targets[0], node.value
    is_plain = len(node.targets) == 1 and isinstance(target, ast.Name | ast.Attribute)
    if is_plain and target.end_lineno == value.lineno and target.end_col_offset is not None:
        for operator in ARITHMETIC:
            if operator.endswith("="):
                text = f" {operator} "
                yield Edit("assignment", row, target.end_col_offset, value.col_offset, text)


def _operated(node: ast.BinOp, row: int, line: str) -> Iterator[Edit]:
    """Operators of which a declared edit makes the one that stands here."""
    start, end = node.left.end_col_offset, node.right.col_offset
    if node.left.end_lineno != node.right.lineno or start is None:
        return
    between = line[start:end]
    operator = between.strip(" ()")
    place = start + between.find(operator)
    for original, made in ARITHMETIC.items():
        if operator and operator in made:
            yield Edit("arithmetic", row, place, place + len(operator), original)


def _returned(node: ast.Return, row: int, names: _Names) -> Iterator[Edit]:
    """What may have stood in place of a returned None, or before a dropped `not`."""
    value = node.value
    if isinstance(value, ast.Constant) and value.value is None:
        assert value.end_col_offset is not None
        for text in (*names.local, "True", "False", "0", "1", "''", "[]", "{}"):
            yield Edit("return_value", row, value.col_offset, value.end_col_offset, text)
