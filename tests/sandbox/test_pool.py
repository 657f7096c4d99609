"""Started sandboxes for one use each."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.sandbox.conftest import OpenSandbox
from tests.sandbox.heard import Heard
from tightloop.sandbox.interface import Command, SandboxError, Terminal
from tightloop.sandbox.pool import SandboxPool
from tightloop.sandbox.session import PersistentSandbox


class Opening:
    """Opens sandboxes; counts them, keeps them, and fails or blocks when told to."""

    def __init__(self, opened: OpenSandbox, kind: str = "bubblewrap") -> None:
        self._opened = opened
        self._kind = kind
        self.sandboxes: list[PersistentSandbox] = []
        self.is_broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> PersistentSandbox:
        await self.gate.wait()
        if self.is_broken:
            raise SandboxError("no more namespaces")
        sandbox = await self._opened(self._kind)
        self.sandboxes.append(sandbox)
        return sandbox


@pytest.fixture
def opening(opened: OpenSandbox) -> Opening:
    return Opening(opened)


async def test_every_command_has_a_sandbox_of_its_own(opening: Opening) -> None:
    """Nothing is kept between two; the next is ready when it is wanted."""
    pool = SandboxPool(opening, size=2)
    await pool.start()
    await pool.filled()
    assert pool.num_ready == 2
    first = await pool.run(Command(script="echo x > /tmp/left; sleep 600 & echo $$"))
    await pool.filled()
    second = await pool.run(Command(script="test -e /tmp/left || echo gone"))
    assert (second.exit_code, second.how, second.output) == (0, "single-use", "gone\n")
    assert first.exit_code == 0
    await pool.filled()
    assert (pool.num_ready, pool.num_taken_ready, pool.num_taken_cold) == (2, 2, 0)
    await pool.close()
    assert [sandbox.is_alive for sandbox in opening.sandboxes] == [False] * 4


async def test_one_can_be_taken_for_several_commands(opening: Opening) -> None:
    """A candidate's edits and its tests, say; with terminals and all."""
    pool = SandboxPool(opening, size=1)
    await pool.start()
    heard = Heard()
    async with pool.take() as sandbox:
        await sandbox.run(Command(script="echo kept > /tmp/file"))
        run = await sandbox.begin(Command(script="cat /tmp/file", terminal=Terminal()), heard)
        assert (await run.wait()).output == "kept\r\n"
    await pool.close()
    assert not sandbox.is_alive


async def test_more_than_are_ready_can_be_taken(opening: Opening, workspace: Path) -> None:
    """Those that find none start their own: each waits for the others here."""
    pool = SandboxPool(opening, size=1)
    await pool.start()
    for name in ("a", "b"):
        os.mkfifo(workspace / name)
    async with asyncio.TaskGroup() as group:
        left = group.create_task(pool.run(Command(script="echo left > a; cat b")))
        right = group.create_task(pool.run(Command(script="cat a; echo right > b")))
    assert (left.result().output, right.result().output) == ("right\n", "left\n")
    assert pool.num_taken_ready + pool.num_taken_cold == 2
    await pool.close()


async def test_a_dead_one_is_not_given_out(opening: Opening) -> None:
    """The machine may have ended it while it waited."""
    pool = SandboxPool(opening, size=1)
    await pool.start()
    await opening.sandboxes[0].close()
    assert (await pool.run(Command(argv=["true"]))).exit_code == 0
    assert (pool.num_taken_ready, pool.num_taken_cold) == (0, 1)
    await pool.close()


async def test_a_failed_refill_is_told_to_whoever_needs_it(opening: Opening) -> None:
    """And it is tried again when one is wanted."""
    pool = SandboxPool(opening, size=1)
    await pool.start()
    opening.is_broken = True
    assert (await pool.run(Command(argv=["true"]))).exit_code == 0
    await pool.filled()
    with pytest.raises(SandboxError, match="no more namespaces"):
        await pool.run(Command(argv=["true"]))
    opening.is_broken = False
    assert (await pool.run(Command(argv=["true"]))).exit_code == 0
    await pool.close()


async def test_a_pool_that_cannot_start_says_why(opening: Opening) -> None:
    """By the error of the isolation itself."""
    opening.is_broken = True
    pool = SandboxPool(opening, size=1)
    with pytest.raises(SandboxError, match="no more namespaces"):
        await pool.start()
    await pool.close()


async def test_closing_ends_what_is_being_started(opening: Opening) -> None:
    """At whatever point it is: before it began, and while the sandbox comes up."""
    pool = SandboxPool(opening, size=3)
    await pool.start()
    await asyncio.sleep(0)  # the refills have begun
    await pool.close()
    await pool.close()
    assert all(not sandbox.is_alive for sandbox in opening.sandboxes)
    assert pool.num_ready == 0
    with pytest.raises(SandboxError, match="start it first"):
        await pool.run(Command(argv=["true"]))


async def test_a_taken_one_outlives_the_pool_until_its_end(opening: Opening) -> None:
    """Then it is closed before the ``async with`` is left."""
    pool = SandboxPool(opening, size=1)
    await pool.start()
    async with pool.take() as sandbox:
        await pool.close()
        assert (await sandbox.run(Command(argv=["true"]))).exit_code == 0
    assert not sandbox.is_alive


@pytest.mark.parametrize("kind", ["landlock", "none"])
async def test_other_kinds_work_too(kind: str, opened: OpenSandbox) -> None:
    """A pool knows nothing of how sandboxes are made."""
    pool = SandboxPool(Opening(opened, kind), size=1)
    await pool.start()
    assert (await pool.run(Command(argv=["cat"], stdin=b"in\n"))).output == "in\n"
    await pool.close()


async def test_an_empty_pool_is_refused(opening: Opening) -> None:
    """It would be no pool."""
    with pytest.raises(ValueError, match="got 0"):
        SandboxPool(opening, size=0)
