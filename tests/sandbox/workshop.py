"""A program that owns a whole workshop and is killed in it, or kills parts of it.

``python -m tests.sandbox.workshop KIND STEP``, in a directory with a repository ``repo``. Owns
workspaces in ``state``, a sandbox, and with bubblewrap a twin in use and a pool of candidates.
Everything that it starts inside holds a shared lock on a file of the workspace that it is in.
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from tests.sandbox.heard import Heard
from tightloop.sandbox import own_namespace
from tightloop.sandbox.candidates import CandidatePool
from tightloop.sandbox.interface import Command, CommandResult, Policy, SandboxError
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.slots import open_twin
from tightloop.sandbox.workspace import Workspace, open_workspace

DAEMON = "env -i setsid sh -c 'trap \"\" TERM HUP; sleep 600; sleep 600' & "
BUSY = Command(script=f"{DAEMON} echo x > by-command; echo up; sleep 600", timeout_s=600.0)
TESTS = Command(argv=["python", "-m", "pytest", "-q", "-p", "no:cacheprovider"])
_PR_SET_CHILD_SUBREAPER = 36


def say(step: str) -> None:
    """The step has been reached."""
    print(step, flush=True)


def children(pid: int) -> list[int]:
    """Direct children of a process, of all its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def below(pid: int) -> list[int]:
    """All descendants, parents first."""
    return [one for child in children(pid) for one in (child, *below(child))]


async def busy(sandbox: PersistentSandbox) -> "asyncio.Task[CommandResult]":
    """A command runs, with a process that hides, and has written into its workspace."""
    heard = Heard()
    task = asyncio.create_task(sandbox.run(BUSY, heard))
    await heard.until("up")
    return task


async def everything(kind: str, workspace: Workspace) -> None:
    """All that there can be at once; never returns."""
    sandbox = await open_sandbox(policy_of(workspace), kind=kind)
    tasks = [await busy(sandbox)]
    if kind == "bubblewrap":
        twin = await open_twin(workspace, policy_of(workspace))
        idle = await open_twin(workspace, policy_of(workspace))
        assert idle.is_alive
        pool = CandidatePool(workspace, policy_of(workspace), size=1)
        await pool.start()
        [fork] = await workspace.fork()
        async with twin.on(fork) as inside, pool.candidate() as candidate:
            tasks += [await busy(inside), await busy(candidate.sandbox)]
            say("everything")
            await asyncio.wait(tasks)
    say("everything")
    await asyncio.wait(tasks)


async def beginnings(kind: str, workspace: Workspace) -> None:
    """Sandboxes are on their way, forks too."""
    opening = [asyncio.create_task(open_sandbox(policy_of(workspace), kind=kind))]
    if kind == "bubblewrap":
        asyncio.create_task(open_twin(workspace, policy_of(workspace))).add_done_callback(print)
    forks = asyncio.create_task(workspace.fork(3))
    await asyncio.to_thread(os.stat, "/")
    say("beginnings")
    await asyncio.wait([*opening, forks])
    await asyncio.Event().wait()


async def endings(kind: str, workspace: Workspace) -> None:
    """All that was there is being ended at once."""
    sandbox = await open_sandbox(policy_of(workspace), kind=kind)
    [fork, other] = await workspace.fork(2)
    tasks = [await busy(sandbox)]
    ending: list[Awaitable[object]] = [sandbox.close(), other.discard()]
    if kind == "bubblewrap":
        twin = await open_twin(workspace, policy_of(workspace))
        use = twin.on(fork)
        tasks.append(await busy(await use.__aenter__()))
        ending.append(use.__aexit__(None, None, None))
    begun = [asyncio.ensure_future(one) for one in ending]
    await asyncio.sleep(0)
    say("endings")
    await asyncio.wait([*begun, *tasks])
    await asyncio.Event().wait()


def policy_of(workspace: Workspace) -> Policy:
    return Policy(workspace.path, warm_tests=False)


async def parts_are_killed(kind: str, workspace: Workspace) -> None:
    """Each process of a sandbox in turn, idle and at work; the workspace is none the worse."""
    for victim in (first_process, server):
        for is_busy in (False, True):
            sandbox = await open_sandbox(policy_of(workspace), kind=kind)
            await kill_in(sandbox, victim, is_busy=is_busy)
            await sandbox.close()
            if kind == "bubblewrap":
                await kill_in_twin(workspace, victim, is_busy=is_busy)
            await asyncio.to_thread(orphans_end)
    assert await workspace.changed_files() == ["by-command"]


async def kill_in(
    sandbox: PersistentSandbox, victim: Callable[[PersistentSandbox], int], *, is_busy: bool
) -> None:
    """The command under way fails with a reason, and so does the next."""
    task = await busy(sandbox) if is_busy else None
    os.kill(victim(sandbox), signal.SIGKILL)
    if task is not None:
        await asyncio.wait([task])
        assert "has died" in str(task.exception()), task
    while sandbox.is_alive:  # the kernel takes a moment
        with suppress(SandboxError):
            await sandbox.run(Command(argv=["true"]))


async def kill_in_twin(
    workspace: Workspace, victim: Callable[[PersistentSandbox], int], *, is_busy: bool
) -> None:
    """While a fork is in it; the fork can still be read, and forked, and is not in the next."""
    twin = await open_twin(workspace, policy_of(workspace))
    [fork] = await workspace.fork()
    async with twin.on(fork) as sandbox:
        (fork.path / "by-agent").write_text("x")
        await kill_in(sandbox, victim, is_busy=is_busy)
    assert not twin.is_alive
    await twin.close()
    changed = {"by-agent", "by-command"} if is_busy else {"by-agent"}
    assert changed <= set(await fork.changed_files()) <= {"by-agent", "by-command"}
    await fork.discard()


def orphans_end() -> None:
    """Waits until nothing is left that came to this process, the nearest subreaper."""
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def first_process(sandbox: PersistentSandbox) -> int:
    """What the agent started."""
    assert sandbox.pid is not None
    return sandbox.pid


def server(sandbox: PersistentSandbox) -> int:
    """The exec server, as the agent numbers it."""
    pids = [first_process(sandbox), *below(first_process(sandbox))]
    return next(pid for pid in pids[::-1] if b"exec_server.py" in words_of(pid)[-3])


def words_of(pid: int) -> list[bytes]:
    return [b"", b"", *Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]


async def warm_parts_are_killed(kind: str, workspace: Workspace) -> None:
    """Each level of the warm process, idle and in the middle of a run: the verdict is true."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    policy = Policy(workspace.path, environment={"PATH": path})
    sandbox = await open_sandbox(policy, kind=kind)
    assert await sandbox.warm_tests_ready(), sandbox.warm_refusal
    gate, reached = (Gate(workspace.path / name) for name in ("gate", "reached"))
    (workspace.path / "mode").write_text("pass")
    assert (await sandbox.run(TESTS)).exit_code == 0
    await sandbox.settled()
    for which in (-1, 1, 0):  # the newest, one between, the one that all come from
        (workspace.path / "mode").write_text("wait")
        task = asyncio.create_task(sandbox.run(TESTS))
        await reached.passed()
        warm = [pid for pid in below(server(sandbox)) if b"warm" in b"".join(words_of(pid)[:5])]
        os.kill(warm[min(which, len(warm) - 1)], signal.SIGKILL)
        gate.open()
        assert (await task).exit_code in (0, -signal.SIGKILL), task
        for mode, code in (("fail", 1), ("pass", 0)):
            (workspace.path / "mode").write_text(mode)
            result = await sandbox.run(TESTS)
            assert result.exit_code == code, result
        await sandbox.settled()
    await sandbox.close()
    await asyncio.to_thread(orphans_end)
    for fifo in ("gate", "reached"):
        (workspace.path / fifo).unlink()


class Gate:
    """A fifo by which one side waits for the other; neither end ever blocks us."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def open(self) -> None:
        """Whoever reads goes on."""
        os.write(self._fd, b"x")

    async def passed(self) -> None:
        """The other side has written."""
        came = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, came.set)
        await came.wait()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.read(self._fd, 1)


async def main(kind: str, step: str, state: Path) -> None:
    """Go on until killed, or to the end."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    workspace = await open_workspace(state.with_name("repo"), state_dir=state, kind="overlay")
    (workspace.path / "lines").write_text("by the agent")
    if step == "everything":
        await everything(kind, workspace)
    elif step == "beginnings":
        await beginnings(kind, workspace)
    elif step == "endings":
        await endings(kind, workspace)
    (workspace.path / "lines").write_text("line\n")
    if step == "parts":
        await parts_are_killed(kind, workspace)
    elif step == "warm parts":
        await warm_parts_are_killed(kind, workspace)
    await workspace.discard()
    for place in ("workspaces", "tightloop-slots"):
        assert not (state / place).exists() or os.listdir(state / place) == [], place


if __name__ == "__main__":
    ours = Path(os.path.abspath("state"))
    assert own_namespace.enter(ours) == ""
    asyncio.run(main(sys.argv[1], sys.argv[2], ours))
    assert str(ours) not in Path("/proc/self/mountinfo").read_text()
    say("done")
