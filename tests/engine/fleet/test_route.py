"""A response on its way: who is asked after whom, and what the client sees of it."""

import asyncio
import gc
import re
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.collecting import Answer, ask, request, start
from tests.engine.fleet.members import Backend, error, group, started, until
from tightloop.engine.fleet.route import MEMBER_FAULTS, Route
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Hold, Step, text_answer
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDone,
    ToolCallStarted,
)
from tightloop.trace.clock import ManualClock


def asked(name: str = "r", **fields: Any) -> GenerationRequest:
    return replace(request(name=name), model="m", **fields)


@pytest.mark.parametrize("code", sorted(MEMBER_FAULTS))
async def test_a_failure_before_the_first_delta_is_not_seen(code: str) -> None:
    """The next member answers; the end says who, why and what happened before."""
    a, b = Backend("a"), Backend("b", tier="bulk")
    a.says = [error(code)]
    fleet = await started(group("m", a, b))
    answer = await ask(fleet, asked())
    assert answer.text == "b"
    assert answer.finished.reason is FinishReason.STOP
    assert answer.finished.backend == "b"
    assert answer.finished.route_reason == (
        f"latency-first: b answers, because a failed: {code};"
        " a had been chosen: short answer, about 400 tokens: tier fast"
    )
    await fleet.close()


async def test_where_nobody_answers_the_reason_says_so() -> None:
    """With everyone who failed, and the one that had been chosen."""
    a, b = Backend("a"), Backend("b", tier="bulk")
    a.says, b.says = [error("upstream_error")], [error("upstream_timeout")]
    fleet = await started(group("m", a, b))
    answer = await ask(fleet, asked())
    assert answer.finished.route_reason == (
        "latency-first: nobody answers, because a failed: upstream_error; b failed: upstream_timeout;"
        " a had been chosen: short answer, about 400 tokens: tier fast"
    )
    await fleet.close()


async def test_a_word_of_a_host_s_own_is_followed_too() -> None:
    """It may mean anything: the next member is asked, and the breaker hears nothing of it."""
    a, b = Backend("a"), Backend("b", tier="bulk")
    a.says = [error("their_own_word")]
    fleet = await started(group("m", a, b))
    for number in range(5):
        assert (await ask(fleet, asked(f"r{number}", service_tier="priority"))).text == "b"
    assert a.num_asked == 5
    assert a.member.num_open == 0
    await fleet.close()


async def test_any_failure_can_ask_for_a_pause() -> None:
    """Hosts say how long to wait with a 503, too."""
    clock = ManualClock()
    a, b = Backend("a"), Backend("b", tier="bulk")
    a.says = [error("upstream_error", 30)]
    fleet = await started(group("m", a, b), clock=clock)
    assert (await ask(fleet, asked("1"))).text == "b"
    assert a.member.breaker.is_asked_to_wait(clock.now_ns())
    clock.advance_s(29)
    assert (await ask(fleet, asked("2", service_tier="priority"))).text == "b"
    assert a.num_asked == 1
    await fleet.close()


async def test_after_a_delta_nothing_is_asked_again() -> None:
    """A second answer could repeat tool calls."""
    a, b = Backend("a"), Backend("b")
    a.says = [TextDelta("half"), Hold(), error("upstream_error")]
    fleet = await started(group("m", a, b))
    answer = start(fleet, asked())
    await answer.first.wait()
    a.says[1].release.set()  # type: ignore[union-attr]
    assert (await answer.wait()).error_code == "upstream_error"
    assert answer.text == "half"
    assert b.num_asked == 0
    await fleet.close()


async def test_the_fault_of_a_request_is_told_at_once() -> None:
    """Another member would say the same, and the member that said it is well."""
    a, b = Backend("a"), Backend("b")
    a.says = [error("invalid_value")]
    fleet = await started(group("m", a, b))
    for _ in range(3):
        assert (await ask(fleet, asked())).finished.error_code == "invalid_value"
    assert b.num_asked == 0
    assert [s.is_available for s in fleet.standings()["m"]] == [True, True]
    await fleet.close()


async def test_a_limit_of_one_member_is_tried_at_the_next() -> None:
    """It is no failure. If nobody can do more, the client is told of the limit, whatever came after."""
    a, b = Backend("a"), Backend("b")
    a.says = [error("context_length_exceeded")]
    fleet = await started(group("m", a, b))
    for _ in range(3):
        assert (await ask(fleet, asked())).text == "b"
    assert fleet.standings()["m"][0].is_available
    b.says = [error("upstream_error")]
    finished = (await ask(fleet, asked())).finished
    assert finished.error_code == "context_length_exceeded"
    await fleet.close()


async def test_when_all_fail_the_last_error_names_the_others() -> None:
    a, b = Backend("a"), Backend("b")
    a.says, b.says = [error("upstream_error")], [error("upstream_timeout")]
    fleet = await started(group("m", a, b))
    finished = (await ask(fleet, asked())).finished
    assert finished.error_code == "upstream_timeout"
    assert finished.error_message == (
        "upstream_timeout happened (before it, a: upstream_error happened)"
    )
    await fleet.close()


async def test_an_engine_that_breaks_is_followed_too() -> None:
    """``submit`` must not raise, but what must not happen happens."""
    a, b = Backend("a"), Backend("b")
    a.raises = True
    fleet = await started(group("m", a, b))
    assert (await ask(fleet, asked())).text == "b"
    await fleet.close()


async def test_every_delta_passes_once_and_in_order() -> None:
    """Whatever the batches are."""
    a, hold = Backend("a"), Hold()
    a.says = [TextDelta("1"), TextDelta("2"), hold, TextDelta("3")]
    fleet = await started(group("m", a))
    answer = start(fleet, asked())
    await answer.first.wait()
    hold.release.set()
    await answer.wait()
    assert [[d.text for d in batch if isinstance(d, TextDelta)] for batch in answer.batches] == [
        ["1", "2"],
        ["3"],
    ]
    await fleet.close()


@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_cancelled_response_ends_where_it_is(is_begun: bool) -> None:
    """Nobody else is asked, and nobody is blamed."""
    a, b = Backend("a"), Backend("b")
    hold = Hold()
    a.says = [TextDelta("x"), hold] if is_begun else [hold]
    fleet = await started(group("m", a, b))
    answer = start(fleet, asked())
    await hold.reached.wait()
    assert answer.generation is not None
    answer.generation.cancel()
    assert (await answer.wait()).reason is FinishReason.CANCELLED
    assert b.num_asked == 0
    assert [s.num_open for s in fleet.standings()["m"]] == [0, 0]
    await fleet.close()


async def test_a_place_in_line() -> None:
    """Full members make one wait; who waits for nobody waits longest; a place that is free is taken."""
    a = Backend("a", max_open=1)
    fleet = await started(group("m", a))
    hold = a.hold()
    first = start(fleet, asked("1"))
    await hold.reached.wait()
    ends: list[str] = []

    def watched(name: str, **fields: Any) -> Answer:
        answer = Answer()

        def sink(batch: Sequence[Delta]) -> None:
            answer(batch)
            if isinstance(batch[-1], Finished):
                ends.append(name)

        answer.generation = fleet.submit(asked(name, **fields), sink)
        return answer

    unhurried = watched("unhurried", is_background=True)
    second, third = watched("second"), watched("third")
    assert third.generation is not None
    third.generation.cancel()
    assert (await third.wait()).reason is FinishReason.CANCELLED
    assert a.num_asked == 1
    a.says = None
    hold.release.set()
    for answer in (first, second, unhurried):
        assert (await answer.wait()).reason is FinishReason.STOP
    assert ends == ["third", "second", "unhurried"]
    assert fleet.standings()["m"][0].num_open == 0
    await fleet.close()


async def test_those_in_line_go_on_when_their_member_fails() -> None:
    """Its breaker opens while they wait, and the next member takes them all."""
    a, b = Backend("a", max_open=1), Backend("b", tier="bulk", max_open=1)
    fleet = await started(group("m", a, b))
    hold = Hold()
    a.says, b.says = [hold, error("upstream_error")], [hold, *text_answer("b")]
    answers = [start(fleet, asked(str(n))) for n in range(400)]
    await hold.reached.wait()
    hold.release.set()
    for answer in answers:
        assert (await answer.wait()).backend == "b"
    assert a.num_asked == 2  # the breaker opens after two
    await fleet.close()


async def test_waiting_counts_as_queue() -> None:
    """The timing begins when the response was asked for, not when its last member was."""
    a, b = Backend("a"), Backend("b")
    a.says = [error("upstream_error")]
    fleet = await started(group("m", a, b))
    route = fleet.submit(asked(), answer := Answer())
    timing = (await answer.wait()).timing
    assert isinstance(route, Route)
    assert timing is not None
    assert timing.submitted_ns == route.submitted_ns < timing.started_ns
    await fleet.close()


async def test_silence_is_a_failure_where_a_limit_is_set() -> None:
    """What the silent one says later is not heard; its place is free once it has ended."""
    a = Backend("a", first_token_timeout_s=0.001)
    b = Backend("b")
    hold = a.hold()
    fleet = await started(group("m", a, b))
    answer = await ask(fleet, asked())
    assert answer.text == "b"
    assert "a failed: upstream_timeout" in str(answer.finished.route_reason)
    assert hold.reached.is_set()
    await until(lambda: not fleet.standings()["m"][0].num_open)
    await fleet.close()


endings = st.sampled_from(
    [
        [error("upstream_error")],
        [error("rate_limit_exceeded", 5)],
        [error("context_length_exceeded")],
        [error("invalid_value")],
        [TextDelta("x"), error("upstream_error")],
        [TextDelta("x"), ToolCallStarted("c", "f"), ToolCallDone()],
        [],
    ]
)
steps = st.lists(
    st.tuples(
        st.lists(endings, min_size=3, max_size=3), st.integers(0, 20), st.booleans(), st.booleans()
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_whatever_members_do(script: list[tuple[list[list[Step]], int, bool, bool]]) -> None:
    """Each response has one end, deltas of one member only, and leaves no place taken.

    Who failed before it is named, nobody twice.
    """

    async def play() -> None:
        clock = ManualClock()
        backends = [Backend("a", max_open=1), Backend("b", tier="bulk"), Backend("c", max_open=2)]
        fleet = await started(group("m", *backends), clock=clock)
        answers: list[Answer] = []
        for number, (says, seconds, is_cancelled, is_awaited) in enumerate(script):
            for backend, steps_ in zip(backends, says, strict=True):
                backend.says = [*steps_]
            clock.advance_s(seconds)
            answers.append(answer := start(fleet, asked(str(number))))
            if is_cancelled and answer.generation is not None:
                answer.generation.cancel()
            if is_awaited:
                await answer.wait()
        for answer in answers:
            finished = await answer.wait()
            assert len([d for d in answer.deltas if isinstance(d, TextDelta)]) <= 1
            failed = re.findall(r"(\w) failed:", finished.route_reason or "")
            assert len(failed) == len(set(failed))
        assert [s.num_open for s in fleet.standings()["m"]] == [0, 0, 0]
        await fleet.close()

    asyncio.run(play())


async def test_a_route_that_is_over_is_gone() -> None:
    """Without the garbage collector, which would otherwise have a circle a response to find."""
    a, b = Backend("a"), Backend("b")
    a.says = [error("upstream_error")]
    fleet = await started(group("m", a, b))
    gc.disable()
    try:
        answer = start(fleet, asked())
        assert isinstance(answer.generation, Route)
        gone = weakref.ref(answer.generation)
        await answer.wait()
        answer.generation = None
        await asyncio.sleep(0)  # what the engine's task still holds
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
    await fleet.close()
