"""A conversation on a repository: opened, ended, gone on with, forked."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.harness.audience import Listening
from tightloop.agent.events import ThreadStarted
from tightloop.agent.turn import Status
from tightloop.harness.record import list_past, load
from tightloop.harness.settings import Settings
from tightloop.harness.thread import open_thread
from tightloop.protocol.items import CustomToolCallOutput, Message
from tightloop.sandbox.applying import WorkspaceConflict

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


async def test_work_that_does_not_fit_any_more_is_refused(repo: Path) -> None:
    """The file was changed by somebody else meanwhile: nothing is opened, nothing is lost."""
    async with open_thread(settings(repo, FIX), Listening()) as thread:
        await thread.agent.run_turn("change x")
    past = load(repo.parent / "state", "last")
    (repo / "m.py").write_text("x = 3\n")
    with pytest.raises(WorkspaceConflict, match=r"m\.py"):
        async with open_thread(settings(repo, []), Listening(), past=past):
            pass
    assert load(repo.parent / "state", past.id) == past
