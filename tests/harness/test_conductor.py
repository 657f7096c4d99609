"""A run that is led line by line: queue, steer, interrupt, withdraw, and a receipt for each."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tightloop.agent import events as said
from tightloop.agent.turn import Status, TurnResult
from tightloop.harness.conductor import Conductor
from tightloop.harness.settings import Settings
from tightloop.harness.thread import Thread, open_thread
from tightloop.protocol.items import Message


@dataclass
class Led:
    """A conductor at work, and all that was told."""

    is_json: bool = True
    events: list[said.Event] = field(default_factory=list)
    ended: list[TurnResult] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    fifo: Path = Path()
    thread: Thread | None = None
    conductor: Conductor | None = None

    def note(self, text: str) -> None:
        """See ``Audience``."""

    def listen(self, event: said.Event) -> None:
        """See ``Audience``."""
        self.events.append(event)
        self.news.set()

    async def until(self, wanted: Callable[[said.Event], bool]) -> None:
        """Return once such an event was told."""
        while not any(wanted(event) for event in self.events):
            self.news.clear()
            await self.news.wait()

    async def until_a_command_runs(self) -> None:
        await self.until(lambda event: isinstance(event, said.ItemStarted))

    def say(self, **line: Any) -> said.Event:
        """The receipt of a line."""
        assert self.conductor is not None
        self.conductor.take(orjson.dumps(line))
        receipts = said.InputAccepted | said.InputRefused
        return next(event for event in reversed(self.events) if isinstance(event, receipts))

    async def let_go(self) -> None:
        """The command that waits for a line gets one."""
        await asyncio.to_thread(self.fifo.write_text, "now\n")  # waits for the reader

    def steers(self) -> list[tuple[str, str]]:
        return [(one.id, one.state) for one in self.events if isinstance(one, said.Steered)]

    def said_by_user(self) -> list[str]:
        assert self.thread is not None
        items = self.thread.agent.items
        return [one.text for one in items if isinstance(one, Message) and one.role == "user"]


@asynccontextmanager
async def led(tmp_path: Path) -> AsyncIterator[Led]:
    """Its first answer runs a command that waits, then comes text."""
    repo = tmp_path / "repo"
    repo.mkdir()
    one = Led(fifo=tmp_path / "fifo")
    os.mkfifo(one.fifo)
    call = {"name": "exec_command", "arguments": {"cmd": f"read line < {one.fifo}; echo $line"}}
    script = tmp_path / "script.json"
    replies = {"be quick": [{"text": "Quick."}], "and this": [{"text": "This."}]}
    script.write_bytes(
        orjson.dumps({"answers": [[{"call": call}], [{"text": "Done."}]], "replies": replies})
    )
    settings = Settings(
        repo=repo, state_dir=tmp_path / "state", model=f"scripted:{script}", sandbox="none",
        speculates=False,
    )  # fmt: skip
    async with open_thread(settings, one) as thread:
        one.thread, one.conductor = thread, Conductor(thread, one.listen)
        async with asyncio.TaskGroup() as group:
            run = group.create_task(one.conductor.run(one.ended.append))
            try:
                yield one
                one.conductor.end()
            except BaseException:
                run.cancel()
                raise


async def test_messages_are_worked_off_one_turn_each(tmp_path: Path) -> None:
    async with led(tmp_path) as one:
        assert one.say(op="queue", id="a", text="be quick") == said.InputAccepted(
            "queue", "a", position=0
        )
        assert one.say(op="queue", text="be quick again") == said.InputAccepted("queue", position=1)
        assert one.say(op="end") == said.InputAccepted("end")
    assert [turn.status for turn in one.ended] == [Status.COMPLETED] * 2
    assert one.said_by_user() == ["be quick", "be quick again"]


async def test_a_steer_reaches_the_running_turn(tmp_path: Path) -> None:
    """With its next request, and the receipt says which turn that is."""
    async with led(tmp_path) as one:
        one.say(op="queue", text="go")
        await one.until_a_command_runs()
        steered = one.say(op="steer", id="s", text="and this", expected_turn="turn_1")
        assert steered == said.InputAccepted("steer", "s", "turn_1", "steer_0")
        await one.let_go()
    assert one.steers() == [("steer_0", "accepted"), ("steer_0", "delivered")]
    assert (len(one.ended), one.ended[0].text) == (1, "This.")


async def test_a_steer_for_another_turn_is_refused(tmp_path: Path) -> None:
    """And one for none: it would wait for a turn that may never come."""
    async with led(tmp_path) as one:
        refused = one.say(op="steer", id="s", text="go")
        assert isinstance(refused, said.InputRefused)
        assert "no turn is running" in refused.message
        assert isinstance(one.say(op="interrupt"), said.InputRefused)
        one.say(op="queue", text="go")
        await one.until_a_command_runs()
        refused = one.say(op="steer", text="x", expected_turn="turn_9")
        assert refused == said.InputRefused("steer", "turn_1 is running, not turn_9")
        assert isinstance(one.say(op="interrupt", expected_turn="turn_0"), said.InputRefused)
        await one.let_go()
    assert (one.steers(), one.said_by_user()) == ([], ["go"])


async def test_an_interrupt_ends_the_turn_and_not_the_run(tmp_path: Path) -> None:
    """What was queued goes on; the conversation is whole."""
    async with led(tmp_path) as one:
        one.say(op="queue", text="go")
        await one.until_a_command_runs()
        one.say(op="queue", text="be quick")
        assert one.say(op="interrupt", id="i") == said.InputAccepted("interrupt", "i", "turn_1")
    assert [turn.status for turn in one.ended] == [Status.CANCELLED, Status.COMPLETED]
    assert one.ended[1].text == "Quick."


async def test_an_interrupt_can_drop_what_waits(tmp_path: Path) -> None:
    async with led(tmp_path) as one:
        one.say(op="queue", text="go")
        await one.until_a_command_runs()
        one.say(op="queue", text="be quick")
        one.say(op="steer", text="and this")
        one.say(op="interrupt", drop=True)
    assert [turn.status for turn in one.ended] == [Status.CANCELLED]
    assert one.steers() == [("steer_0", "accepted"), ("steer_0", "withdrawn")]


async def test_what_waits_can_be_taken_back(tmp_path: Path) -> None:
    async with led(tmp_path) as one:
        one.say(op="queue", text="go")
        await one.until_a_command_runs()
        one.say(op="queue", id="q", text="be quick")
        one.say(op="steer", text="and this")
        for message in ("q", "steer_0"):
            assert one.say(op="withdraw", message=message) == said.InputAccepted("withdraw")
            assert isinstance(one.say(op="withdraw", message=message), said.InputRefused)
        await one.let_go()
    assert one.said_by_user() == ["go"]


async def test_a_steer_that_came_too_late_becomes_a_message(tmp_path: Path) -> None:
    """Neither lost nor sent twice: the turn ended by a limit before it could go out."""
    async with led(tmp_path) as one:
        assert one.thread is not None
        assert one.conductor is not None
        one.say(op="queue", text="go")
        await one.until_a_command_runs()
        one.say(op="steer", text="be quick")
        one.say(op="steer", text="and this")
        one.say(op="interrupt")
        await one.until(lambda event: isinstance(event, said.TurnFailed))
        one.say(op="queue", text="be quick, too")
    assert one.said_by_user()[-3:] == ["be quick", "and this", "be quick, too"]
    assert [turn.status for turn in one.ended] == [Status.CANCELLED, Status.COMPLETED]


async def test_what_nobody_will_hear_is_given_back(tmp_path: Path) -> None:
    """The end comes while a steer waits behind an interrupted turn."""
    async with led(tmp_path) as one:
        one.say(op="queue", text="go")
        await one.until_a_command_runs()
        one.say(op="steer", text="and this")
        one.say(op="interrupt")
    assert one.steers()[-1] == ("steer_0", "withdrawn")
    assert len(one.ended) == 1


async def test_bad_lines_are_answered_and_empty_ones_are_not(tmp_path: Path) -> None:
    async with led(tmp_path) as one:
        assert one.conductor is not None
        for line in (b"", b"  \r"):
            one.conductor.take(line)
        assert not any(isinstance(event, said.InputRefused) for event in one.events)
        assert isinstance(one.say(op="stop"), said.InputRefused)
    assert one.ended == []


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_cancelled_run_ends_its_turn(tmp_path: Path, is_first: bool) -> None:
    """And says what it came to; also when it only waits for a message."""
    ended: list[TurnResult] = []
    async with led(tmp_path) as one:
        assert one.thread is not None
        other = Conductor(one.thread, one.listen)
        if is_first:
            other.queue("go")
        run = asyncio.create_task(other.run(ended.append))
        if is_first:
            await one.until_a_command_runs()
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()
    assert [turn.status for turn in ended] == ([Status.CANCELLED] if is_first else [])
