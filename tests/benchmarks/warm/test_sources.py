"""Positions in Python text."""

import ast
import random

from benchmarks.warm.sources import Source, body_of, is_plain_text, own_nodes
from tests.benchmarks.warm.subjects import MODULE


def test_functions_have_their_qualified_names() -> None:
    """As ``__qualname__`` has them, methods and inner functions told apart."""
    functions = Source(MODULE).functions()
    assert [function.name for function in functions] == [
        *("plain", "second", "cached", "Thing.method", "Thing.documented"),
        *("outer", "outer.<locals>.inner"),
    ]
    assert [each.name for each in functions if each.is_method] == [
        "Thing.method",
        "Thing.documented",
    ]
    assert [each.name for each in functions if each.is_nested] == ["outer.<locals>.inner"]


def test_a_node_is_replaced_by_bytes_not_characters() -> None:
    """Letters before it may take several bytes."""
    source = Source("é = ('ü', x)\n".encode())
    name = next(
        node for node in ast.walk(source.tree) if isinstance(node, ast.Name) and node.id == "x"
    )
    assert source.replace(name, b"y").decode() == "é = ('ü', y)\n"
    assert source.of(name) == b"x"


def test_lines_go_before_a_statement_and_its_decorators() -> None:
    """With the indentation of the statement."""
    source = Source(MODULE)
    functions = {function.name: function.node for function in source.functions()}
    text = source.insert_before(functions["cached"], b"# one\n# two")
    assert text is not None
    assert b"\n# one\n# two\n@functools.lru_cache\ndef cached" in text
    text = source.insert_before(functions["Thing.documented"], b"# one")
    assert text is not None
    assert b"\n    # one\n    @property\n" in text
    text = source.insert_before(functions["Thing.method"].body[0], b"if 1:\n    pass")
    assert text is not None
    assert b"        if 1:\n            pass\n        return self.size" in text


def test_there_is_no_room_on_a_line_that_has_begun() -> None:
    source = Source(b"def f(): return 1\n")
    assert source.insert_before(source.functions()[0].node.body[0], b"pass") is None


def test_a_docstring_is_no_statement_of_a_body() -> None:
    functions = {function.name: function.node for function in Source(MODULE).functions()}
    assert body_of(functions["Thing.documented"]) == []
    assert isinstance(body_of(functions["plain"])[0], ast.If)


def test_own_nodes_leave_inner_functions_out() -> None:
    """And the parts of f-strings, which have no positions of their own everywhere."""
    source = Source(b"def f(a):\n    def g():\n        return 5\n    return 6, f'{7}', lambda: 8\n")
    found = own_nodes(source.functions()[0].node, ast.Constant)
    assert [node.value for node in found] == [6]


def test_functions_that_tests_call_are_preferred() -> None:
    source = Source(MODULE, frozenset({"second"}))
    picked = [source.pick_function(random.Random(seed)) for seed in range(50)]
    names = [named.name for named in picked if named is not None]
    assert len(names) == 50
    assert names.count("second") > 25
    assert source.pick_function(random.Random(0), lambda _: False) is None


def test_what_does_not_compile_is_not_plain() -> None:
    assert is_plain_text(MODULE)
    assert not is_plain_text(b"def f(:\n")
    assert not is_plain_text(b"a = '\0'\n")
