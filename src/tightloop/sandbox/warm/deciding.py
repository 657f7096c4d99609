# ruff: noqa: TID252 - started as a script, without the package above
"""What a child must do to be as a cold start now, or why that is not known."""

import contextlib
import os
import types

from . import early, edits
from .building import State
from .declining import CONFIG_FILES
from .looking import kind_of

Swaps = list[tuple[types.FunctionType, types.CodeType]]


class Colder(Exception):
    """This run is not for this process; the text says why."""


def decide(state: State) -> Swaps:
    """What a child must swap to be as a cold start now. Raises Colder."""
    listing, changed = state.tree.changes()
    if listing:
        raise Colder(f"{listing} is new or gone")
    for path, seen in state.outside.items():
        if seen.has_changed(path):
            raise Colder(f"{path} changed")
    for path, kind in state.looked.items():
        if kind_of(path) != kind:
            raise Colder(f"{path} is new, gone or of another kind")
    swaps: Swaps = []
    for path in changed:
        swaps += decide_file(state, path)
    return swaps


def decide_file(state: State, path: str) -> Swaps:
    """What one changed file asks for. Raises Colder."""
    real = os.path.realpath(path)
    if real != state.links.get(path, path):
        raise Colder(f"{path} leads elsewhere now")
    assert state.recorder is not None
    if real in state.read or path in state.read:
        raise Colder(f"{path} was read by an import")
    if os.path.basename(path) in CONFIG_FILES:
        raise Colder(f"{path} is configuration")
    if real not in state.tests and real not in state.recorder.sources:
        return []  # nothing resident knows it
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise Colder(f"{path}: {error.strerror}") from error
    if real in state.tests:
        check_test_file(path, state.tests[real], text)
        return []
    if text == state.recorder.sources[real].text:
        return []
    if real in state.suspended:
        raise Colder(f"{path} has a live generator or coroutine")
    source = state.recorder.sources[real]
    if source.planned is None or source.planned[0] != text:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            source.outline = source.outline or edits.outline(source.text)
        source.planned = (text, edits.plan(source.text, text, source.code, source.outline))
    plan = source.planned[1]
    if plan.reason:
        raise Colder(f"{path}: {plan.reason}")
    return find_functions(state, source.code.co_filename, plan)


def check_test_file(path: str, old: bytes, new: bytes) -> None:
    """Raises Colder when a test file may import otherwise, or make imports do other things."""
    try:
        found = early.effect(new)
        same = early.imports(old) == early.imports(new)
        if os.path.basename(path) == "conftest.py":
            same = same and early.outside_bodies(old) == early.outside_bodies(new)
    except (SyntaxError, ValueError) as error:
        raise Colder(f"{path}: {error}") from error
    if found or not same:
        raise Colder(f"{path}: {found or 'it imports in another way'}")


def find_functions(state: State, filename: str, plan: edits.Plan) -> Swaps:
    """Every live function of a file with its new code. Raises Colder."""
    for code in plan.changed:
        if id(code) in state.executed:
            raise Colder(f"{filename}: {code.co_qualname} ran on import")
    assert state.recorder is not None
    for old, new in plan.codes:
        # its lines are something that may be kept too
        if id(old) in state.recorder.kept and old != new:
            raise Colder(f"{filename}: the code of {old.co_qualname} was looked at on import")
    successors = {id(old): new for old, new in plan.codes}
    swaps: Swaps = []
    for function in state.functions.get(filename, ()):
        successor = successors.get(id(function.__code__))
        if successor is None:
            raise Colder(f"{filename}: {function.__qualname__} is not of its text")
        swaps.append((function, successor))
    return swaps
