"""A conversation on a repository: opened, ended, gone on with, forked."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.harness.audience import Listening
from tightloop.agent.events import ItemUpdated, ThreadStarted, TurnStarted
from tightloop.agent.turn import Status
from tightloop.client.attempt import Attempt
from tightloop.harness.holding import ThreadHeld
from tightloop.harness.listing import list_past
from tightloop.harness.past import load
from tightloop.harness.settings import Settings
from tightloop.harness.thread import Thread, open_thread
from tightloop.protocol.items import CustomToolCallOutput, Message
from tightloop.sandbox.applying import WorkspaceConflict
from tightloop.server.streams import Journal
from tightloop.server.turns import Turn as RunningTurn

PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n*** End Patch"
FIX: list[list[dict[str, Any]]] = [
    [{"call": {"name": "apply_patch", "arguments": PATCH}}],
    [{"text": "Changed x."}],
]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\n")
    return directory


def settings(repo: Path, answers: list[list[dict[str, Any]]]) -> Settings:
    path = repo.parent / "script.json"
    path.write_bytes(orjson.dumps({"answers": answers}))
    return Settings(
        repo=repo, state_dir=repo.parent / "state", model=f"scripted:{path}", sandbox="none"
    )


async def test_a_conversation_goes_on_where_it_ended(repo: Path) -> None:
    """With its items and with the work that the repository does not have."""
    first = Listening()
    async with open_thread(settings(repo, FIX), first) as thread:
        assert (await thread.agent.run_turn("change x")).status is Status.COMPLETED
    assert (repo / "m.py").read_text() == "x = 1\n"
    past = load(repo.parent / "state", "last")
    assert (past.title, past.num_missing, past.repository) == ("change x", 0, repo)
    assert any(isinstance(item, CustomToolCallOutput) for item in past.items)
    second = Listening()
    async with open_thread(settings(repo, [[{"text": "Hello."}]]), second, past=past) as thread:
        assert (thread.workspace.path / "m.py").read_text() == "x = 2\n"
        await thread.agent.run_turn("still there?")
        said = [item.text for item in thread.agent.items if isinstance(item, Message)]
        assert [said[1], *said[2:3], *said[4:]] == [
            "change x",
            "Changed x.",
            "still there?",
            "Hello.",
        ]
        assert await thread.workspace.apply() == ["m.py"]
    started = [event for event in second.events if isinstance(event, ThreadStarted)]
    assert [event.thread_id for event in started] == [past.id]
    assert load(repo.parent / "state", past.id).changes == ()
    assert len(list_past(repo.parent / "state")) == 1


async def test_a_fork_leaves_the_conversation_alone(repo: Path) -> None:
    async with open_thread(settings(repo, FIX), Listening()) as thread:
        await thread.agent.run_turn("change x")
    past = load(repo.parent / "state", "last")
    again = settings(repo, [[{"text": "Hello."}]])
    async with open_thread(again, Listening(), past=past, is_fork=True) as fork:
        assert fork.id != past.id
        await fork.agent.run_turn("go on")
    assert load(repo.parent / "state", past.id) == past
    assert len(load(repo.parent / "state", fork.id).items) > len(past.items)


async def test_work_on_a_file_that_was_changed_meanwhile_is_kept_apart(repo: Path) -> None:
    """The conversation goes on with its own version; the user is told, and applying refuses it."""
    async with open_thread(settings(repo, FIX), Listening()) as thread:
        await thread.agent.run_turn("change x")
    past = load(repo.parent / "state", "last")
    (repo / "m.py").write_text("x = 3\n")
    audience = Listening()
    async with open_thread(settings(repo, FIX), audience, past=past) as thread:
        assert (thread.workspace.path / "m.py").read_text() == "x = 2\n"
        with pytest.raises(WorkspaceConflict, match=r"m\.py"):
            await thread.apply()
    assert any(note.startswith("changed by you since: m.py") for note in audience.notes)
    assert (repo / "m.py").read_text() == "x = 3\n"
    assert load(repo.parent / "state", past.id).changes == past.changes


async def test_two_cannot_go_on_with_one_conversation(repo: Path) -> None:
    """The second is told who holds it; it can fork what has been said so far."""
    async with open_thread(settings(repo, FIX), Listening()) as thread:
        await thread.run_turn("change x")
        past = load(repo.parent / "state", thread.id)
        with pytest.raises(ThreadHeld, match="tightloop exec"):
            async with open_thread(settings(repo, FIX), Listening(), past=past):
                raise AssertionError("opened twice")
        async with open_thread(settings(repo, FIX), Listening(), past=past, is_fork=True) as fork:
            assert fork.id != thread.id


async def test_what_another_process_has_added_is_not_lost(repo: Path) -> None:
    """A conversation is read anew once it is held: what was read before may be old."""
    async with open_thread(settings(repo, FIX), Listening()) as thread:
        await thread.run_turn("change x")
    stale = load(repo.parent / "state", "last")
    again = settings(repo, [[{"text": "Hello."}]])
    async with open_thread(again, Listening(), past=stale) as thread:
        await thread.run_turn("hi")
    async with open_thread(again, Listening(), past=stale) as thread:
        said = [item.text for item in thread.agent.items if isinstance(item, Message)]
    assert "Hello." in said


async def test_applied_work_is_not_put_in_twice(repo: Path) -> None:
    async with open_thread(settings(repo, FIX), Listening()) as thread:
        await thread.run_turn("change x")
        assert await thread.apply() == ["m.py"]
        past = load(repo.parent / "state", thread.id)
        assert (past.changes, past.missing) == ((), ())


async def test_turns_and_pieces_are_marked(repo: Path) -> None:
    audience = Listening()
    async with open_thread(settings(repo, [[{"text": "One two."}]]), audience) as thread:
        assert thread.turn_id is None
        await thread.run_turn("hi")
    assert [event.turn_id for event in audience.events if isinstance(event, TurnStarted)] == [
        "turn_1"
    ]
    pieces = [event for event in audience.events if isinstance(event, ItemUpdated)]
    assert [(piece.offset, piece.text_delta) for piece in pieces] == [(0, "One"), (3, " two.")]


async def test_nothing_is_kept_of_a_conversation_that_nobody_began(repo: Path) -> None:
    async with open_thread(settings(repo, FIX), Listening()):
        pass
    assert list_past(repo.parent / "state") == []


async def test_a_long_session_grows_by_its_conversation_alone(repo: Path) -> None:
    """Per turn only what the next request needs: no round trips, spans, events or replies of before."""
    async with open_thread(settings(repo, [[{"text": "Hello."}]]), Listening()) as thread:
        for number in range(3):
            await thread.run_turn(f"message {number}")
        sizes = _kept_sizes(thread)
        for number in range(10):
            await thread.run_turn(f"another message {number}")
        assert _kept_sizes(thread) == sizes


def _kept_sizes(thread: Thread) -> dict[str, int]:
    """How many of each are alive that belong to one turn or one response."""
    result = thread.agent.last_result
    assert result is not None
    gc.collect()
    kept = (Journal, RunningTurn, Attempt, asyncio.Task, asyncio.Future)
    found = {kind.__name__: 0 for kind in kept}
    for one in gc.get_objects():
        if isinstance(one, kept):
            found[type(one).__name__] = found.get(type(one).__name__, 0) + 1
    return {
        **found,
        "trips": len(thread.agent.session.trips),
        "spans": len(result.spans),
        "events": len(result.events),
    }
