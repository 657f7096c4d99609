"""What is waited for, for how long, and what a turn makes of refusals and broken answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.cutting import Waits, is_whole
from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.events import Event, Retrying, TurnCompleted
from tightloop.agent.loop import Agent
from tightloop.agent.resilience import Patience, Remedy, Stalled, Trouble, trouble_of
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.turn import Limits, Status
from tightloop.client.scripted import Reply, ScriptedTransport, call_reply, text_reply
from tightloop.client.session import Session
from tightloop.client.transport import TransportError
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.protocol.items import FunctionCallOutput, Message
from tightloop.sandbox.interface import Command, CommandResult
from tightloop.trace.clock import ManualClock

WAIT = Trouble(Remedy.WAIT, "busy")


@pytest.mark.parametrize(
    ("failure", "remedy", "retry_after_s"),
    [
        (TransportError("gone"), Remedy.WAIT, None),
        (Stalled("no event for 300 s"), Remedy.WAIT, None),
        (RemoteProtocolError("twice"), Remedy.WAIT, None),
        (ApiError("slow down", status=429, retry_after_s=3.0), Remedy.WAIT, 3.0),
        (ApiError("slow down", status=429), Remedy.WAIT, None),
        (ApiError("Please try again in 2.5s.", status=429), Remedy.WAIT, 2.5),
        (ApiError("try again in 250ms", status=500, code="rate_limit_exceeded"), Remedy.WAIT, 0.25),
        (ApiError("Try again in 2 m", status=429), Remedy.WAIT, 120.0),
        (ApiError("broken", status=502), Remedy.WAIT, None),
        (ApiError("busy", status=503, code="server_is_overloaded"), Remedy.WAIT, None),
        (ApiError("locked", status=409, code="conversation_locked"), Remedy.WAIT, None),
        (ApiError("no", status=400), Remedy.NOTHING, None),
        (ApiError("no key", status=401), Remedy.NOTHING, None),
        (ApiError("unknown model", status=404, code="model_not_found"), Remedy.NOTHING, None),
        (ApiError("paid up?", status=429, code="insufficient_quota"), Remedy.NOTHING, None),
        (ApiError("paid up?", status=429, error_type="insufficient_quota"), Remedy.NOTHING, None),
        (ApiError("no JSON", status=500, code="unsupported_parameter"), Remedy.NOTHING, None),
        (ApiError("bad grammar", status=500, code="invalid_grammar"), Remedy.NOTHING, None),
        (ApiError("x", status=500, code="context_length_exceeded"), Remedy.SHORTEN, None),
        (
            ApiError("This model's maximum context length is 8192 tokens.", status=400),
            Remedy.SHORTEN,
            None,
        ),
        (ApiError("prompt is too long: 210000 tokens", status=400), Remedy.SHORTEN, None),
        (
            ApiError("the request exceeds the available context size, try increasing it"),
            Remedy.SHORTEN,
            None,
        ),
    ],
)
def test_what_helps(failure: Any, remedy: Remedy, retry_after_s: float | None) -> None:
    trouble = trouble_of(failure)
    assert (trouble.remedy, trouble.retry_after_s) == (remedy, retry_after_s)
    assert trouble.reason


@given(st.integers(1, 20), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 5000)))
def test_pauses_are_bounded(attempt: int, chance: float, asked_s: float | None) -> None:
    """They end, are never shorter than the server asked for, and never longer than was said."""
    patience = Patience(chance=lambda: chance)
    pause_s = patience.pause_s(attempt, Trouble(Remedy.WAIT, "busy", asked_s))
    if attempt > patience.max_tries or (asked_s or 0) > patience.max_retry_after_s:
        assert pause_s is None
    elif asked_s is not None:
        assert pause_s is not None
        assert asked_s <= pause_s <= asked_s + 1
    else:
        assert pause_s is not None
        assert patience.first_s / 2 <= pause_s <= patience.longest_s


def test_pauses_grow() -> None:
    patience = Patience(chance=lambda: 1.0)
    pauses = [patience.pause_s(n, WAIT) for n in range(1, 10)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, None]


def test_what_cannot_pass_is_not_waited_for() -> None:
    assert Patience().pause_s(1, Trouble(Remedy.NOTHING, "no")) is None
    assert Patience().gave_up(0, Trouble(Remedy.NOTHING, "no")) == ""


class Doing(Recorded):
    """A sandbox in which something happens while a command runs."""

    do: Callable[[], Awaitable[None]] | None = None

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        if self.do is not None:
            await self.do()
        return await super().run(command, on_output)


class Play:
    """An agent on a scripted transport."""

    def __init__(
        self, replies: Sequence[Reply], limits: Limits | None = None, max_tries: int = 8
    ) -> None:
        self.clock = ManualClock()
        self.waits = Waits(max_tries=max_tries)
        self.waits.on_wait = lambda: self.clock.advance_s(self.waits.lengths_s[-1])
        self.transport = ScriptedTransport(replies)
        self.heard: list[Event] = []
        self.sandbox = Doing()
        tool = ExecCommand()
        self.session = Session(
            self.transport, model="scripted", tools=[tool.definition()], clock=self.clock
        )
        used = limits or Limits()
        self.agent = Agent(
            self.session,
            [tool],
            ToolContext(Path("/ws"), self.sandbox, clock=self.clock),
            limits=Limits(
                max_turns=used.max_turns, wall_s=used.wall_s, patience=self.waits.patience()
            ),
            listener=self.heard.append,
        )

    def retries(self) -> list[Retrying]:
        return [event for event in self.heard if isinstance(event, Retrying)]


RATE = ApiError("slow down", status=429, retry_after_s=20.0)
BROKEN = Finished(FinishReason.ERROR, Usage(), None, "server_error", "engine died")


async def test_a_rate_limit_is_waited_for_and_shown() -> None:
    """As long as the server asks; the time is a part of its own in the ledger."""
    play = Play([RATE, RATE, text_reply("ok")])
    result = await play.agent.run_turn("go")
    assert (result.status, result.text, result.num_retries) == (Status.COMPLETED, "ok", 2)
    assert play.waits.lengths_s == [20.5, 20.5]
    first = play.retries()[0]
    assert (first.reason, first.wait_s, first.attempt) == ("rate limit: slow down", 20.5, 1)
    closing = result.events[-1]
    assert isinstance(closing, TurnCompleted)
    assert closing.tightloop is not None
    assert closing.tightloop.num_retries == 2
    assert closing.tightloop.lost_s == pytest.approx(41.0)
    assert closing.tightloop.ledger is not None
    assert closing.tightloop.ledger["waiting"] == pytest.approx(41.0)
    assert len([1 for item in play.agent.items if isinstance(item, Message)]) == 2


async def test_a_failed_response_is_asked_for_again() -> None:
    """Also one that failed in the middle; what it said is not part of the conversation."""
    play = Play([[TextDelta("half"), BROKEN], text_reply("ok")])
    result = await play.agent.run_turn("go")
    assert (result.text, result.num_retries) == ("ok", 1)
    assert [item.text for item in play.agent.items if isinstance(item, Message)] == ["go", "ok"]


async def test_a_response_that_fails_after_its_call_goes_on_behind_it() -> None:
    """The call was made: it stays, with its output, and is not made again."""
    play = Play([[*call_reply("exec_command", {"cmd": "make"}), BROKEN], text_reply("ok")])
    result = await play.agent.run_turn("go")
    assert (result.text, len(play.sandbox.commands)) == ("ok", 1)
    kinds = [item["type"] for item in play.transport.requests[1]["input"]]
    assert kinds == ["message", "function_call", "function_call_output"]
    assert is_whole(play.agent.items)


async def test_a_call_that_comes_again_word_for_word_is_answered_not_made() -> None:
    """A gateway that replays its answer, id and all."""
    call = call_reply("exec_command", {"cmd": "make"})
    play = Play([[*call, BROKEN], call, call, text_reply("ok")])
    result = await play.agent.run_turn("go")
    assert result.text == "ok"
    assert len(play.sandbox.commands) == 2, "once lost, once as a new wish of the model"
    outputs = [item for item in play.agent.items if isinstance(item, FunctionCallOutput)]
    assert len(outputs) == 3
    assert is_whole(play.agent.items)


async def test_it_ends_with_the_reason_and_how_often_it_was_tried() -> None:
    play = Play([ApiError("broken", status=503)] * 9, max_tries=3)
    result = await play.agent.run_turn("go")
    assert result.status is Status.FAILED
    assert result.message == "broken (given up after 3 tries)"
    assert not result.is_refused_at_once
    assert len(play.transport.requests) == 4


async def test_nobody_waits_longer_than_the_turn_may_last() -> None:
    play = Play([RATE, text_reply("late")], Limits(wall_s=10))
    result = await play.agent.run_turn("go")
    assert result.message == "slow down (20 s to wait, 10 s left for the turn)"
    assert not play.waits.lengths_s
    again = await play.agent.run_turn("and now")
    assert again.text == "late"


async def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    play = Play([ApiError("slow down", status=429, retry_after_s=3600.0)])
    result = await play.agent.run_turn("go")
    assert "3600 s" in result.message
    assert not play.waits.lengths_s


async def test_a_wait_can_be_interrupted() -> None:
    """Nothing is lost: the message goes out with the next turn."""
    play = Play([RATE, text_reply("ok")])
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    play.agent._repeats._patience = Patience(sleep=sleep)
    turn = asyncio.create_task(play.agent.run_turn("first"))
    await waiting.wait()
    play.agent.steer("while it waits")
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert (await play.agent.run_turn("second")).text == "ok"
    texts = [item.text for item in play.agent.items if isinstance(item, Message)]
    assert texts == ["first", "while it waits", "second", "ok"]


async def test_a_steer_of_a_pause_goes_out_with_what_is_asked_again() -> None:
    play = Play([RATE, text_reply("ok")])
    play.waits.on_wait = lambda: (play.agent.steer("be quick"), None)[1]
    await play.agent.run_turn("go")
    texts = [item["content"][0]["text"] for item in play.transport.requests[1]["input"]]
    assert texts == ["go", "be quick"]


CUT = Finished(FinishReason.LENGTH, Usage())


async def test_a_response_cut_at_its_length_limit_goes_on() -> None:
    play = Play([[TextDelta("a long"), CUT], text_reply("story")])
    result = await play.agent.run_turn("go")
    assert (result.status, result.text) == (Status.COMPLETED, "story")
    asked = play.transport.requests[1]["input"][0]["content"][0]["text"]
    assert "cut off (max_output_tokens)" in asked


async def test_a_model_that_never_ends_is_not_asked_for_ever() -> None:
    play = Play([[TextDelta("la"), CUT]] * 50)
    result = await play.agent.run_turn("go")
    assert result.status is Status.FAILED
    assert "max_output_tokens" in result.message
    assert len(play.transport.requests) == 5


async def test_a_tool_with_a_fault_of_its_own_ends_its_call_only() -> None:
    play = Play([call_reply("exec_command", {"cmd": "make"}), text_reply("ok")])

    async def fail() -> None:
        raise ZeroDivisionError("oops")

    play.sandbox.do = fail
    result = await play.agent.run_turn("go")
    assert result.text == "ok"
    (output,) = [item for item in play.agent.items if isinstance(item, FunctionCallOutput)]
    assert "internal error: ZeroDivisionError: oops" in output.output


async def test_a_second_cancel_leaves_no_turn_running() -> None:
    """Cancelled while it is being ended: the agent can go on."""
    play = Play([text_reply("ok"), text_reply("again")])
    ending = asyncio.Event()

    class Slow:
        async def finish_turn(self) -> list[Any]:
            ending.set()
            await asyncio.Event().wait()
            return []

    overseer = play.agent._overseer
    overseer.finish_turn = Slow().finish_turn  # type: ignore[method-assign]
    turn = asyncio.create_task(play.agent.run_turn("go"))
    await ending.wait()
    steer = play.agent.steer("late")
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert not play.agent.is_running
    assert steer.state == "deferred"
    assert play.agent.last_result is not None
    del overseer.finish_turn
    assert (await play.agent.run_turn("more")).text == "again"


async def test_a_steer_while_success_is_checked_goes_on_with_the_turn() -> None:
    """A turn does not end while one waits, however late it came."""
    play = Play([text_reply("done"), text_reply("that too")])
    overseer, asked = play.agent._overseer, list[int]()

    async def objections() -> list[str] | None:
        if not asked:
            play.agent.steer("and that")
        asked.append(1)
        return None

    overseer.objections = objections  # type: ignore[method-assign]
    result = await play.agent.run_turn("go")
    assert (result.text, len(asked)) == ("that too", 2)


async def test_items_are_listed_once_while_a_tool_still_runs() -> None:
    """Also when the session has taken the response in and the next request is not made yet."""
    play = Play([call_reply("exec_command", {"cmd": "make"}), text_reply("ok")])
    seen: list[list[str]] = []

    async def look() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        seen.append([type(item).__name__ for item in play.agent.items])

    play.sandbox.do = look
    await play.agent.run_turn("go")
    assert seen == [["Message", "FunctionCall"]]


async def test_what_is_told_while_a_turn_runs_goes_out_with_its_next_request() -> None:
    play = Play([call_reply("exec_command", {"cmd": "make"}), text_reply("ok")])
    play.agent.tell("before")

    async def tell() -> None:
        play.agent.tell("meanwhile")

    play.sandbox.do = tell
    await play.agent.run_turn("go")
    texts = [item.text for item in play.agent.items if isinstance(item, Message)]
    assert texts == ["before", "go", "meanwhile", "ok"]
