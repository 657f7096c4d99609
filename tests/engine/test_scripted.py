"""The scripted engine keeps the whole contract of an engine."""

import asyncio

from tests.engine.collecting import ask, request, start
from tightloop.engine.scripted import Hold, ScriptedEngine, call_answer, in_turn, text_answer
from tightloop.protocol.deltas import (
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.trace.clock import ManualClock


async def test_input_is_counted_where_somebody_looks_at_usage() -> None:
    """As a server does; the same estimate as counting without an answer."""
    engine, asked = ScriptedEngine(counts_input=True), request("hello there")
    answer = await ask(engine, asked)
    assert await engine.count_input(asked) == answer.finished.usage.input_tokens > 0
    await engine.close()


async def test_echo_repeats_the_last_user_message() -> None:
    engine = ScriptedEngine()
    await engine.start()
    answer = await ask(engine, request("hello there"))
    assert answer.text == "echo: hello there"
    assert answer.finished.reason is FinishReason.STOP
    assert answer.finished.usage == Usage(output_tokens=3)
    assert len(answer.batches) == 1
    assert engine.models()[0].name == "scripted"


async def test_answers_in_turn_and_then_the_end_of_the_script() -> None:
    engine = ScriptedEngine(in_turn([call_answer("run", {"cmd": "ls"}), call_answer("p", "text")]))
    first, second, third = [await ask(engine, request()) for _ in range(3)]
    assert first.deltas[:4] == [
        ToolCallStarted("call_1", "run", False),
        ToolCallDelta('{"cmd"'),
        ToolCallDelta(':"ls"}'),
        ToolCallDone(),
    ]
    assert first.finished.reason is FinishReason.TOOL_CALLS
    assert second.deltas[0] == ToolCallStarted("call_1", "p", True)
    assert second.calls == [("p", "text")]
    assert third.text == "(the script has ended)"
    assert len(engine.requests) == 3


async def test_a_hold_waits_and_splits_the_batch() -> None:
    hold = Hold()
    engine = ScriptedEngine(lambda _: [TextDelta("a"), hold, TextDelta("b")])
    answer = start(engine, request())
    await hold.reached.wait()
    assert answer.deltas == [TextDelta("a")]
    hold.release.set()
    await answer.wait()
    assert answer.text == "ab"


async def test_cancel_at_a_hold_and_close_of_the_engine() -> None:
    holds = [Hold(), Hold()]
    engine = ScriptedEngine(in_turn([[TextDelta("a"), hold] for hold in holds]))
    first, second = start(engine, request()), start(engine, request())
    for hold in holds:
        await hold.reached.wait()
    assert first.generation is not None
    first.generation.cancel()
    assert (await first.wait()).reason is FinishReason.CANCELLED
    await engine.close()
    assert second.finished.reason is FinishReason.CANCELLED
    await engine.close()


async def test_cancel_before_the_first_step_still_ends_once() -> None:
    engine = ScriptedEngine()
    answer = start(engine, request())
    assert answer.generation is not None
    answer.generation.cancel()
    answer.generation.cancel()
    assert (await answer.wait()).reason is FinishReason.CANCELLED
    await asyncio.sleep(0)
    assert len(answer.deltas) == 1


async def test_a_scripted_end_is_passed_on_as_it_is() -> None:
    end = Finished(FinishReason.ERROR, Usage(), None, "boom", "it broke")
    engine = ScriptedEngine(lambda _: [*text_answer("a b"), end])
    answer = await ask(engine, request())
    assert answer.finished is end
    assert answer.text == "a b"


async def test_a_prewarm_says_nothing() -> None:
    answer = await ask(ScriptedEngine(), request(generate=False))
    assert len(answer.deltas) == 1


async def test_marks_come_from_the_clock_given() -> None:
    clock = ManualClock(5)
    answer = await ask(ScriptedEngine(clock=clock), request())
    assert answer.finished.timing is not None
    assert answer.finished.timing.submitted_ns == 5
    assert answer.finished.timing.first_delta_ns == 5
