"""Which edits of a module may be swapped in, and that swapping them is the same as importing."""

import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.sandbox.warm.edits import Plan, plan

MODULE = '''\
"""A module."""
import os

LIMIT = 3


def plain(x, y=1):
    """Adds."""
    return x + y


class Thing:
    size = 2

    def method(self):
        return [each for each in range(self.size)]

    @property
    def value(self):
        return self.size

    @value.setter
    def value(self, other):
        self.size = other


if LIMIT > 2:

    def chosen():
        return "large"

else:

    def chosen():
        return "small"


match LIMIT:
    case 3:

        def matched():
            return 3


def numbers():
    yield 1
    yield 2


def outer():
    count = 0

    def inner():
        return count + 1

    return inner


made = outer()
double = lambda x: x * 2
'''

SWAPPABLE = {
    "comment": ("LIMIT = 3", "# a remark\n\nLIMIT = 3"),
    "body": ("return x + y", "return x - y"),
    "method": ("in range(self.size)", "in range(self.size + 1)"),
    "property": ("        return self.size\n", "        return -self.size\n"),
    "under if": ('"large"', '"huge"'),
    "under match": ("            return 3", "            return 4"),
    "generator": ("yield 2", "yield 3"),
    "nested": ("return count + 1", "return count + 2"),
    "import inside": ("return x + y", "import json\n    return json.dumps(x + y)"),
    "new inner function": ("return x + y", "return (lambda: x + y)()"),
}
NOT_SWAPPABLE = {
    "default": ("y=1", "y=2", "outside"),
    "keyword only": ("x, y=1", "x, *, y=1", "outside"),
    "annotation": ("plain(x,", "plain(x: int,", "outside"),
    "decorator": ("def numbers", "@staticmethod\ndef numbers", "outside"),
    "argument name": ("plain(x, y=1)", "plain(z, y=1)", "outside"),
    "async": ("def plain", "async def plain", "outside"),
    "constant": ("LIMIT = 3", "LIMIT = 4", "outside"),
    "constant of another kind": ("LIMIT = 3", "LIMIT = 3.0", "outside"),
    "import": ("import os", "import os, re", "outside"),
    "class attribute": ("size = 2", "size = 3", "outside"),
    "base class": ("class Thing:", "class Thing(object):", "outside"),
    "lambda": ("x * 2", "x * 3", "outside"),
    "module docstring": ("A module.", "The module.", "outside"),
    "order of calls": ("made = outer()\n", "", "outside"),
    "docstring": ('"""Adds."""', '"""Subtracts."""', "docstring of plain"),
    "docstring gone": ('    """Adds."""\n', "", "docstring of plain"),
    "docstring new": ("    yield 1", '    "Counts."\n    yield 1', "docstring of numbers"),
    "yield": ("return x + y", "yield x + y", "generator"),
    "no yield": ("    yield 1\n    yield 2", "    return 1", "generator"),
    "super": ("range(self.size)", "range(super().__sizeof__())", "other code"),
    "added": ("def plain", "def more():\n    pass\n\n\ndef plain", "added"),
    "removed": ("def numbers():\n    yield 1\n    yield 2\n", "", "added"),
    "renamed": ("def plain", "def fancy", "added"),
    "syntax error": ("return x + y", "return x +", "invalid syntax"),
    "null byte": ("return x + y", "return '\0'", "null"),
    "compiler warning": ("return x + y", "return x is 3", "warns"),
    "coding": ('"""A module."""', '# coding: nonsense\n"""A module."""', "encoding"),
}


def planned(old: str, new: str) -> Plan:
    """The plan for a module that was imported as ``old``."""
    return plan(old.encode(), new.encode(), compile(old, "module.py", "exec", dont_inherit=True))


@pytest.mark.parametrize("name", SWAPPABLE)
def test_bodies_may_be_swapped(name: str) -> None:
    """Whatever happens inside a function, and wherever the function stands."""
    old, new = SWAPPABLE[name]
    assert old in MODULE
    assert planned(MODULE, MODULE.replace(old, new, 1)).reason == ""


@pytest.mark.parametrize("name", NOT_SWAPPABLE)
def test_what_import_would_do_otherwise_is_not_swapped(name: str) -> None:
    """And the plan says what stands in the way."""
    old, new, reason = NOT_SWAPPABLE[name]
    assert old in MODULE
    said = planned(MODULE, MODULE.replace(old, new, 1))
    assert reason in said.reason
    assert said.codes == ()


def test_a_moved_function_is_not_swapped() -> None:
    """The order of definitions is part of what import does."""
    one, other = "def a():\n    return 1\n\n\n", "def b():\n    return 2\n\n\n"
    assert "moved" in planned(one + other, other + one).reason


def test_only_functions_whose_body_differs_count_as_changed() -> None:
    """Shifted lines are no change, nor is a comment inside."""
    new = MODULE.replace("LIMIT = 3", "\n# more\nLIMIT = 3").replace("yield 2", "yield 7  # seven")
    said = planned(MODULE, new)
    assert [code.co_qualname for code in said.changed] == ["numbers"]


def test_every_code_object_outside_changed_functions_has_a_successor() -> None:
    """Closures made on import too, so that lines in tracebacks are right."""
    said = planned(MODULE, "\n\n" + MODULE)
    lines = {(old.co_qualname, new.co_firstlineno - old.co_firstlineno) for old, new in said.codes}
    assert ("outer.<locals>.inner", 2) in lines
    assert ("<lambda>", 2) in lines
    assert {shift for _, shift in lines} == {2}


def test_one_of_several_functions_of_a_name_counts_for_all() -> None:
    """Getter and setter share a qualified name: neither may have run."""
    said = planned(MODULE, MODULE.replace("self.size = other", "self.size = other + 1"))
    assert [code.co_qualname for code in said.changed] == ["Thing.value", "Thing.value"]


# -- swapping means the same as importing

BODIES = st.sampled_from(
    [
        *("return x", "return x + 1", "return x * K", "y = x\n{0}return -y", "raise ValueError(x)"),
        *("return [z + x for z in (1, 2)]", "return (lambda: x)()", "yield x", "return helper(x)"),
        *("'doc'\n{0}return x", "global G\n{0}G = x\n{0}return G", "return __class__.__name__"),
        *("def inner():\n{0}    return x\n{0}return inner()", "import math\n{0}return math.pi"),
    ]
)
HEADS = st.sampled_from(["def {0}(x):", "def {0}(x=5):", "@keep\ndef {0}(x):", "async def {0}(x):"])


def function(head: str, name: str, body: str, indent: str, num_lines: int) -> str:
    """One function or method, with so many empty lines after it."""
    head = head.format(name).replace("(x", "(self, x" if indent else "(x")
    text = "\n".join(indent + line for line in head.splitlines())
    return f"{text}\n{indent}    {body.format(indent + '    ')}\n" + "\n" * num_lines


def module(constant: int, heads: list[str], bodies: list[str], lines: list[int]) -> str:
    """A module of two functions and a class with two methods."""
    text = f"K = {constant}\ndef keep(f): return f\ndef helper(x): return x\n"
    parts = list(zip(heads, "abcd", bodies, ["", "", "    ", "    "], lines, strict=True))
    text += "".join(function(*part) for part in parts[:2])
    return text + "class C:\n    size = 1\n" + "".join(function(*part) for part in parts[2:])


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str]:
    """A module before and after an edit that mostly keeps what is outside of the bodies."""
    heads = draw(st.lists(HEADS, min_size=4, max_size=4))
    bodies = st.lists(BODIES, min_size=4, max_size=4)
    lines = st.lists(st.integers(0, 2), min_size=4, max_size=4)
    before = module(1, heads, draw(bodies), draw(lines))
    if draw(st.integers(0, 9)) == 0:
        heads = draw(st.permutations(heads))
    constant = 2 if draw(st.integers(0, 9)) == 0 else 1
    return before, module(constant, heads, draw(bodies), draw(lines))


def imported(text: str) -> tuple[dict[str, Any], types.CodeType]:
    """What executing a module leaves behind, and its code."""
    code = compile(text, "module.py", "exec", dont_inherit=True)
    names: dict[str, Any] = {"__name__": "module"}
    exec(code, names)
    return names, code


def behaviour(names: dict[str, Any]) -> list[object]:
    """What calling everything gives: values, errors with their lines, kinds, documentation."""
    thing = names["C"]()
    said: list[object] = [names["K"], names["C"].size]
    for function in (names["a"], names["b"], thing.c, thing.d):
        said += [function.__doc__, function.__code__.co_firstlineno]
        try:
            value = function(4)
            said.append(list(value) if isinstance(value, types.GeneratorType) else value)
            if isinstance(value, types.CoroutineType):
                value.close()
                said[-1] = "coroutine"
            if isinstance(value, types.AsyncGeneratorType):
                said[-1] = "asynchronous generator"
        except Exception as error:
            line = error.__traceback__.tb_next.tb_lineno if error.__traceback__ else 0  # type: ignore[union-attr]
            said += [repr(error), line]
    return said


@settings(max_examples=300, deadline=None)
@given(edits())
def test_a_swapped_module_behaves_like_an_imported_one(edit: tuple[str, str]) -> None:
    """For any edit: the plan refuses, or swapping gives what importing the new text gives."""
    old, new = edit
    names, code = imported(old)
    said = plan(old.encode(), new.encode(), code)
    if said.reason:
        return
    successors = {id(one): other for one, other in said.codes}
    for owner in (names, vars(names["C"])):
        for value in list(owner.values()):
            if isinstance(value, types.FunctionType):
                value.__code__ = successors[id(value.__code__)]
    assert behaviour(names) == behaviour(imported(new)[0])


@settings(max_examples=100, deadline=None)
@given(edits())
def test_the_same_text_changes_nothing(edit: tuple[str, str]) -> None:
    """And every function has a successor."""
    text, _ = edit
    said = planned(text, text)
    assert (said.reason, said.changed) == ("", ())
    assert len(said.codes) >= 6


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_give_a_plan(old: bytes, new: bytes) -> None:
    """Never an exception: a reason is enough to go colder."""
    code = compile("", "module.py", "exec")
    assert isinstance(plan(old, new, code), Plan)


@given(
    st.sampled_from(["(1.5, 'a b')", "1.5", "'a b'", "b'x y'", "-7000", "frozenset", "(1, True)"])
)
def test_equal_constants_stay_one_object(written: str) -> None:
    """Import has made some of a module's constants already; ``is`` holds as in a fresh process."""
    if written == "frozenset":
        written = "1 in {1, 2}, (3, 4)"
    old = f"X = {written}\n\n\ndef told():\n    y = 1\n    return {written}\n".encode()
    new = old.replace(b"y = 1", b"y = 'other'")
    code = compile(old, "core.py", "exec", dont_inherit=True)
    names: dict[str, Any] = {}
    exec(code, names)
    swap = plan(old, new, code)
    assert not swap.reason
    told = names["told"]
    told.__code__ = {id(one): other for one, other in swap.codes}[id(told.__code__)]
    fresh: dict[str, Any] = {}
    exec(compile(new, "core.py", "exec", dont_inherit=True), fresh)
    assert (told() is names["X"]) == (fresh["told"]() is fresh["X"])
    assert repr(told()) == repr(fresh["told"]())
