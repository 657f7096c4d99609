"""Grammars compiled to matchers of bytes."""

import pytest

from tests.engine.families.recorded_grammars import APPLY_PATCH
from tests.engine.stepping import result_of
from tightloop.engine.aside import Aside
from tightloop.engine.families.grammars import (
    MAX_CACHED,
    STACK_BYTES,
    ByteMatcher,
    GrammarCompiler,
    Source,
    json_source,
)
from tightloop.engine.interface import EngineError


def regex(text: str) -> ByteMatcher:
    return GrammarCompiler().matcher(Source("regex", text, "it"))


def test_a_matcher_takes_what_the_grammar_allows_and_takes_it_back() -> None:
    matcher = regex("ab+c?")
    assert matcher.take(b"abbx") == 3
    assert matcher.can_end
    assert not matcher.is_complete
    matcher.undo(2)
    assert not matcher.can_end
    assert matcher.take(b"bc") == 2
    assert matcher.is_complete
    assert matcher.next_bytes() == frozenset()
    matcher.undo(1)
    assert matcher.next_bytes() == frozenset(b"bc")


def test_a_refused_byte_changes_nothing() -> None:
    matcher = regex("ab")
    assert matcher.take(b"x") == 0
    assert not matcher.allows(ord("x"))
    assert matcher.allows(ord("a"))
    assert matcher.take(b"ab") == 2


def test_characters_are_whole() -> None:
    """After the first byte of an e acute only its second may come."""
    matcher = regex("[é]x")
    assert matcher.take(b"\xc3") == 1
    assert matcher.next_bytes() == frozenset(b"\xa9")


def test_a_fresh_matcher_is_another_one() -> None:
    first = regex("ab")
    first.take(b"a")
    second = first.fresh()
    assert second.take(b"b") == 1
    assert not first.can_end


@pytest.mark.parametrize(
    ("text", "is_legal"),
    [
        ('{"a": 1}', True),
        ('{"a": 1, "b": [true, null]}', True),
        ('{"a":1}', False),
        ('{ "a": 1}', False),
    ],
)
def test_json_has_the_spaces_of_tojson(text: str, is_legal: bool) -> None:
    """The next prompt repeats a call in this form, and finds its tokens warm."""
    matcher = GrammarCompiler().matcher(json_source({"type": "object"}, "it"))
    assert is_legal == (matcher.take(text.encode()) == len(text) and matcher.can_end)


def test_a_schema_can_be_followed_as_far_as_it_is_known() -> None:
    odd = {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}
    compiler = GrammarCompiler()
    with pytest.raises(EngineError, match="not") as refused:
        compiler.matcher(json_source(odd, "tool 'x'"))
    assert refused.value.code == "invalid_json_schema"
    assert compiler.matcher(json_source(odd, "tool 'x'", is_lenient=True)).take(b'{"a": 1}') == 8


def test_an_error_names_the_owner_and_the_reason() -> None:
    with pytest.raises(EngineError, match=r"Lark grammar of tool 'x'.*unknown name") as refused:
        GrammarCompiler().matcher(Source("lark", "start: nothing", "tool 'x'"))
    assert refused.value.code == "invalid_grammar"


def test_a_schema_cannot_change_how_json_is_written() -> None:
    schema = {"x-guidance": {"whitespace_pattern": "x*", "no": 1}, "items": {}, "type": "array"}
    assert GrammarCompiler().matcher(json_source(schema, "it")).take(b"[xx1]") == 1


def test_a_long_chain_of_rules_does_not_overflow_the_stack() -> None:
    """On the stack that is meant for it: on the usual one a chain of 4000 ended the process."""
    rules = "\n".join(f"r{n}: r{n + 1}" for n in range(2500))
    chain = Source("lark", f'start: r0\n{rules}\nr2500: "ab"', "it")
    compiler = GrammarCompiler()
    matcher = result_of(Aside(1, stack_bytes=STACK_BYTES).do(lambda: compiler.matcher(chain)))
    assert matcher.take(b"abc") == 2


def test_an_ambiguous_grammar_is_given_up_before_it_is_slow() -> None:
    matcher = GrammarCompiler().matcher(
        Source("lark", 'start: e\ne: e e e | e e | "a"', "tool 'x'")
    )
    with pytest.raises(EngineError, match="too complex to follow"):
        matcher.take(b"a" * 1000)


def test_a_costly_schema_is_refused() -> None:
    with pytest.raises(EngineError, match="multipleOf"):
        GrammarCompiler().matcher(json_source({"multipleOf": 1000003}, "it"))


def test_compiled_grammars_are_kept_up_to_a_limit() -> None:
    compiler = GrammarCompiler()
    patch = Source("lark", APPLY_PATCH, "p")
    used = compiler.matcher(patch)
    assert used.take(b"*** Begin") == len(b"*** Begin")
    for number in range(MAX_CACHED + 5):
        compiler.matcher(Source("regex", f"a{{{number}}}", "it"))
    again = compiler.matcher(patch)
    assert again.take(b"*** Begin") == len(b"*** Begin")
