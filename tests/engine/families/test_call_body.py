"""The pieces that read one call's JSON."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.families.call_body import CallBody, JsonExtent, JsonText
from tightloop.protocol.deltas import Delta, ToolCallDelta, ToolCallStarted


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20), st.booleans())
def test_any_string_survives_its_escapes(text: str, ascii_only: bool) -> None:
    text = text.encode("utf-8", "replace").decode()
    reader = JsonText()
    inside = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    assert text == "".join(map(reader.feed, inside))


def test_broken_escapes_stay_visible() -> None:
    reader = JsonText()
    assert "".join(map(reader.feed, r"\uZZZZ\q")) == "\\uZZZZq"


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.one_of(st.text('{}[]",\\a', max_size=4), st.integers()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.text("a}\\", max_size=2), inner, max_size=3),
        ),
        max_leaves=5,
    ).filter(lambda value: not isinstance(value, int))
)
def test_a_value_ends_with_its_last_character(value: object) -> None:
    raw = json.dumps(value)
    extent = JsonExtent()
    ends = [extent.feed(char) for char in raw]
    assert ends.index(True) == len(raw) - 1


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("ab", max_size=2), st.one_of(st.text(max_size=5), st.integers()), max_size=3
    ),
    st.booleans(),
)
def test_arguments_pass_through_byte_for_byte(
    arguments: dict[str, object], name_first: bool
) -> None:
    pairs = [("name", "run"), ("arguments", arguments)]
    raw = json.dumps(dict(pairs if name_first else pairs[::-1]))
    body = CallBody(lambda: "c", ())
    deltas: list[Delta] = []
    assert body.feed(raw + "rest", deltas) == len(raw)
    assert body.is_complete
    assert deltas[0] == ToolCallStarted("c", "run")
    passed = "".join(delta.text for delta in deltas if isinstance(delta, ToolCallDelta))
    assert passed == json.dumps(arguments)


@pytest.mark.parametrize("raw", ["x", '{"a" 1}', "{1", '{"name": 5}', '{"name": ,', "[]", "{}"])
def test_what_is_no_call_is_noticed_at_once(raw: str) -> None:
    body = CallBody(lambda: "c", ())
    deltas: list[Delta] = []
    body.feed(raw, deltas)
    assert body.is_malformed
    assert deltas == []
    assert raw.startswith(body.raw)


@given(
    value=st.text(max_size=12),
    other=st.text('ab\\"\n', max_size=4),
    ascii_only=st.booleans(),
    kind=st.sampled_from(["function", "custom string", "custom object"]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_a_call_reads_the_same_however_it_is_cut(
    value: str, other: str, ascii_only: bool, kind: str, sizes: list[int]
) -> None:
    """Runs of ordinary characters go through at once; what is escaped among them comes in order."""
    value = value.encode("utf-8", "replace").decode()
    arguments: object = value if kind == "custom string" else {"o": other, "input": value, "p": ""}
    raw = json.dumps({"name": "run", "arguments": arguments}, ensure_ascii=ascii_only)
    body = CallBody(lambda: "c", () if kind == "function" else {"run"})
    deltas: list[Delta] = []
    at = 0
    for size in itertools.cycle(sizes):
        piece = raw[at : at + size]
        assert body.feed(piece, deltas) == len(piece)
        at += size
        if at >= len(raw):
            break
    said = "".join(delta.text for delta in deltas if isinstance(delta, ToolCallDelta))
    assert body.is_complete
    assert said == (json.dumps(arguments, ensure_ascii=ascii_only) if kind == "function" else value)
