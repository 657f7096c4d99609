"""Edits of what functions do: their bodies, and what looks like a body edit but is more. Pure.

Each takes a module and a random generator and returns the new text and what was edited, or None
where the module has nothing to edit in that way.
"""

import ast
import random

from benchmarks.warm.sources import Function, Named, Source, body_of, own_nodes

Edited = tuple[bytes, str] | None

_COMPARISONS: dict[type[ast.cmpop], bytes] = {
    ast.Eq: b"!=",
    ast.NotEq: b"==",
    ast.Lt: b">=",
    ast.GtE: b"<",
    ast.Gt: b"<=",
    ast.LtE: b">",
    ast.Is: b"is not",
    ast.IsNot: b"is",
    ast.In: b"not in",
    ast.NotIn: b"in",
}


def _with_body(named: Named) -> bool:
    return bool(body_of(named.node))


def _first(source: Source, rng: random.Random, code: bytes) -> Edited:
    """Lines at the start of some function's body."""
    named = source.pick_function(rng, _with_body)
    if named is None:
        return None
    text = source.insert_before(body_of(named.node)[0], code)
    return (text, named.name) if text is not None else None


def return_changed(source: Source, rng: random.Random) -> Edited:
    """Another value is returned."""
    named = source.pick_function(rng, lambda it: bool(_returns(it.node)))
    if named is None:
        return None
    value = rng.choice(_returns(named.node)).value
    assert value is not None
    new = rng.choice((b"None", b"0", b"(" + source.of(value) + b", 1)[0]", b"'edited'"))
    return source.replace(value, new), named.name


def _returns(function: Function) -> list[ast.Return]:
    return [node for node in own_nodes(function, ast.Return) if node.value is not None]


def raising(source: Source, rng: random.Random) -> Edited:
    """The function raises at once."""
    error = rng.choice((b"RuntimeError", b"ValueError", b"KeyError", b"AttributeError"))
    return _first(source, rng, b"raise " + error + b"('edited')")


def asserting(source: Source, rng: random.Random) -> Edited:
    """An assertion at the start, which may fail."""
    return _first(source, rng, rng.choice((b"assert True, 'edited'", b"assert not 1, 'edited'")))


def new_local(source: Source, rng: random.Random) -> Edited:
    """A variable that nothing reads."""
    return _first(source, rng, b"edited_%d = [1, 2]" % rng.randrange(100))


def new_inner(source: Source, rng: random.Random) -> Edited:
    """A function inside the function, called at once."""
    return _first(source, rng, b"def edited(x=3):\n    return x\nassert edited() == 3")


def printing(source: Source, rng: random.Random) -> Edited:
    """It prints."""
    return _first(source, rng, b"print('edited', end='')")


def comment(source: Source, rng: random.Random) -> Edited:
    """Comments that shift every line after them."""
    return _first(source, rng, b"# edited\n" * rng.randint(1, 4))


def constant(source: Source, rng: random.Random) -> Edited:
    """Another number or text in a body."""
    named = source.pick_function(rng, lambda it: bool(_constants(it.node)))
    if named is None:
        return None
    node = rng.choice(_constants(named.node))
    new = b"'edited'" if isinstance(node.value, str) else str(int(node.value) + 1).encode()  # type: ignore[arg-type]
    return source.replace(node, new), named.name


def _constants(function: Function) -> list[ast.Constant]:
    found = own_nodes(function, ast.Constant)
    return [node for node in found if isinstance(node.value, int | str)]


def comparison(source: Source, rng: random.Random) -> Edited:
    """A comparison the other way round."""
    named = source.pick_function(rng, lambda it: bool(_comparisons(it.node)))
    if named is None:
        return None
    node = rng.choice(_comparisons(named.node))
    operator = _COMPARISONS[type(node.ops[0])]
    left, right = source.of(node.left), source.of(node.comparators[0])
    return source.replace(node, b"(%b %b %b)" % (left, operator, right)), named.name


def _comparisons(function: Function) -> list[ast.Compare]:
    return [node for node in own_nodes(function, ast.Compare) if len(node.ops) == 1]


def condition(source: Source, rng: random.Random) -> Edited:
    """An ``if`` the other way round."""
    named = source.pick_function(rng, lambda it: bool(own_nodes(it.node, ast.If)))
    if named is None:
        return None
    test = rng.choice(own_nodes(named.node, ast.If)).test
    return source.replace(test, b"not (" + source.of(test) + b")"), named.name


def statement_deleted(source: Source, rng: random.Random) -> Edited:
    """A statement becomes ``pass``."""
    named = source.pick_function(rng, _with_body)
    if named is None:
        return None
    return source.replace(rng.choice(body_of(named.node)), b"pass"), named.name


def yielding(source: Source, rng: random.Random) -> Edited:
    """A plain function becomes a generator function."""
    return _first(source, rng, b"if not 1:\n    yield")


def class_cell(source: Source, rng: random.Random) -> Edited:
    """A method mentions ``__class__``, as a new ``super()`` does."""
    named = source.pick_function(rng, lambda it: it.is_method and _with_body(it))
    if named is None:
        return None
    text = source.insert_before(body_of(named.node)[0], b"__class__")
    return (text, named.name) if text is not None else None


def outer_variable(source: Source, rng: random.Random) -> Edited:
    """A function inside another one reads one more variable of it."""

    def fits(named: Named) -> bool:
        return not named.is_nested and bool(_inner(named.node)) and bool(named.node.args.args)

    named = source.pick_function(rng, fits)
    if named is None:
        return None
    inner = rng.choice(_inner(named.node))
    text = source.insert_before(body_of(inner)[0], named.node.args.args[0].arg.encode())
    return (text, f"{named.name}.{inner.name}") if text is not None else None


def _inner(function: Function) -> list[Function]:
    found = [node for node in function.body if isinstance(node, Function)]
    return [node for node in found if body_of(node)]


def same_size(source: Source, rng: random.Random) -> Edited:
    """A digit of a body becomes another one: no size tells."""

    def digits(function: Function) -> list[ast.Constant]:
        found = own_nodes(function, ast.Constant)
        return [node for node in found if type(node.value) is int and 0 <= node.value <= 8]

    named = source.pick_function(rng, lambda it: bool(digits(it.node)))
    if named is None:
        return None
    node = rng.choice(digits(named.node))
    if len(source.of(node)) != 1:
        return None
    assert isinstance(node.value, int)
    return source.replace(node, str(node.value + 1).encode()), named.name


BODIES = {
    "body: return value": return_changed,
    "body: raises": raising,
    "body: assertion": asserting,
    "body: new variable": new_local,
    "body: inner function": new_inner,
    "body: prints": printing,
    "body: comment": comment,
    "body: constant": constant,
    "body: comparison": comparison,
    "body: condition": condition,
    "body: statement deleted": statement_deleted,
}
KINDS = {
    "kind: yield": yielding,
    "closure: class cell": class_cell,
    "closure: outer variable": outer_variable,
}
