"""The chain of parts: any cut into tokens gives the same verdict, and a refusal changes nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.collecting import request
from tests.engine.families.recorded_grammars import APPLY_PATCH, PATCH
from tightloop.engine.families.answer_rules import constraint_for
from tightloop.engine.families.constraint import Constraint, End, Quoted, Ruled, Scan, Words, word
from tightloop.engine.families.grammars import GrammarCompiler, Source
from tightloop.protocol.requests import CustomTool

COMPILER = GrammarCompiler()


def quoted(pattern: str) -> Constraint:
    matcher = COMPILER.matcher(Source("regex", pattern, "it"))
    return Constraint(word(b'"', lambda: Quoted(matcher.fresh(), lambda: word(b'"', End))))


def ruled(pattern: str, end: bytes = b"!") -> Constraint:
    matcher = COMPILER.matcher(Source("regex", pattern, "it"))
    return Constraint(Ruled(matcher, lambda: word(end, End)))


def patching() -> Constraint:
    tool = CustomTool("apply_patch", grammar=APPLY_PATCH)
    rules = constraint_for(request(tools=(tool,), tool_choice="required"), COMPILER)
    assert rules is not None
    return rules


def call_of(patch: str) -> bytes:
    body = json.dumps({"input": patch}, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "apply_patch", "arguments": {body}}}\n</tool_call>'.encode()


LINES = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t"), max_size=8)
PATCHES = st.builds(
    lambda lines: (
        "*** Begin Patch\n*** Add File: a\n"
        + "".join(f"+{line}\n" for line in lines)
        + "*** End Patch\n"
    ),
    st.lists(LINES, min_size=1, max_size=4),
)


@settings(max_examples=40, deadline=None)
@given(PATCHES, st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_a_legal_call_is_accepted_however_it_is_cut(patch: str, sizes: list[int]) -> None:
    assert PATCH.fullmatch(patch)
    rest, number = call_of(patch), 0
    rules = patching()
    while rest:
        size = sizes[number % len(sizes)]
        assert not rules.is_over
        assert rest[0] in rules.next_bytes()
        assert rules.allows(rest[:size])
        assert rules.accept(rest[:size]), rest[:40]
        rest, number = rest[size:], number + 1
    assert rules.may_stop


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=6), st.integers(0, 120))
def test_a_refusal_changes_nothing_and_bytes_are_judged_alone(token: bytes, at: int) -> None:
    """A token is legal exactly when its bytes are, one after the other."""
    whole = call_of('*** Begin Patch\n*** Delete File: "a"\n*** End Patch\n')
    at = min(at, len(whole))
    rules, slow = patching(), patching()
    assert rules.accept(whole[:at]) or not at
    assert slow.accept(whole[:at]) or not at
    is_legal = True
    for n in range(len(token)):
        byte = token[n : n + 1]
        assert slow.allows(byte) == (byte[0] in slow.next_bytes())
        is_legal = is_legal and slow.accept(byte)
        if not is_legal:
            break
    assert is_legal == rules.accept(token)
    if not is_legal:
        assert rules.accept(whole[at:]) or at == len(whole)


def test_words_are_told_apart_by_their_letters() -> None:
    seen: list[str] = []

    def then(name: str) -> End:
        seen.append(name)
        return End()

    rules = Constraint(Words({b"one": lambda: then("one"), b"off": lambda: then("off")}))
    assert rules.next_bytes() == frozenset(b"o")
    assert not rules.accept(b"ox")
    assert rules.accept(b"o")
    assert rules.next_bytes() == frozenset(b"nf")
    assert not rules.may_stop
    assert rules.accept(b"ff")
    assert seen == ["off"]
    assert rules.is_over
    assert not rules.accept(b"x")


def test_a_tag_is_found_across_tokens_and_a_refused_one_is_not_passed() -> None:
    rules = Constraint(Scan({b"<a>": End, b"<b>": None}, may_stop=True))
    assert rules.accept(b"text <")
    assert rules.is_free
    assert not rules.accept(b"b>")
    assert rules.accept(b"b <a")
    assert rules.may_stop
    assert rules.accept(b">")
    assert rules.is_over


def test_one_token_may_end_a_grammar_and_go_on() -> None:
    assert ruled("a+").accept(b"aaa!")
    assert not ruled("a+").accept(b"!")
    assert not ruled("a+").accept(b"aa!x")
    rules = ruled("a+")
    assert rules.accept(b"a")
    assert rules.next_bytes() == frozenset(b"a!")


@pytest.mark.parametrize(
    ("text", "is_legal"),
    [
        (rb'"a\n"', True),
        (rb'"a\"\n"', True),
        (rb'"a\\\n"', True),
        (rb'"a"', False),  # the grammar wants its newline
        (b'"a\n"', False),  # JSON wants it escaped
        (rb'"a\u0041\n"', False),
        (rb'"a\t\n"', False),  # the grammar has no tab
    ],
)
def test_a_quoted_text_matches_unescaped(text: bytes, is_legal: bool) -> None:
    pattern = r'a["\\]?\n'
    assert is_legal == quoted(pattern).accept(text)
    slow = quoted(pattern)
    assert is_legal == all(slow.accept(text[n : n + 1]) for n in range(len(text)))


def test_no_backslash_where_no_escaped_character_may_come() -> None:
    rules = quoted("ab")
    assert rules.accept(b'"a')
    assert not rules.accept(b"\\")
    assert rules.next_bytes() == frozenset(b"b")
    escaping = quoted("[\t]b")
    assert escaping.accept(b'"')
    assert escaping.next_bytes() == frozenset(b"\\")
    assert escaping.accept(b"\\")
    assert escaping.next_bytes() == frozenset(b"t")


def test_strings_that_must_not_occur_do_not_across_tokens() -> None:
    matcher = COMPILER.matcher(Source("regex", r"[<a-z>]*", "it"))
    rules = Constraint(Ruled(matcher, End, never=(b"<b>",)))
    assert rules.accept(b"a<b")
    assert not rules.accept(b">")
    assert rules.accept(b"c>")
    assert rules.may_stop
