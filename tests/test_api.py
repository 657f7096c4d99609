"""``from tightloop import Agent``: the handful of names, against real engines and processes."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import tightloop
from tests.cli.processes import call, script
from tightloop import Agent, NoSuchThread, SandboxError, Status, UsageError, WorkspaceConflict, run
from tightloop.agent import events as said
from tightloop.agent.approval.interface import DENY, ApprovalRequest, Decision

PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n*** End Patch"
FIX = [[call("apply_patch", PATCH)], [{"text": "Changed x."}]]
HANG = [[call("exec_command", {"cmd": "echo here; exec sleep 100"})]]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\n")
    return directory


def options(repo: Path, answers: Sequence[Any] = FIX, **more: Any) -> dict[str, Any]:
    chosen = {
        "model": script(repo.parent, answers), "state_dir": repo.parent / "state", "sandbox": "none",
        "speculates": False,
    }  # fmt: skip
    return chosen | more


def agent(repo: Path, answers: Sequence[Any] = FIX, **more: Any) -> Agent:
    return Agent(repo, **options(repo, answers, **more))


async def test_a_turn_and_what_it_came_to(repo: Path) -> None:
    """The repository has nothing of it before ``apply``."""
    notes: list[str] = []
    async with agent(repo, on_note=notes.append) as one:
        turn = await one.run("change x")
        assert (turn.text, turn.status, turn.is_completed) == ("Changed x.", Status.COMPLETED, True)
        assert turn.diff == await one.diff()
        assert "+x = 2" in turn.diff
        assert turn.usage.output_tokens > 0
        assert sum(turn.ledger.values()) == pytest.approx(turn.wall_s)
        assert (repo / "m.py").read_text() == "x = 1\n"
        assert await one.apply() == ["m.py"]
    assert (repo / "m.py").read_text() == "x = 2\n"
    assert any("no isolation" in note for note in notes)


async def test_events_as_they_come(repo: Path) -> None:
    heard: list[said.Event] = []
    async with agent(repo, on_event=heard.append) as one:
        streamed = [event async for event in one.stream("change x")]
        assert isinstance(heard[0], said.ThreadStarted)
        assert heard[1:] == streamed
        assert isinstance(streamed[0], said.TurnStarted)
        assert isinstance(streamed[-1], said.TurnCompleted)
        assert not one.is_running


async def test_leaving_a_stream_ends_the_turn(repo: Path) -> None:
    async with agent(repo, HANG) as one:
        async with aclosing(one.stream("go")) as stream:
            async for event in stream:
                if isinstance(event, said.ItemUpdated) and event.output_delta:
                    break
        assert not one.is_running
        assert one.thread.agent.last_result is not None
        assert one.thread.agent.last_result.status is Status.CANCELLED


async def test_steer_withdraw_interrupt(repo: Path) -> None:
    """Interrupting returns the turn, whose conversation can go on."""
    started = asyncio.Event()

    def listen(event: said.Event) -> None:
        if isinstance(event, said.ItemStarted):
            started.set()

    async with agent(repo, HANG, on_event=listen) as one:
        assert not one.interrupt()
        turn = asyncio.create_task(one.run("go"))
        await started.wait()
        with pytest.raises(RuntimeError, match="a turn is running"):
            await one.run("another")
        steer = one.steer("and the docs")
        assert one.withdraw(steer)
        assert not one.withdraw(steer)
        assert one.interrupt()
        assert (await turn).status is Status.CANCELLED


async def test_cancelling_run_ends_the_turn(repo: Path) -> None:
    started = asyncio.Event()
    async with agent(repo, HANG, on_event=lambda event: started.set()) as one:
        turn = asyncio.create_task(one.run("go"))
        await started.wait()
        turn.cancel()
        await asyncio.wait([turn])
        assert turn.cancelled()
        assert not one.is_running


async def test_resume_and_fork(repo: Path) -> None:
    """A conversation is found by its id from another agent; its work comes along."""
    async with agent(repo) as one:
        await one.run("change x")
        first = one.id
    async with Agent(**options(repo, resume="last") | {"repo": repo}) as one:
        assert one.id == first
        assert "+x = 2" in await one.diff()
    async with agent(repo, fork=first) as one:
        assert one.id != first
        assert "+x = 2" in await one.diff()
    with pytest.raises(NoSuchThread):
        await agent(repo, resume="nope").__aenter__()
    with pytest.raises(UsageError, match="resume and fork"):
        agent(repo, resume=first, fork=first)


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ('{"n": 1}', Status.COMPLETED, ""),
        ('{"n": "1"}', Status.FAILED, "does not match: $.n: '1' is not of type 'integer'"),
    ],
)
async def test_an_output_schema(repo: Path, text: str, status: Status, message: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    async with agent(repo, [[{"text": text}]], output_schema=schema) as one:
        turn = await one.run("count")
    assert (turn.status, turn.text) == (status, text)
    assert message in turn.message
    assert isinstance(turn.data["n"], int | str)


async def test_what_the_user_changed_meanwhile_is_not_overwritten(repo: Path) -> None:
    async with agent(repo) as one:
        await one.run("change x")
        (repo / "m.py").write_text("x = 3\n")
        with pytest.raises(WorkspaceConflict, match=r"m\.py"):
            await one.apply()


async def test_a_turn_can_be_taken_back(repo: Path) -> None:
    """Also from the repository; and then there is nothing more to take back."""
    async with agent(repo) as one:
        await one.run("change x")
        await one.apply()
        assert await one.undo() == ["m.py"]
        assert (repo / "m.py").read_text() == "x = 1\n"
        assert await one.diff() == ""
        with pytest.raises(SandboxError, match="no turn's work"):
            await one.undo()


class _Asked:
    """An approver that says no, and remembers."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    async def ask(self, request: ApprovalRequest) -> Decision:
        self.titles.append(request.title)
        return DENY


async def test_a_program_can_be_asked(repo: Path) -> None:
    approver = _Asked()
    touch = [[call("exec_command", {"cmd": "touch new"})], [{"text": "Done."}]]
    async with agent(repo, touch, approval="ask", approver=approver) as one:
        turn = await one.run("make it")
    assert (turn.diff, len(approver.titles)) == ("", 1)


async def test_outside_of_its_context_it_says_so(repo: Path) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await agent(repo).run("x")


def test_without_a_loop_of_ones_own(repo: Path) -> None:
    turn = run("change x", repo, apply=True, **options(repo))
    assert turn.is_completed
    assert (repo / "m.py").read_text() == "x = 2\n"


async def test_not_inside_of_another_loop(repo: Path) -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        run("change x", repo, **options(repo))


def test_names_are_imported_late() -> None:
    """``import tightloop`` alone costs nothing; what is not offered is said as usual."""
    code = (
        "import sys, tightloop; assert 'tightloop.api' not in sys.modules;"
        "assert 'asyncio' not in sys.modules; tightloop.Agent; assert 'tightloop.api' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        tightloop.nope  # noqa: B018 - asking is the test


def test_both_lists_of_names_are_one() -> None:
    from tightloop import api

    assert api.__all__ == tightloop.__all__
    assert all(hasattr(tightloop, name) for name in tightloop.__all__)
