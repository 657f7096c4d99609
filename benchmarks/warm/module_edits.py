"""Edits of what importing a module makes: signatures, decorators, constants, classes, imports. Pure.

Each takes a module and a random generator and returns the new text and what was edited, or None
where the module has nothing to edit in that way.
"""

import ast
import random

from benchmarks.warm.body_edits import Edited
from benchmarks.warm.sources import Function, Source, body_of


def default(source: Source, rng: random.Random) -> Edited:
    """Another default of an argument."""
    named = source.pick_function(rng, lambda it: bool(it.node.args.defaults))
    if named is None:
        return None
    node = rng.choice(named.node.args.defaults)
    return source.replace(node, rng.choice((b"None", b"'edited'", b"7"))), named.name


def new_argument(source: Source, rng: random.Random) -> Edited:
    """One more argument, with a default, behind the last plain one."""

    def has_room(node: Function) -> bool:
        arguments = node.args
        return bool(arguments.args) and not arguments.posonlyargs and not arguments.defaults

    named = source.pick_function(rng, lambda it: has_room(it.node))
    if named is None:
        return None
    last = named.node.args.args[-1]
    return source.insert(source.end(last), b", edited=None"), named.name


def annotation(source: Source, rng: random.Random) -> Edited:
    """An argument's annotation is new or another one."""
    named = source.pick_function(rng, lambda it: bool(it.node.args.args))
    if named is None:
        return None
    argument = rng.choice(named.node.args.args)
    if argument.annotation is not None:
        return source.replace(argument.annotation, b"'edited'"), named.name
    return source.insert(source.end(argument), b": 'edited'"), named.name


def made_async(source: Source, rng: random.Random) -> Edited:
    """``async`` before a plain function."""
    named = source.pick_function(rng, lambda it: isinstance(it.node, ast.FunctionDef))
    if named is None:
        return None
    place = source.offset(named.node.lineno, named.node.col_offset)
    return source.insert(place, b"async "), named.name


def decorator_added(source: Source, rng: random.Random) -> Edited:
    """A decorator that changes nothing, or one that does."""
    named = source.pick_function(rng)
    if named is None:
        return None
    new = rng.choice((b"@(lambda f: f)", b"@(lambda f: lambda *a, **k: None)"))
    text = source.insert_before(named.node, new)
    return (text, named.name) if text is not None else None


def decorator_removed(source: Source, rng: random.Random) -> Edited:
    """One decorator less."""
    named = source.pick_function(rng, lambda it: bool(it.node.decorator_list))
    if named is None:
        return None
    node = rng.choice(named.node.decorator_list)
    first, last = source.line_start(node.lineno), source.line_start((node.end_lineno or 0) + 1)
    return source.text[:first] + source.text[last:], named.name


def docstring(source: Source, rng: random.Random) -> Edited:
    """A docstring is new or another one."""
    named = source.pick_function(rng)
    if named is None:
        return None
    old = named.node.body[0]
    if len(body_of(named.node)) != len(named.node.body):
        assert isinstance(old, ast.Expr)
        return source.replace(old.value, b"'edited %d'" % rng.randrange(9)), named.name
    text = source.insert_before(old, b"'''edited'''")
    return (text, named.name) if text is not None else None


def module_constant(source: Source, rng: random.Random) -> Edited:
    """A module's variable has another value."""
    return _assigned(source, rng, source.tree.body)


def class_attribute(source: Source, rng: random.Random) -> Edited:
    """A class's variable has another value, or there is a new one."""
    classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    if not classes:
        return None
    chosen = rng.choice(classes)
    edited = _assigned(source, rng, chosen.body)
    if edited is not None:
        return edited[0], f"{chosen.name}.{edited[1]}"
    text = source.insert_before(chosen.body[-1], b"edited = 1")
    return (text, chosen.name) if text is not None else None


def _assigned(source: Source, rng: random.Random, body: list[ast.stmt]) -> Edited:
    found = [
        node
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
    ]
    if not found:
        return None
    node = rng.choice(found)
    assert node.value is not None
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    new = rng.choice((b"None", b"'edited'", b"3"))
    return source.replace(node.value, new), source.of(target).decode()


def _top(source: Source) -> list[ast.stmt]:
    """Statements of the module that others may stand before: not its docstring or ``__future__``."""
    return [
        node
        for node in source.tree.body[1:]
        if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]


def import_added(source: Source, rng: random.Random) -> Edited:
    """One more import, of something that is there or that is not."""
    name = rng.choice((b"colorsys", b"fractions", b"edited_missing_module"))
    return _before_some(source, rng, b"import " + name)


def import_removed(source: Source, rng: random.Random) -> Edited:
    """One import less."""
    found = [node for node in source.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = [node for node in found if getattr(node, "module", "") != "__future__"]
    if not found:
        return None
    node = rng.choice(found)
    return source.replace(node, b"pass"), source.of(node).decode().splitlines()[0]


def module_statement(source: Source, rng: random.Random) -> Edited:
    """Something new happens on import."""
    return _before_some(source, rng, rng.choice((b"EDITED = [1]", b"raise ImportError('edited')")))


def _before_some(source: Source, rng: random.Random, code: bytes) -> Edited:
    places = _top(source)
    if not places:
        return None
    place = rng.choice(places)
    text = source.insert_before(place, code)
    return (text, f"line {place.lineno}: {code.decode()}") if text is not None else None


def function_added(source: Source, rng: random.Random) -> Edited:
    """A function that nothing calls."""
    return _before_some(source, rng, b"def edited_%d():\n    return 1" % rng.randrange(9))


def function_deleted(source: Source, rng: random.Random) -> Edited:
    """A function less."""
    named = source.pick_function(rng)
    return (source.replace(named.node, b"pass"), named.name) if named is not None else None


def function_renamed(source: Source, rng: random.Random) -> Edited:
    """A function with another name."""
    named = source.pick_function(rng)
    if named is None:
        return None
    place = source.offset(named.node.lineno, named.node.col_offset)
    found = source.text.index(b"def ", place) + 4
    return source.insert(found, b"edited_"), named.name


def function_moved(source: Source, rng: random.Random) -> Edited:
    """Two functions that follow one another change places."""
    pairs = [
        (one, other)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Module | ast.ClassDef)
        for one, other in zip(node.body, node.body[1:], strict=False)
        if isinstance(one, Function) and isinstance(other, Function)
    ]
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    between = source.text[source.end(one) : source.start(other)]
    # One that has decorators starts with its line's white space, the other without it.
    if bool(one.decorator_list) != bool(other.decorator_list):
        return None
    start, end = source.start(one), source.end(other)
    text = source.text[:start] + source.of(other) + between + source.of(one) + source.text[end:]
    return text, one.name


def syntax_error(source: Source, rng: random.Random) -> Edited:
    """No Python any more."""
    return _before_some(source, rng, b"def edited(:")


SIGNATURES = {
    "signature: default": default,
    "signature: new argument": new_argument,
    "signature: annotation": annotation,
    "signature: async": made_async,
    "decorator: added": decorator_added,
    "decorator: removed": decorator_removed,
    "docstring": docstring,
}
MODULES = {
    "module: constant": module_constant,
    "class: attribute": class_attribute,
    "module: import added": import_added,
    "module: import removed": import_removed,
    "module: statement": module_statement,
    "function: added": function_added,
    "function: deleted": function_deleted,
    "function: renamed": function_renamed,
    "function: moved": function_moved,
    "module: syntax error": syntax_error,
}
