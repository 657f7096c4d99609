"""Hypothesis strategies shared by the tests."""

import itertools
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tightloop.protocol.deltas import (
    Delta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    TextPart,
)

texts = st.text(max_size=12)
"""Any text without lone surrogates, quotes, backslashes and control characters included."""

names = st.text("abcdefghij_0123456789é", min_size=1, max_size=8)
optional_names = st.none() | names

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
"""Any JSON value, small."""

usages = st.builds(
    Usage,
    input_tokens=st.integers(0, 1 << 20),
    cached_tokens=st.integers(0, 1 << 20),
    output_tokens=st.integers(0, 1 << 20),
    reasoning_tokens=st.integers(0, 1 << 20),
)


def _call(name: str, is_custom: bool, pieces: list[str], number: int) -> list[Delta]:
    started = ToolCallStarted(f"call_{number}", name, is_custom)
    return [started, *(ToolCallDelta(piece) for piece in pieces), ToolCallDone()]


_calls = st.builds(_call, names, st.booleans(), st.lists(texts, max_size=4), st.integers(0, 99))
_texts = st.lists(st.builds(TextDelta, texts), min_size=1, max_size=4)
_reasonings = st.lists(st.builds(ReasoningDelta, texts), min_size=1, max_size=4)


def _joined(runs: Sequence[Sequence[Delta]]) -> list[Delta]:
    return [delta for run in runs for delta in run]


delta_lists: st.SearchStrategy[list[Delta]] = st.lists(
    st.one_of(_calls, _texts, _reasonings), max_size=5
).map(_joined)
"""The deltas of one response in legal order, without the ``Finished``."""

messages: st.SearchStrategy[Message] = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant", "system", "developer"]),
    content=st.lists(
        st.builds(TextPart, st.sampled_from(["input_text", "output_text"]), texts), max_size=3
    ).map(tuple),
    id=optional_names,
    phase=st.sampled_from([None, "commentary", "final_answer"]),
)

items: st.SearchStrategy[Item] = st.one_of(
    messages,
    st.builds(FunctionCall, names, names, texts, optional_names, optional_names),
    st.builds(FunctionCallOutput, names, texts, optional_names),
    st.builds(CustomToolCall, names, names, texts, optional_names, optional_names),
    st.builds(CustomToolCallOutput, names, texts, optional_names),
    st.builds(
        Reasoning,
        summary=st.lists(texts, max_size=2).map(tuple),
        encrypted_content=optional_names,
        id=optional_names,
        content=st.lists(texts, max_size=2).map(tuple),
    ),
)
"""Any item that is not opaque."""


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """``data`` cut into pieces anywhere."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def objects() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects with any keys."""
    return st.dictionaries(texts, json_values, max_size=4)
