"""Whatever a server has started ends with it, and with whoever started it."""

import asyncio
import os
import sys

import pytest

from tests.agent.tools.mcp.test_server import is_gone
from tightloop.agent.tools.mcp import leash

WORDS = [sys.executable, "-I", "-S", leash.__file__]
TREE = "setsid sleep 1000 & echo $! $$; exec sleep 1000"
PARENT = (
    "import os, subprocess, sys\n"
    "subprocess.run([*sys.argv[1:5], str(os.getpid()), 'sh', '-c', sys.argv[5]])\n"
)


async def test_nothing_outlives_a_parent_that_was_killed() -> None:
    """Not even what has made itself a session of its own."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, *WORDS, TREE, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    processes = [os.pidfd_open(int(pid)) for pid in (await parent.stdout.readline()).split()]
    assert len(processes) == 2
    parent.kill()
    await parent.wait()
    for process in processes:
        await is_gone(process)


@pytest.mark.parametrize(
    ("parent", "command", "status"),
    [
        (os.getpid(), ["sh", "-c", "exit 7"], 7),
        (os.getpid(), ["no-such-program"], 127),
        (1, ["sh", "-c", "exit 7"], 1),
    ],
)
async def test_the_status_is_the_programs(parent: int, command: list[str], status: int) -> None:
    """And without its parent nothing is started."""
    started = await asyncio.create_subprocess_exec(
        *WORDS, str(parent), *command, stderr=asyncio.subprocess.DEVNULL
    )
    assert await started.wait() == status
