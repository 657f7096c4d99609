"""Whatever clients do and whenever: every response ends once, is read whole, and leaves nothing.

The machine is a list of actions on some connections to one endpoint with a real store: creates,
continuations, steers, cancels, dropped connections, resumes, deletions, then an end in the middle of
it all or after it.
"""

import asyncio
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine, Step, call_answer
from tightloop.protocol.deltas import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDone,
    Usage,
)
from tightloop.protocol.response_stream import Cancellation
from tightloop.server.endpoint import Endpoint
from tightloop.server.lanes import Session
from tightloop.server.store import Store
from tightloop.server.streams import Journal, Write

FAILED = Finished(FinishReason.ERROR, Usage(), None, "server_error", "the engine broke")
CUT = Finished(FinishReason.LENGTH, Usage())


class Engine(ScriptedEngine):
    """Answers in ways that only a number decides, and waits in the middle of most of them."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.holds: list[Hold] = []
        self.number = 0

    def _answer(self, _request: GenerationRequest) -> Answer:
        before, after = Hold(), Hold()
        self.holds += [before, after]
        text = TextDelta("a\n\u00fc")
        answers: list[list[Step]] = [
            [text, before, text, after, text],
            [ReasoningDelta("r"), before, *call_answer("shell", {"c": 1}), after],
            [text, before, FAILED],
            [text, before, CUT],
            [before, ToolCallDone()],  # out of order: the response fails
            [text],
        ]
        return answers[self.number % len(answers)]

    def release(self) -> None:
        """Let everything go on that waits."""
        for hold in self.holds:
            hold.release.set()


class Reader:
    """Somebody who reads a journal from an event on, and may leave."""

    def __init__(self, journal: Journal, after: int) -> None:
        self.events: list[bytes] = []
        self.journal = journal
        self.after = after
        self.write: Write = self._write
        self.has_left = False

    def _write(self, events: Sequence[bytes]) -> None:
        self.events += events

    def leave(self) -> None:
        self.has_left = True
        self.journal.leave(self.write)


class World:
    """One endpoint, its clients, and what they were told."""

    def __init__(self, endpoint: Endpoint, engine: Engine) -> None:
        self.endpoint = endpoint
        self.engine = engine
        self.connections: list[tuple[Session, list[bytes]]] = []
        self.readers: list[Reader] = []
        self.conversations: list[str] = []
        self.tasks: list[asyncio.Task[object]] = []
        self.connect()

    def connect(self) -> None:
        heard: list[bytes] = []
        self.connections.append((self.endpoint.open(heard.extend), heard))

    def ids(self) -> list[str]:
        lists = [heard for _, heard in self.connections]
        first = b'{"type":"response.created"'
        created = [event for heard in lists for event in heard if event.startswith(first)]
        return [orjson.loads(event)["response"]["id"] for event in created]

    def pick(self, number: int) -> str:
        ids = self.ids()
        return ids[number % len(ids)] if ids else "resp_none"

    def do(self, action: str, number: int) -> None:
        self.engine.number = number
        getattr(self, f"do_{action}")(number)

    def send(self, number: int, **event: Any) -> None:
        self.connections[number % len(self.connections)][0].send(orjson.dumps(event))

    def create(self, number: int, **fields: Any) -> None:
        lane = {"stream_id": "abc"[number % 3]} if number % 4 else {}
        base = {"type": "response.create", "model": "scripted", "input": "x", "store": number > 9}
        key = {"prompt_cache_key": "k"} if number % 5 == 0 else {}
        timing = {"client_metadata": {"tightloop.timing": "1"}}
        self.send(number, **{**base, **lane, **key, **timing, **fields})

    def do_create(self, number: int) -> None:
        self.create(number)

    def do_prewarm(self, number: int) -> None:
        self.create(number, generate=False)

    def do_continue(self, number: int) -> None:
        self.create(number, previous_response_id=self.pick(number))

    def do_compact(self, number: int) -> None:
        asked = [{"role": "user", "content": "x"}, {"type": "compaction_trigger"}]
        self.create(number, input=asked)

    def do_converse(self, number: int) -> None:
        if self.conversations:
            name = self.conversations[number % len(self.conversations)]
            self.create(number, conversation=name)

    def do_open_conversation(self, _number: int) -> None:
        async def make() -> None:
            self.conversations.append((await self.endpoint.book.create((), {})).id)

        self.start(make())

    def do_cancel(self, number: int) -> None:
        self.send(number, type="response.cancel", response_id=self.pick(number))

    def do_cancel_lane(self, number: int) -> None:
        self.send(number, type="response.cancel", stream_id="abc"[number % 3])

    def do_interrupt(self, number: int) -> None:
        self.send(number, type="response.interrupt", response_id=self.pick(number))

    def do_steer(self, number: int) -> None:
        parent = self.pick(number)
        self.send(number, type="response.steer", previous_response_id=parent, input="s")

    def do_cancel_from_elsewhere(self, number: int) -> None:
        turn = self.endpoint.backstage.running.get(self.pick(number))
        if turn is not None:
            turn.cancel(Cancellation.CANCELLED)

    def do_delete(self, number: int) -> None:
        self.start(self.endpoint.conversations.delete(self.pick(number)))

    def do_drop(self, number: int) -> None:
        self.connections[number % len(self.connections)][0].close(is_goodbye=False)
        self.connect()

    def do_goodbye(self, number: int) -> None:
        self.connections[number % len(self.connections)][0].close()
        self.connect()

    def do_resume(self, number: int) -> None:
        response_id = self.pick(number)
        journal = self.endpoint.backstage.streams.get(response_id)
        if journal is None:
            return
        reader = Reader(journal, number % (journal.num_events + 1) - 1)
        self.readers.append(reader)
        turn = self.endpoint.backstage.running.get(response_id)
        read = journal.read if turn is None else turn.resume
        read(reader.write, reader.after)

    def do_leave(self, number: int) -> None:
        if self.readers:
            self.readers[number % len(self.readers)].leave()

    def do_release(self, _number: int) -> None:
        self.engine.release()

    def start(self, job: Coroutine[Any, Any, object]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(job))

    async def settle(self) -> None:
        for task in self.tasks:
            await task

    async def let_all_end(self) -> None:
        drained = asyncio.get_running_loop().create_task(self.endpoint.backstage.drained())
        while not drained.done():
            self.engine.release()
            await asyncio.sleep(0)


ACTIONS = [name.removeprefix("do_") for name in vars(World) if name.startswith("do_")]
steps = st.tuples(
    st.sampled_from([*ACTIONS, "create", "create", "release"]),
    st.integers(0, 20),
    st.integers(0, 3),
)


def check(world: World) -> None:
    """Nothing is left, and every reader was told the same."""
    backstage = world.endpoint.backstage
    left = (backstage.running, backstage.orphans, backstage.commits, backstage.openings)
    assert left == ({}, set(), set(), set())
    assert not any(found.is_held for found in world.endpoint.book.recent())
    for reader in world.readers:
        journal = reader.journal
        assert journal.is_over
        assert journal.num_waiting == 0
        assert not journal.has_readers
        expected = journal.events(reader.after)
        assert expected[: len(reader.events)] == reader.events
        assert reader.has_left or expected == reader.events
        numbers = [orjson.loads(event)["sequence_number"] for event in journal.events()]
        assert list(range(len(numbers))) == numbers


async def check_store(world: World, path: Path) -> None:
    """What is on disk is what was sent, whatever fell into it."""
    store = Store(path)
    await store.open()
    for response_id in world.ids():
        journal = world.endpoint.backstage.streams.get(response_id)
        kept = await store.events(response_id)
        assert kept is None or journal is None or journal.events() == kept
    await store.close()


async def live(actions: Sequence[tuple[str, int, int]], heartbeat_s: float, *, rude: bool) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: problems.append(found))
    with tempfile.TemporaryDirectory() as folder:
        engine, path = Engine(), Path(folder) / "db"
        endpoint = Endpoint(engine, Store(path), heartbeat_s=heartbeat_s, resume_grace_s=10)
        await endpoint.start()
        world = World(endpoint, engine)
        for action, number, pause in actions:
            world.do(action, number)
            for _ in range(pause):
                await asyncio.sleep(0)
        await world.settle()
        if not rude:
            await world.let_all_end()
        await endpoint.close()
        check(world)
        await check_store(world, path)
    assert problems == []


@given(st.lists(steps, max_size=30), st.sampled_from([0.0, 5.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_response_ends_once_and_is_read_whole(
    actions: list[tuple[str, int, int]], heartbeat_s: float, rude: bool
) -> None:
    """Also when the server closes in the middle of everything (``rude``), and when a heartbeat falls
    between any two events (``heartbeat_s`` 0)."""
    asyncio.run(live(actions, heartbeat_s, rude=rude))
