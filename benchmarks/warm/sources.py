"""Python text with positions: what may be replaced or inserted where. Pure."""

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Function = ast.FunctionDef | ast.AsyncFunctionDef
_Node = TypeVar("_Node", bound=ast.AST)


@dataclass(frozen=True, slots=True)
class Named:
    """A function with its qualified name; ``is_method`` when a class holds it."""

    name: str
    node: Function
    is_method: bool
    is_nested: bool


class Source:
    """One module's text. Raises SyntaxError or ValueError when it cannot be parsed.

    ``used`` are the qualified names of functions that the tests call: they are preferred.
    """

    def __init__(self, text: bytes, used: frozenset[str] = frozenset()) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.used = used
        self._lines = [0]
        for line in text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def start(self, node: ast.AST) -> int:
        """Offset in bytes where a node begins, its decorators included."""
        decorators: Sequence[ast.expr] = getattr(node, "decorator_list", ())
        if decorators:
            return self.line_start(decorators[0].lineno)
        return self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        """Offset in bytes behind a node."""
        return self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def offset(self, line: int, column: int) -> int:
        """Offset in bytes of a position as ``ast`` gives it."""
        return self._lines[line - 1] + column

    def line_start(self, line: int) -> int:
        """Offset in bytes of a line, counted from 1."""
        return self._lines[min(line, len(self._lines)) - 1]

    def of(self, node: ast.AST) -> bytes:
        """The text of a node."""
        return self.text[self.start(node) : self.end(node)]

    def replace(self, node: ast.AST, new: bytes) -> bytes:
        """The whole text with a node replaced."""
        return self.text[: self.start(node)] + new + self.text[self.end(node) :]

    def insert(self, offset: int, new: bytes) -> bytes:
        """The whole text with something inserted."""
        return self.text[:offset] + new + self.text[offset:]

    def indentation(self, statement: ast.stmt) -> bytes | None:
        """What stands before a statement on its line; None when that is more than white space."""
        before = self.text[self.line_start(statement.lineno) : self.start(statement)]
        if getattr(statement, "decorator_list", ()):
            line = statement.decorator_list[0].lineno  # type: ignore[attr-defined]
            rest = self.text[self.line_start(line) :]
            before = rest[: len(rest) - len(rest.lstrip(b" \t"))]
        return before if not before.strip() else None

    def insert_before(self, statement: ast.stmt, code: bytes) -> bytes | None:
        """The whole text with lines before a statement; None where there is no room."""
        indentation = self.indentation(statement)
        if indentation is None:
            return None
        lines = b"".join(indentation + line + b"\n" for line in code.splitlines())
        decorators = getattr(statement, "decorator_list", ())
        line = decorators[0].lineno if decorators else statement.lineno
        return self.insert(self.line_start(line), lines)

    def functions(self) -> list[Named]:
        """Every function of the module, in order."""
        return list(_functions(self.tree, "", is_method=False, is_nested=False))

    def pick_function(
        self, rng: random.Random, fits: Callable[[Named], bool] = lambda _: True
    ) -> Named | None:
        """One that fits, mostly one that the tests call; None when there is none."""
        found = [function for function in self.functions() if fits(function)]
        used = [function for function in found if function.name in self.used]
        if used and rng.random() < 0.8:
            found = used
        return rng.choice(found) if found else None


def _functions(node: ast.AST, prefix: str, *, is_method: bool, is_nested: bool) -> Iterator[Named]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            name = prefix + child.name
            yield Named(name, child, is_method, is_nested)
            yield from _functions(child, f"{name}.<locals>.", is_method=False, is_nested=True)
        elif isinstance(child, ast.ClassDef):
            inside = f"{prefix}{child.name}."
            yield from _functions(child, inside, is_method=True, is_nested=is_nested)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _functions(child, prefix, is_method=is_method, is_nested=is_nested)


def body_of(function: Function) -> list[ast.stmt]:
    """The statements of a function without its docstring; empty when that is all it has."""
    has_docstring = ast.get_docstring(function, clean=False) is not None
    return function.body[1:] if has_docstring else function.body


def own_nodes(function: Function, kind: type[_Node]) -> list[_Node]:
    """Nodes of one kind in a function's body, functions inside it and its docstring left out."""
    found: list[_Node] = []
    waiting: list[ast.AST] = list(body_of(function))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, kind):
            found.append(node)
        # An f-string's parts have positions that cannot be replaced one by one.
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef | ast.JoinedStr):
            waiting += ast.iter_child_nodes(node)
    return found


def is_plain_text(text: bytes) -> bool:
    """Whether a text compiles as a module."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
