"""Fresh workspace, fresh isolation and command in one."""

from pathlib import Path

import pytest

from tests.sandbox.ordinary import place
from tests.sandbox.test_slots import WHO, ran

__all__ = ["place"]


@WHO
def test_candidates_go_their_own_ways(place: Path, is_root: bool) -> None:
    """Each begins with the workspace's present state, at its path; nothing stays but what is taken."""
    script = """
from tightloop.sandbox.candidates import CandidatePool
async def work(workspace, twin, fork):
    (workspace.path / "lines").write_text("begun")
    policy = Policy(workspace.path, warm_tests=False)
    pool = CandidatePool(workspace, policy, size=2)
    try:
        async with pool.candidate():
            raise AssertionError("it is not running")
    except SandboxError as error:
        assert "start it first" in str(error), error
    await pool.start()
    await pool.filled()
    assert pool.num_ready == 2
    async with pool.candidate() as one, pool.candidate() as two, pool.candidate() as three:
        for name, candidate in (("one", one), ("two", two), ("three", three)):
            assert await said(candidate.sandbox, f"cat {workspace.path}/lines; echo {name} > lines") == "begun"
            assert await said(candidate.sandbox, "echo x >> .git/config") != ""
        assert (two.workspace.path / "lines").read_text() == "two\\n"
        await workspace.take(two.workspace)
    assert pool.num_taken_cold == 1
    result = await pool.run(Command(script="cat lines; echo four > lines; sleep 600 & pwd"))
    assert (result.output, result.how) == (f"two\\n{workspace.path}\\n", "single-use"), result
    assert (workspace.path / "lines").read_text() == "two\\n"
    await pool.close()
    await pool.close()
    assert len(os.listdir(state / "workspaces")) == 2
go(work)
"""
    ran(place, script, is_root=is_root)


@pytest.mark.parametrize("step", ["fork", "inside"])
def test_a_candidate_that_is_given_up_leaves_nothing(place: Path, step: str) -> None:
    """Cancelled while the fork is made, or while it is used."""
    script = f"""
from tightloop.sandbox.candidates import CandidatePool
async def work(workspace, twin, fork):
    pool = CandidatePool(workspace, Policy(workspace.path, warm_tests=False), size=1)
    await pool.start()
    inside = asyncio.Event()
    async def use():
        async with pool.candidate() as candidate:
            inside.set()
            await candidate.sandbox.run(Command(script="sleep 600"))
    task = asyncio.create_task(use())
    await (inside.wait() if {step!r} == "inside" else asyncio.sleep(0))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await pool.close()
    assert len(os.listdir(state / "workspaces")) == 2
    assert len(os.listdir(state / "tightloop-slots")) == 1
go(work)
"""
    ran(place, script, is_root=True)


def test_a_pool_that_is_closed_while_it_prepares_leaves_nothing(place: Path) -> None:
    """A sandbox that is not given back yet, and directories of a fork that nobody has taken yet."""
    script = """
from tightloop.sandbox.candidates import CandidatePool
from tightloop.sandbox.processes import family
async def work(workspace, twin, fork):
    processes = len(family(os.getpid()))
    pool = CandidatePool(workspace, Policy(workspace.path, warm_tests=False), size=2)
    is_second, prepare = asyncio.Event(), workspace.prepare_forks
    async def preparing():
        if pool.num_ready:
            is_second.set()
        await prepare()
    workspace.prepare_forks = preparing
    await pool.start()
    await is_second.wait()
    await pool.close()
    assert len(os.listdir(state / "workspaces")) == 2
    assert len(os.listdir(state / "tightloop-slots")) == 1
    assert len(family(os.getpid())) == processes
go(work)
"""
    ran(place, script, is_root=True)


def test_a_fork_goes_after_the_processes_that_write_to_it(place: Path) -> None:
    """Else what they make while it is deleted would be left."""
    script = """
from tightloop.sandbox.candidates import CandidatePool
from tightloop.sandbox.workspace import Workspace
async def work(workspace, twin, fork):
    pool = CandidatePool(workspace, Policy(workspace.path, warm_tests=False), size=1)
    await pool.start()
    seen, discard = [], Workspace.discard
    async with pool.candidate() as candidate:
        async def discarding(self):
            seen.append(candidate.sandbox.pid)
            await discard(self)
        Workspace.discard = discarding
        await candidate.sandbox.begin(Command(script="while :; do echo x > $RANDOM; done"))
    await pool.close()
    Workspace.discard = discard
    assert seen == [None], seen
go(work)
"""
    ran(place, script, is_root=True)
