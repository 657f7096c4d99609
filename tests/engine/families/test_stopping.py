"""A stop string ends the text, and only the text."""

from hypothesis import given
from hypothesis import strategies as st

from tightloop.engine.families.stopping import StopWatch
from tightloop.protocol.deltas import (
    Delta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)

CALL: list[Delta] = [ToolCallStarted("c", "run"), ToolCallDelta('{"a": "END"}'), ToolCallDone()]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


@given(st.text("END x", max_size=20), st.lists(st.integers(1, 3), max_size=20))
def test_text_up_to_the_stop_string_however_it_is_cut(text: str, sizes: list[int]) -> None:
    watch = StopWatch(("END",))
    passed: list[Delta] = []
    rest = text
    for size in [*sizes, len(text)]:
        passed += watch.feed([TextDelta(rest[:size])] if rest else [])
        rest = rest[size:]
    passed += watch.finish()
    assert text_of(passed) == text.split("END")[0]
    assert watch.is_stopped == ("END" in text)
    assert watch.stopped_by == ("END" if "END" in text else None)
    assert all(delta.text for delta in passed if isinstance(delta, TextDelta))


def test_calls_and_reasoning_may_hold_one() -> None:
    watch = StopWatch(("END", ""))
    deltas = [ReasoningDelta("the END"), TextDelta("an EN"), *CALL, TextDelta("D")]
    passed = watch.feed(deltas)
    assert passed[:3] == [deltas[0], TextDelta("an "), TextDelta("EN")]
    assert passed[3:] == [*CALL, TextDelta("D")]
    assert watch.finish() == []
    assert watch.num_calls == 1


def test_nothing_follows_it() -> None:
    watch = StopWatch(("END",))
    assert watch.feed([TextDelta("a END b"), *CALL]) == [TextDelta("a ")]
    assert watch.feed(CALL) == []
    assert watch.num_calls == 0


def test_it_is_not_needed_without_stop_strings() -> None:
    assert not StopWatch(()).is_needed
    assert not StopWatch(("",)).is_needed
    assert StopWatch(("x",)).is_needed
