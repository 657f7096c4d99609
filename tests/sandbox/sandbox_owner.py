"""A program that owns a sandbox and says how far it has come; a test kills it there.

``python -m tests.sandbox.sandbox_owner KIND WORKSPACE STEP``. Every step but the first holds a
lock on the file ``held`` in the workspace from inside, by processes that ignore signals, have a
session of their own and know nothing of their command's variables.
"""

import asyncio
import sys
from pathlib import Path

from tightloop.sandbox.interface import Command, Policy, Terminal
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.pool import SandboxPool
from tightloop.sandbox.session import PersistentSandbox

HOLD = "exec 9>held; flock 9; trap '' TERM HUP INT; "
DAEMON = "env -i setsid bash -c 'sleep 600 & disown; sleep 600' & "
STEPS = ("starting", "idle", "command", "terminal", "daemon", "pool", "closing")


def say(step: str) -> None:
    """The step has been reached."""
    print(step, flush=True)


async def hold(sandbox: PersistentSandbox, step: str, script: str, **more: object) -> None:
    """Run a script that holds the lock; say the step once it does."""

    def heard(piece: bytes) -> None:
        if b"up" in piece:
            say(step)

    command = Command(script=f"{HOLD}{script}", timeout_s=600.0, **more)  # type: ignore[arg-type]
    await sandbox.run(command, heard)


async def main(kind: str, workspace: Path, step: str) -> None:
    """Go on until killed."""
    policy = Policy(workspace, warm_tests=False)
    if step == "starting":
        asyncio.get_running_loop().call_soon(say, step)
    sandbox = await open_sandbox(policy, kind=kind)
    if step == "command":
        await hold(sandbox, step, "echo up; sleep 600")
    if step == "terminal":
        await hold(sandbox, step, "echo up; sleep 600", terminal=Terminal())
    if step == "daemon":
        await hold(sandbox, step, f"{DAEMON} echo up; sleep 600")
    if step == "pool":
        pool = SandboxPool(lambda: open_sandbox(policy, kind=kind), size=2)
        await pool.start()
        await pool.filled()
        async with pool.take() as taken:
            await hold(taken, step, f"{DAEMON} echo up; sleep 600")
    if step == "closing":
        task = asyncio.create_task(hold(sandbox, "held", f"{DAEMON} echo up; sleep 600"))
        await asyncio.to_thread(sys.stdin.readline)
        say(step)
        await sandbox.close()
        await asyncio.wait([task])
    say(step)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
