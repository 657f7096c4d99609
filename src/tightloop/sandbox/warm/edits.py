"""Decides from two texts of a module whether the second may be swapped in for the first.

Pure: no file, no process, nothing is executed. The state after importing the new text is that
after importing the old one, up to code objects, when everything that import executes is equal
and every function whose body differs is one that import did not run. The first is decided here;
who ran is the second's matter, see ``Plan.changed``.
"""

import ast
import inspect
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

_KINDS = (
    inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_ITERABLE_COROUTINE
)
_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Function:
    """An outermost function: not inside another one, but maybe inside a class, ``if`` or ``try``.

    ``first_line`` is that of its first decorator, as in ``co_firstlineno``.
    """

    name: str
    first_line: int
    docstring: str | None


@dataclass(frozen=True, slots=True)
class Outline:
    """A module without the bodies of its outermost functions, and these functions in order."""

    skeleton: str
    functions: tuple[Function, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to swap, or in ``reason`` why not.

    ``codes`` pairs every code object that a live function may have with its successor; those of
    functions whose body differs are in ``changed``: they must not have run during import.
    """

    reason: str = ""
    codes: tuple[tuple[types.CodeType, types.CodeType], ...] = ()
    changed: tuple[types.CodeType, ...] = ()


class Impossible(Exception):
    """The edit cannot be swapped; the text says why."""


def plan(old: bytes, new: bytes, old_code: types.CodeType, before: Outline | None = None) -> Plan:
    """Whether ``new`` may take the place of ``old``, of which import has made ``old_code``.

    ``before`` is the outline of ``old`` where that is known already.
    """
    try:
        return _plan(before or outline(old), new, old_code)
    except (Impossible, SyntaxError, ValueError, RecursionError) as error:
        return Plan(reason=str(error) or type(error).__name__)


def _plan(before: Outline, new: bytes, old_code: types.CodeType) -> Plan:
    after = outline(new)
    check_outlines(before, after)
    new_code = Constants(old_code).in_code(compiled(new, old_code.co_filename))
    positions = dict(
        zip(
            ((function.name, function.first_line) for function in before.functions),
            after.functions,
            strict=True,
        )
    )
    if len(positions) != len(before.functions):
        raise Impossible("two functions begin in the same line")
    pairs = list(pair_codes(old_code, new_code))
    found = {
        (code.co_qualname, code.co_firstlineno): (code, other)
        for code, other in pairs
        if is_function(code) and (code.co_qualname, code.co_firstlineno) in positions
    }
    if len(found) != len(positions):
        raise Impossible("a function has no code of its own")
    changed = {key[0] for key, pair in found.items() if not do_the_same(*pair)}
    differing = []
    for key, (code, other) in found.items():
        if positions[key].first_line != other.co_firstlineno:
            raise Impossible(f"{code.co_qualname} could not be paired")
        if key[0] in changed:
            check_pair(code, other)
            differing.append(code)
    return Plan("", (*pairs, *inner_pairs(pairs, differing)), tuple(differing))


def outline(text: bytes) -> Outline:
    """Parses a module. Raises SyntaxError or ValueError."""
    tree = _parsed(text)
    stripper = _Stripper()
    stripper.visit(tree)
    return Outline(ast.dump(tree), tuple(stripper.functions))


def _parsed(text: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler says them again
        return ast.parse(text)


class Constants:
    """Constants as import has made them: equal ones of a module are one object, and ``is`` tells."""

    def __init__(self, code: types.CodeType) -> None:
        self._known: dict[object, object] = {}
        self._learn(code)

    def _learn(self, value: object) -> None:
        if isinstance(value, types.CodeType):
            for constant in value.co_consts:
                self._learn(constant)
            return
        self._known.setdefault(_as_written(value), value)
        if isinstance(value, tuple):
            for item in value:
                self._learn(item)

    def in_code(self, code: types.CodeType) -> types.CodeType:
        """The same code with the known objects."""
        return code.replace(co_consts=tuple(map(self._one, code.co_consts)))

    def _one(self, value: object) -> object:
        if isinstance(value, types.CodeType):
            return self.in_code(value)
        key = _as_written(value)
        if key not in self._known:
            made = tuple(map(self._one, value)) if isinstance(value, tuple) else value
            self._known[key] = made
        return self._known[key]


def _as_written(value: object) -> object:
    """Equal for constants that the compiler makes one of: not for 1 and True, or 0.0 and -0.0."""
    if isinstance(value, tuple):
        return (tuple, tuple(map(_as_written, value)))
    if isinstance(value, frozenset):
        return (frozenset, frozenset(map(_as_written, value)))
    return (type(value), repr(value))


def check_outlines(before: Outline, after: Outline) -> None:
    """Raises Impossible when something other than bodies differs."""
    old, new = before.functions, after.functions
    if [function.name for function in old] != [function.name for function in new]:
        raise Impossible("a function was added, removed, renamed or moved")
    for one, other in zip(old, new, strict=True):
        if one.docstring != other.docstring:
            raise Impossible(f"the docstring of {one.name} changed")
    if before.skeleton != after.skeleton:
        raise Impossible("something outside the functions' bodies changed")


def do_the_same(old: types.CodeType, new: types.CodeType) -> bool:
    """Whether only lines differ. Cheaper than comparing the texts' trees, and nearer to the point."""
    ours, theirs = list(children(old)), list(children(new))
    return (
        _work_of(old) == _work_of(new)
        and len(ours) == len(theirs)
        and all(map(do_the_same, ours, theirs))
    )


def _work_of(code: types.CodeType) -> tuple[object, ...]:
    return (
        *(code.co_name, code.co_flags, code.co_code, code.co_exceptiontable),
        *(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        *(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        # as they are written: 1 and True and 1.0 are equal, 0.0 and -0.0 too
        *(isinstance(value, types.CodeType) or repr(value) for value in code.co_consts),
    )


def compiled(text: bytes, filename: str) -> types.CodeType:
    """The module's code as import makes it. Raises Impossible when that gives a warning."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        code = compile(text, filename, "exec", dont_inherit=True)
    if said:
        raise Impossible(f"the compiler warns: {said[0].message}")
    assert isinstance(code, types.CodeType)
    return code


def pair_codes(
    old: types.CodeType, new: types.CodeType
) -> Iterator[tuple[types.CodeType, types.CodeType]]:
    """Code that import may turn into functions, outside of functions' bodies, with its successor.

    Raises Impossible when the two trees do not have the same form.
    """
    ours, theirs = list(children(old)), list(children(new))
    # belt and braces: 3.13 keeps in a class which attributes its methods assign
    if (old.co_code, old.co_names, _plain(old)) != (new.co_code, new.co_names, _plain(new)):
        raise Impossible(f"import would run other code in {old.co_qualname}")
    if [code.co_qualname for code in ours] != [code.co_qualname for code in theirs]:
        raise Impossible(f"{old.co_name} defines other things")
    for one, other in zip(ours, theirs, strict=True):
        if is_function(one) != is_function(other):
            raise Impossible(f"{one.co_qualname} is of another kind")
        yield one, other
        if not is_function(one):
            # classes remember their line from 3.13 on, in an attribute that import sets
            if sys.version_info >= (3, 13) and one.co_firstlineno != other.co_firstlineno:
                raise Impossible(f"class {one.co_qualname} moved")
            yield from pair_codes(one, other)


def inner_pairs(
    pairs: list[tuple[types.CodeType, types.CodeType]], changed: list[types.CodeType]
) -> Iterator[tuple[types.CodeType, types.CodeType]]:
    """Code nested in functions that did not change: import may have run those, and made closures."""
    left_out = {id(code) for code in changed}
    for old, new in pairs:
        if is_function(old) and id(old) not in left_out:
            yield from _same_tree(old, new)


def _same_tree(
    old: types.CodeType, new: types.CodeType
) -> Iterator[tuple[types.CodeType, types.CodeType]]:
    for one, other in zip(children(old), children(new), strict=True):
        yield one, other
        yield from _same_tree(one, other)


def check_pair(old: types.CodeType, new: types.CodeType) -> None:
    """Raises Impossible for what ``__code__`` cannot take over, or decorators may have seen."""
    if old.co_freevars != new.co_freevars:
        raise Impossible(f"{old.co_qualname} uses other variables of its surroundings")
    if old.co_flags & _KINDS != new.co_flags & _KINDS:
        raise Impossible(f"{old.co_qualname} became a generator or coroutine, or ceased to be one")


def children(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code objects directly inside one, in order."""
    return (constant for constant in code.co_consts if isinstance(constant, types.CodeType))


def _plain(code: types.CodeType) -> list[object]:
    return [value for value in code.co_consts if not isinstance(value, types.CodeType)]


def is_function(code: types.CodeType) -> bool:
    """Whether the code is that of a function, not of a class body or module."""
    return bool(code.co_flags & inspect.CO_OPTIMIZED)


class _Stripper(ast.NodeTransformer):
    """Takes the bodies out of outermost functions and keeps what they were."""

    def __init__(self) -> None:
        self.functions: list[Function] = []
        self._path: list[str] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self._strip(node)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        self._strip(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self._path.append(node.name)
        self.generic_visit(node)
        self._path.pop()
        return node

    def _strip(self, node: _FunctionNode) -> None:
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        self.functions.append(
            Function(
                name=".".join([*self._path, node.name]),
                first_line=line,
                docstring=ast.get_docstring(node, clean=False),
            )
        )
        node.body = []
