"""Messages for a running turn: delivered with the next request, never lost, never twice."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.agent.stage import Plain, Stage, stage
from tightloop.agent.events import AgentMessage, Event, ItemCompleted, ItemUpdated, Steered
from tightloop.agent.resilience import Patience
from tightloop.agent.turn import Limits, Status
from tightloop.client.in_memory import InMemoryTransport
from tightloop.engine.scripted import Answer, Hold, call_answer, text_answer
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.protocol.items import Message


def said_by_user(s: Stage) -> list[str]:
    """The user's messages that the model knows, in order."""
    return [
        item.text for item in s.agent.items if isinstance(item, Message) and item.role == "user"
    ]


def states(s: Stage) -> list[tuple[str, int | None]]:
    """What was said of steers."""
    return [(event.state, event.step) for event in s.heard if isinstance(event, Steered)]


def is_text(event: Event) -> bool:
    return isinstance(event, ItemUpdated) and event.text_delta is not None


async def test_a_steer_goes_out_with_the_next_request_behind_the_outputs(tmp_path: Path) -> None:
    hold = Hold()
    script: list[Answer] = [
        [*call_answer("exec_command", {"cmd": "echo one"}, "call_1"), hold],
        text_answer("both done"),
    ]
    async with stage(tmp_path, script) as s:
        turn = asyncio.create_task(s.agent.run_turn("first"))
        await s.until_heard(lambda event: isinstance(event, ItemCompleted))
        steer = s.agent.steer("second")
        hold.release.set()
        assert (await turn).text == "both done"
        kinds = [type(item).__name__ for item in s.engine.requests[1].items]
        assert kinds == ["FunctionCallOutput", "Message"]
        assert states(s) == [("accepted", None), ("delivered", 2)]
        assert (steer.state, said_by_user(s)) == ("delivered", ["first", "second"])
        assert not s.agent.withdraw(steer)


async def test_a_turn_does_not_end_while_a_steer_waits(tmp_path: Path) -> None:
    hold = Hold()
    script: list[Answer] = [
        [TextDelta("one"), hold, Finished(FinishReason.STOP, Usage(1, 0, 1))],
        text_answer("two"),
    ]
    async with stage(tmp_path, script) as s:
        turn = asyncio.create_task(s.agent.run_turn("first"))
        await s.until_heard(is_text)
        s.agent.steer("and this")
        hold.release.set()
        result = await turn
        texts = [
            event.item.text
            for event in s.heard
            if isinstance(event, ItemCompleted) and isinstance(event.item, AgentMessage)
        ]
        assert (result.status, texts) == (Status.COMPLETED, ["one", "two"])


@pytest.mark.parametrize("transport", [InMemoryTransport, Plain])
async def test_at_once_ends_a_response_without_calls(
    tmp_path: Path, transport: type[InMemoryTransport]
) -> None:
    """Also where a server cannot end a response: then it is dropped. The message is sent once."""
    hold = Hold()
    script: list[Answer] = [
        [TextDelta("on the wrong "), hold, TextDelta("track")],
        text_answer("ok"),
    ]
    async with stage(tmp_path, script, transport=transport) as s:
        turn = asyncio.create_task(s.agent.run_turn("first"))
        await s.until_heard(is_text)
        s.agent.steer("not that", now=True)
        if transport is Plain:
            hold.release.set()
        result = await turn
        assert (result.text, result.status) == ("ok", Status.COMPLETED)
        assert said_by_user(s) == ["first", "not that"]


async def test_at_once_waits_for_a_call(tmp_path: Path) -> None:
    """What has begun to act is not ended."""
    hold = Hold()
    script: list[Answer] = [
        [*call_answer("exec_command", {"cmd": "echo one"}, "call_1"), hold, TextDelta("later")],
        text_answer("ok"),
    ]
    async with stage(tmp_path, script) as s:
        turn = asyncio.create_task(s.agent.run_turn("first"))
        await s.until_heard(lambda event: isinstance(event, ItemCompleted))
        s.agent.steer("more", now=True)
        hold.release.set()
        assert (await turn).status is Status.COMPLETED
        assert len(s.outputs()) == 1


@pytest.mark.parametrize("end", ["failure", "limit", "cancel"])
async def test_what_waits_when_a_turn_ends_goes_out_with_the_next(tmp_path: Path, end: str) -> None:
    hold = Hold()
    first: Answer = [
        TextDelta("one"),
        hold,
        Finished(FinishReason.ERROR, Usage(), None, "server_error", "broken"),
    ]
    if end == "limit":
        first = [*call_answer("exec_command", {"cmd": "true"}, "call_1"), hold]
    limits = Limits(max_turns=1, patience=Patience(max_tries=0))
    async with stage(tmp_path, [first, text_answer("ok")], limits=limits) as s:
        turn = asyncio.create_task(s.agent.run_turn("first"))
        await s.until_heard(lambda event: is_text(event) or isinstance(event, ItemCompleted))
        steer = s.agent.steer("second")
        if end == "cancel":
            turn.cancel()
        hold.release.set()
        with contextlib.suppress(asyncio.CancelledError):
            assert (await turn).status is not Status.COMPLETED
        assert steer.state == "deferred"
        result = await s.agent.run_turn("third")
        assert (result.status, said_by_user(s)) == (
            Status.COMPLETED,
            ["first", "second", "third"],
        )


async def test_a_steer_can_be_withdrawn(tmp_path: Path) -> None:
    async with stage(tmp_path, [text_answer("ok")]) as s:
        steer = s.agent.steer("no")
        assert s.agent.withdraw(steer)
        await s.agent.run_turn("go")
        assert said_by_user(s) == ["go"]
