"""Several engines as one engine."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.collecting import Answer, ask, node_of, request, start
from tests.engine.fleet.members import (
    Backend,
    Pauses,
    Records,
    error,
    group,
    names,
    started,
    until,
)
from tightloop.engine.fleet.fleet import Fleet
from tightloop.engine.fleet.groups import ModelGroup
from tightloop.engine.fleet.member import Member, MemberSpec
from tightloop.engine.fleet.route import Route
from tightloop.engine.interface import EngineError, Generation, GenerationRequest, ModelInfo, Node
from tightloop.engine.scripted import Hold, ScriptedEngine, text_answer
from tightloop.protocol.deltas import Delta, Finished, FinishReason, TextDelta, Usage
from tightloop.trace.clock import ManualClock


def asked(name: str = "r", model: str = "m", **fields: Any) -> GenerationRequest:
    return replace(request(name=name), model=model, **fields)


async def test_models_side_by_side() -> None:
    """Each has its own engine; the engine hears the name that the client knows."""
    a, b = Backend("a"), Backend("b", model="n")
    fleet = await started(group("m", a), group("n", b))
    assert [model.name for model in fleet.models()] == ["m", "n"]
    assert (await ask(fleet, asked())).text == "a"
    assert (await ask(fleet, asked(model="n"))).text == "b"
    assert a.engines[0].requests[0].model == "m"
    await fleet.close()


async def test_a_model_with_several_backends_is_listed_once() -> None:
    """With the widest window: a member that is too small is passed over."""
    fleet = await started(group("m", Backend("a"), Backend("b", tier="bulk")))
    (info,) = fleet.models()
    assert (info.name, info.description) == ("m", "a (fast), b (bulk)")
    assert info.context_window == 1 << 20
    await fleet.close()


async def test_an_unknown_model_is_told_those_there_are() -> None:
    """In a later step of the loop, as engines refuse; counting says the same."""
    fleet = await started(group("m", Backend("a")), group("n", Backend("b")))
    answer = start(fleet, asked(model="x"))
    assert answer.batches == []
    finished = await answer.wait()
    assert finished.error_code == "model_not_found"
    assert finished.error_message == "unknown model 'x'; this server has m, n"
    with pytest.raises(EngineError, match="this server has m, n"):
        await fleet.count_input(asked(model="x"))
    await fleet.close()


async def test_tiers() -> None:
    """Short and awaited work goes to the fast tier, the rest to the other; the end names the tier."""
    fast, bulk = Backend("f"), Backend("b", tier="bulk")
    fleet = await started(group("m", fast, bulk))
    short = (await ask(fleet, asked("1"))).finished
    assert (short.backend, short.service_tier) == ("f", "priority")
    long = (await ask(fleet, asked("2", is_background=True))).finished
    assert (long.backend, long.service_tier) == ("b", "flex")
    await fleet.close()


@pytest.mark.parametrize(("tiers", "said"), [(["fast"], "default"), (["night", "x"], "default")])
async def test_tiers_that_the_api_has_no_word_for(tiers: list[str], said: str) -> None:
    """Nor is there one where a model has one tier only."""
    fleet = await started(group("m", *[Backend(f"b{n}", tier=t) for n, t in enumerate(tiers)]))
    assert (await ask(fleet, asked())).finished.service_tier == said
    await fleet.close()


class Host(ScriptedEngine):
    """Serves two models under their own names."""

    def models(self) -> list[ModelInfo]:
        return [ModelInfo("x"), ModelInfo("y")]


async def test_an_engine_with_many_models_keeps_their_names() -> None:
    """They are listed among the others and go where they belong; the group's own name is none."""
    host = Host(lambda request: text_answer(request.model))
    member = Member(MemberSpec("host", keeps_names=True), lambda: host)
    fleet = await started(ModelGroup("host", [member]), group("x", Backend("a")))
    assert [model.name for model in fleet.models()] == ["x", "y"]
    assert (await ask(fleet, asked("1", model="y"))).text == "y"
    assert (await ask(fleet, asked("2", model="x"))).text == "a"
    assert (await ask(fleet, asked("3", model="host"))).finished.error_code == "model_not_found"
    assert await fleet.count_input(asked("4", model="y")) > 0
    await fleet.close()


async def test_a_conversation_stays_where_it_is_warm() -> None:
    """Also when its next turn alone would go elsewhere; counting asks there, too."""
    fast, bulk = Backend("f"), Backend("b", tier="bulk")
    fleet = await started(group("m", fast, bulk))
    first = asked("1", is_background=True)
    node = node_of(first, await ask(fleet, first))
    second = asked("2", parent=node)
    assert (await ask(fleet, second)).text == "b"
    assert await fleet.count_input(second) > 0
    await fleet.close()


async def test_long_answers_teach_the_session() -> None:
    """The average is the session's own: another one is not affected."""
    backend = Backend("a")
    end = Finished(FinishReason.STOP, Usage(output_tokens=50_000))
    backend.says = [*text_answer("a"), end]
    fleet = await started(group("m", backend))
    for name, key, expected in [("1", "k", 400), ("2", "k", 50_000), ("3", "other", 400)]:
        route = fleet.submit(asked(name, cache_key=key), answer := Answer())
        await answer.wait()
        assert isinstance(route, Route)
        assert route.decision.expected_output == expected
    await fleet.close()


async def test_a_hint_goes_where_the_conversation_will_be() -> None:
    """It takes no place, says nothing about health, and is in no log; what follows it stays there."""
    records = Records()
    a, b = Backend("a", max_open=1), Backend("b", tier="bulk")
    a.says = [error("upstream_error")]
    fleet = await started(group("m", a, b), recorder=records)
    hint = asked("p", generate=False, is_background=True)
    assert (await ask(fleet, hint)).finished.reason is FinishReason.STOP
    assert names([a, b]) == [0, 1]
    assert records.ends == []
    node = Node("p", None, hint.items)
    assert (await ask(fleet, asked("1", parent=node))).text == "b"
    piece = asked("x", generate=False, is_open=True, cache_key="k", is_background=True)
    await ask(fleet, piece)
    assert (await ask(fleet, asked("2", cache_key="k"))).text == "b"
    await fleet.close()


async def test_a_hint_that_nobody_can_take_is_over_at_once() -> None:
    """It is no error: a hint changes no result."""
    clock = ManualClock()
    a = Backend("a")
    a.says = [error("rate_limit_exceeded", 30)]
    fleet = await started(group("m", a), clock=clock)
    await ask(fleet, asked("1"))
    answer = start(fleet, asked("p", generate=False))
    assert answer.generation is not None
    answer.generation.cancel()
    assert (await answer.wait()).reason is FinishReason.STOP
    assert a.num_asked == 1
    await fleet.close()


async def test_our_own_words_for_tiers_stay_here() -> None:
    """Hosts refuse a ``service_tier`` that they do not know; those of the API are passed on."""
    backend = Backend("a", tier="night")
    fleet = await started(group("m", backend))
    for word in ("night", "flex"):
        await ask(fleet, asked(word, service_tier=word))
    assert [r.service_tier for r in backend.engines[0].requests] == [None, "flex"]
    await fleet.close()


async def test_a_request_may_name_its_policy_where_that_is_allowed() -> None:
    """Elsewhere its wish is not heard; a policy that there is not is its fault."""
    fleet = await started(group("m", Backend("a"), Backend("b")), takes_policies=True)
    assert (await ask(fleet, asked("1", tier_policy="only:b"))).text == "b"
    for policy, words in [("only:x", "choose from a, b"), ("best", "choose one of")]:
        finished = (await ask(fleet, asked("2", tier_policy=policy))).finished
        assert finished.error_code == "invalid_value"
        assert words in str(finished.error_message)
    deaf = await started(group("m", Backend("a"), Backend("b")))
    assert (await ask(deaf, asked("1", tier_policy="only:b"))).text == "a"
    await fleet.close()
    await deaf.close()


# ---------------------------------------------------------------------- health


async def test_what_keeps_failing_is_left_alone_and_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After the pause one request is the probe; when it is answered, all go there again.

    Whoever runs the server reads of both.
    """
    clock = ManualClock()
    a, b = Backend("a"), Backend("b", tier="bulk")
    a.says = [error("upstream_error")]
    fleet = await started(group("m", a, b), clock=clock)
    for n in range(5):
        assert (await ask(fleet, asked(str(n)))).text == "b"
    assert names([a, b]) == [2, 5]
    clock.advance_s(10)
    a.says = None
    assert (await ask(fleet, asked("x"))).text == "a"
    assert (await ask(fleet, asked("y"))).text == "a"
    assert [record.getMessage() for record in caplog.records] == [
        "a is left alone for 10.0 s: upstream_error happened",
        "a answers again",
    ]
    await fleet.close()


async def test_the_only_member_is_asked_even_when_it_is_down() -> None:
    """A refusal helps nobody; an answer closes the breaker."""
    a = Backend("a")
    a.says = [error("upstream_error")]
    fleet = await started(group("m", a), clock=ManualClock())
    for n in range(4):
        assert (await ask(fleet, asked(str(n)))).finished.error_code == "upstream_error"
    assert a.num_asked == 4
    assert not fleet.standings()["m"][0].is_available
    a.says = None
    assert (await ask(fleet, asked("x"))).text == "a"
    assert fleet.standings()["m"][0].is_available
    await fleet.close()


async def test_a_pause_that_was_asked_for_is_kept() -> None:
    """With the seconds, in words that clients read; who may be asked is asked meanwhile."""
    clock = ManualClock()
    a, b = Backend("a"), Backend("b")
    a.says, b.says = [error("rate_limit_exceeded", 30)], [error("rate_limit_exceeded", 20)]
    fleet = await started(group("m", a, b), clock=clock)
    await ask(fleet, asked("1"))
    finished = (await ask(fleet, asked("2"))).finished
    assert finished.error_code == "rate_limit_exceeded"
    assert "try again in 20s" in str(finished.error_message)
    assert names([a, b]) == [1, 1]
    clock.advance_s(20)
    b.says = None
    assert (await ask(fleet, asked("3"))).text == "b"
    await fleet.close()


# ---------------------------------------------------------------------- start and end


async def test_one_member_that_works_is_enough_to_start() -> None:
    """The other one is tried again, with longer and longer pauses, and joins when it works."""
    a, b, pauses = Backend("a"), Backend("b"), Pauses()
    a.start_errors = ["no file", "no file", "no file"]
    fleet = await started(group("m", a, b), sleep=pauses)
    assert (await ask(fleet, asked("1"))).text == "b"
    for _ in range(3):
        await pauses.go_on()
    await until(lambda: a.member.engine is not None)
    assert pauses.asked == [1, 2, 4]
    assert (await ask(fleet, asked("2"))).text == "a"
    await fleet.close()


async def test_a_model_without_a_backend_is_named_with_the_reasons() -> None:
    """Each backend's own; models that work are not mentioned. What had started is closed."""
    a, b, c = Backend("a"), Backend("b"), Backend("c")
    a.start_errors, b.start_errors = ["no such file"], ["too large"]
    fleet = Fleet([group("m", a, b), group("n", c)])
    with pytest.raises(EngineError) as caught:
        await fleet.start()
    assert str(caught.value) == "no backend of 'm' works: a: no such file; b: too large"
    await fleet.close()


async def test_closing_ends_everything() -> None:
    """What runs, what waits in line, what waits to be started; twice is once."""
    records, pauses = Records(), Pauses()
    a, b = Backend("a", max_open=1), Backend("b", tier="bulk")
    b.start_errors = ["no file"]
    fleet = await started(group("m", a, b), recorder=records, sleep=pauses)
    hold = a.hold()
    answers = [start(fleet, asked(str(n))) for n in range(3)]
    await hold.reached.wait()
    await fleet.close()
    ends = [(await answer.wait()).reason for answer in answers]
    assert ends == [FinishReason.CANCELLED] * 3
    assert records.is_closed
    late = (await ask(fleet, asked("late"))).finished
    assert late.error_code == "engine_unavailable"
    await fleet.close()


async def test_the_recorder_hears_of_every_response_once() -> None:
    """Also of those that nobody answered."""
    records = Records()
    a = Backend("a")
    fleet = await started(group("m", a), recorder=records)
    await ask(fleet, asked("1"))
    a.says = [error("invalid_value")]
    await ask(fleet, asked("2"))
    ends: list[Finished] = records.ends
    assert [finished.error_code for finished in ends] == [None, "invalid_value"]
    assert records.routes == []  # each said all it had in its last batch
    hold = Hold()
    a.says = [TextDelta("x"), hold]
    answer = start(fleet, asked("3"))
    await answer.first.wait()
    assert [route.request.response_id for route in records.routes] == ["3"]
    hold.release.set()
    await answer.wait()
    await fleet.close()


# ---------------------------------------------------------------------- everything at once

FAULTS = (
    "upstream_error",
    "rate_limit_exceeded",
    "context_length_exceeded",
    "odd",
    "invalid_value",
)
POLICIES = ("latency-first", "throughput-first", "cheapest", "split:fast=1,bulk=1")


class _Storm:
    """Members that fail, wait and answer as ``chance`` has it, and requests that come and go."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.clock = ManualClock()
        tiers = {"a": "fast", "b": "bulk", "c": "fast"}
        self.members = [
            Backend(name, tier=tier, max_open=chance.randrange(3)) for name, tier in tiers.items()
        ]
        self.holds: list[Hold] = []
        self.handles: list[Generation] = []
        self.said: list[list[Delta]] = []

    def change(self, member: Backend) -> None:
        chance, hold = self.chance, Hold()
        words = text_answer(member.member.name)
        fault = error(chance.choice(FAULTS), chance.choice([None, 0.0, 5.0]))
        member.says = chance.choice([None, [fault], [hold, *words], [words[0], hold, *words[1:]]])
        member.raises = chance.random() < 0.1
        self.holds.append(hold)

    def step(self, fleet: Fleet) -> None:
        chance = self.chance
        match chance.randrange(6):
            case 0 | 1 | 2:
                for member in self.members:
                    self.change(member)
                said: list[Delta] = []
                asked_for = asked(
                    f"r{len(self.said)}",
                    is_background=chance.random() < 0.3,
                    generate=chance.random() < 0.9,
                )
                self.said.append(said)
                self.handles.append(fleet.submit(asked_for, said.extend))
            case 3 if self.handles:
                chance.choice(self.handles).cancel()
            case 4 if self.holds:
                chance.choice(self.holds).release.set()
            case _:
                self.clock.advance_s(chance.choice([1, 10, 100]))


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_every_response_ends_once_whatever_happens(chance: random.Random, is_calm: bool) -> None:
    """Also those cancelled or closed at any moment; and then every place and probe is free again."""

    async def run() -> None:
        storm = _Storm(chance)
        models = group("m", *storm.members, policy=chance.choice(POLICIES))
        fleet = await started(models, clock=storm.clock)
        for _ in range(30):
            storm.step(fleet)
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        if is_calm:
            for handle in storm.handles:
                handle.cancel()
            await until(lambda: all(m.member.num_open == 0 for m in storm.members))
            assert [m.member.num_waiting for m in storm.members] == [0, 0, 0]
            storm.clock.advance_s(1000)
            now_ns = storm.clock.now_ns()
            assert all(m.member.breaker.is_admitting(now_ns) for m in storm.members)
        await fleet.close()
        await until(lambda: all(said and isinstance(said[-1], Finished) for said in storm.said))
        for said in storm.said:
            assert sum(isinstance(delta, Finished) for delta in said) == 1

    asyncio.run(run())
