"""Reasoning and tool calls read from text, however it is cut."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.families.tool_calls import ToolCallParser
from tightloop.protocol.deltas import (
    Delta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)

STARTED = ToolCallStarted("call_1", "run")
CUSTOM = ToolCallStarted("call_1", "apply_patch", is_custom=True)
DONE = ToolCallDone()

CASES: list[tuple[str, str, list[Delta]]] = [
    ("text", "a < b and <tool", [TextDelta("a < b and <tool")]),
    (
        "a call",
        'Hi <tool_call>\n{"name": "run", "arguments": {"cmd": "ls"}}\n</tool_call>',
        [TextDelta("Hi "), STARTED, ToolCallDelta('{"cmd": "ls"}'), DONE],
    ),
    (
        "two calls and text",
        '<tool_call>{"name":"run","arguments":{}}</tool_call>\n'
        '<tool_call>{"name":"run","arguments":[1]}</tool_call> bye',
        [
            STARTED,
            ToolCallDelta("{}"),
            DONE,
            STARTED,
            ToolCallDelta("[1]"),
            DONE,
            TextDelta(" bye"),
        ],
    ),
    (
        "the closing tag inside a string",
        '<tool_call>{"name":"run","arguments":{"a":"</tool_call> \\" }"}}</tool_call>',
        [STARTED, ToolCallDelta('{"a":"</tool_call> \\" }"}'), DONE],
    ),
    (
        "arguments before the name",
        '<tool_call>{"arguments": {"a": 1}, "id": 7, "name": "run"}</tool_call>',
        [STARTED, ToolCallDelta('{"a": 1}'), DONE],
    ),
    (
        "arguments as a JSON string",
        '<tool_call>{"name": "run", "arguments": "{\\"a\\": 1}"}</tool_call>',
        [STARTED, ToolCallDelta('{"a": 1}'), DONE],
    ),
    (
        "parameters, and no arguments",
        '<tool_call>{"name": "run", "parameters": {"a": 1}}</tool_call>'
        '<tool_call>{"name": "run"}</tool_call>',
        [STARTED, ToolCallDelta('{"a": 1}'), DONE, STARTED, ToolCallDelta("{}"), DONE],
    ),
    (
        "a custom tool's input is unescaped",
        '<tool_call>{"name": "apply_patch", "arguments": {"input": "a\\n\\"b\\" \\ud83d\\ude00\\u00e9"}}'
        "</tool_call>",
        [CUSTOM, ToolCallDelta('a\n"b" \U0001f600é'), DONE],
    ),
    (
        "a custom tool called with a bare string",
        '<tool_call>{"name": "apply_patch", "arguments": "a\\tb"}</tool_call>',
        [CUSTOM, ToolCallDelta("a\tb"), DONE],
    ),
    (
        "a custom tool called with something else",
        '<tool_call>{"name": "apply_patch", "arguments": {"x": {"input": "no"}}}</tool_call>',
        [CUSTOM, ToolCallDelta('{"x": {"input": "no"}}'), DONE],
    ),
    (
        "half a surrogate pair",
        '<tool_call>{"name": "apply_patch", "arguments": "\\ud83dx"}</tool_call>',
        [CUSTOM, ToolCallDelta("\ufffdx"), DONE],
    ),
    (
        "not an object",
        "<tool_call>oops</tool_call> x",
        [TextDelta("<tool_call>oops</tool_call> x")],
    ),
    (
        "an object without a name",
        '<tool_call>{"cmd": "ls"}</tool_call>',
        [TextDelta('<tool_call>{"cmd": "ls"}</tool_call>')],
    ),
    (
        "ended inside a call",
        '<tool_call>{"name": "run", "arguments": {"a": 1',
        [STARTED, ToolCallDelta('{"a": 1'), DONE],
    ),
    (
        "ended before the name",
        '<tool_call>{"nam',
        [TextDelta('<tool_call>{"nam')],
    ),
    (
        "a missing closing tag",
        '<tool_call>{"name": "run", "arguments": {}} and more',
        [STARTED, ToolCallDelta("{}"), DONE, TextDelta(" and more")],
    ),
    (
        "reasoning",
        "<think>\nhm <b></think>\n\nso",
        [ReasoningDelta("hm <b>"), TextDelta("so")],
    ),
    (
        "reasoning that never ends",
        "<think>hm </thin",
        [ReasoningDelta("hm </thin")],
    ),
]


def merged(deltas: Sequence[Delta]) -> list[Delta]:
    out: list[Delta] = []
    for delta in deltas:
        last = out[-1] if out else None
        if isinstance(delta, TextDelta) and isinstance(last, TextDelta):
            out[-1] = TextDelta(last.text + delta.text)
        elif isinstance(delta, ReasoningDelta) and isinstance(last, ReasoningDelta):
            out[-1] = ReasoningDelta(last.text + delta.text)
        elif isinstance(delta, ToolCallDelta) and isinstance(last, ToolCallDelta):
            out[-1] = ToolCallDelta(last.text + delta.text)
        else:
            out.append(delta)
    return out


def parse(pieces: Sequence[str], *, is_cut: bool = False) -> list[Delta]:
    parser = ToolCallParser(lambda: "call_1", custom_tools=("apply_patch",))
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return merged([*deltas, *parser.finish(is_cut=is_cut)])


@pytest.mark.parametrize(("name", "text", "expected"), CASES, ids=[case[0] for case in CASES])
def test_every_way_of_cutting_gives_the_same(name: str, text: str, expected: list[Delta]) -> None:
    assert expected == parse([text])
    assert expected == parse(list(text))
    for cut in range(1, len(text)):
        assert expected == parse([text[:cut], text[cut:]])


def test_a_call_is_announced_when_its_arguments_begin() -> None:
    parser = ToolCallParser(lambda: "call_1")
    assert parser.feed('<tool_call>{"name": "run", ') == []
    assert parser.feed('"arguments": {') == [STARTED, ToolCallDelta("{")]
    assert parser.feed('"cmd": "l') == [ToolCallDelta('"cmd": "l')]
    assert parser.feed('s"}}') == [ToolCallDelta('s"}'), DONE]
    assert parser.num_calls == 1


def test_a_cut_call_stays_open() -> None:
    text = '<tool_call>{"name": "run", "arguments": {"a": 1'
    assert parse([text], is_cut=True) == [STARTED, ToolCallDelta('{"a": 1')]


def test_a_template_may_have_opened_the_reasoning() -> None:
    parser = ToolCallParser(lambda: "call_1", is_thinking=True)
    assert merged(parser.feed("hm</think>so")) == [ReasoningDelta("hm"), TextDelta("so")]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet='<>/tol_cai{}":,\\u d8name rgumtsinpk\n[]1', max_size=60))
def test_any_text_gives_legal_deltas_and_loses_nothing_visible(text: str) -> None:
    deltas = parse(list("<tool_call>" + text))
    is_open = False
    for delta in deltas:
        if isinstance(delta, ToolCallStarted):
            assert not is_open
            is_open = True
        elif isinstance(delta, ToolCallDone):
            assert is_open
            is_open = False
        elif isinstance(delta, TextDelta | ReasoningDelta):
            assert not is_open
    assert not is_open


TWO_CALLS = '<tool_call>{"name":"run","arguments":{}}</tool_call>\n' * 2


@pytest.mark.parametrize("size", [1, 7, 200])
def test_what_follows_the_last_call_allowed_is_dropped(size: int) -> None:
    parser = ToolCallParser(lambda: "call_1", max_calls=1)
    text = "Hi " + TWO_CALLS + "bye"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    deltas = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    assert merged(deltas) == [TextDelta("Hi "), STARTED, ToolCallDelta("{}"), DONE]
    assert parser.is_full


def test_a_call_is_text_where_none_can_be_made() -> None:
    parser = ToolCallParser(lambda: "call_1", max_calls=0)
    deltas = [*parser.feed("<think>hm</think>" + TWO_CALLS), *parser.finish()]
    assert merged(deltas) == [ReasoningDelta("hm"), TextDelta(TWO_CALLS)]
    assert not parser.is_full
