"""Whoever is killed, and whenever: no process is left, no mount, no change in the workspace."""

import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.sandbox.conftest import OpenSandbox
from tests.sandbox.heard import Heard
from tests.sandbox.sandbox_owner import DAEMON, HOLD, STEPS
from tightloop.sandbox.interface import Command, SandboxError, Terminal
from tightloop.sandbox.isolation import KINDS
from tightloop.sandbox.session import PersistentSandbox

ALL_KINDS = pytest.mark.parametrize("kind", list(KINDS))
INSIDE_STEPS = {
    "idle": None,
    "command": Command(script=f"{HOLD} echo up; sleep 600"),
    "terminal": Command(script=f"{HOLD} echo up; sleep 600", terminal=Terminal()),
    "daemon": Command(script=f"{HOLD} {DAEMON} echo up; sleep 600"),
}


def descendants(pid: int) -> set[int]:
    """Every process below one, as the machine sees them."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            lists = [task / "children" for task in Path(f"/proc/{parent}/task").iterdir()]
            children = {int(child) for file in lists for child in file.read_text().split()}
        except OSError:
            continue
        waiting += children - found
        found |= children
    return found


async def all_dead(pidfds: list[int]) -> None:
    """Every process has ended; the test's time limit is the only one."""
    loop = asyncio.get_running_loop()
    for fd in pidfds:
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        await ended.wait()
        loop.remove_reader(fd)
        os.close(fd)


def watch(pids: set[int]) -> list[int]:
    """Descriptors that tell when these end; those that have ended already are left out."""
    found = []
    for pid in pids:
        try:
            found.append(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    return found


def unlocked(path: Path) -> None:
    """Nobody holds the lock any more: waits for it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)


def mounts(place: Path) -> list[str]:
    """What is mounted in or from a directory, as this process sees it."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if str(place) in line]


def tree(place: Path) -> dict[str, bytes | None]:
    """Names and contents of everything below a directory but the lock."""
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in sorted(place.rglob("*"))
        if path.name != "held"
    }


@ALL_KINDS
@pytest.mark.parametrize("step", STEPS)
async def test_killing_the_agent(kind: str, step: str, workspace: Path) -> None:
    """At every step, all that it had started ends by itself."""
    (workspace / "file").write_text("content\n")
    before = (mounts(workspace), tree(workspace))
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.sandbox.sandbox_owner", kind, str(workspace), step),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert agent.stdout is not None
    assert agent.stdin is not None
    if step == "closing":
        assert await agent.stdout.readline() == b"held\n"
        agent.stdin.write(b"\n")
    assert step == (await agent.stdout.readline()).decode().strip()
    pidfds = watch(descendants(agent.pid))
    assert pidfds or step in ("starting", "closing")
    agent.kill()
    await agent.wait()
    await all_dead(pidfds)
    await asyncio.to_thread(unlocked, workspace / "held")
    assert before == (mounts(workspace), tree(workspace))


async def held(sandbox: PersistentSandbox, command: Command) -> "asyncio.Task[object]":
    """The command runs, and holds its lock."""
    heard = Heard()
    task = asyncio.create_task(sandbox.run(command, heard))
    await heard.until("up")
    return task


def server_of(sandbox: PersistentSandbox) -> int:
    """The machine's process id of the exec server."""
    assert sandbox._process is not None
    for pid in {sandbox._process.pid, *descendants(sandbox._process.pid)}:
        if is_server(pid):
            return pid
    raise AssertionError("no exec server was found")


def is_server(pid: int) -> bool:
    """By its command line."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"python" in words[0] and words[-3:-2][0].endswith(b"exec_server.py")


@ALL_KINDS
@pytest.mark.parametrize("step", INSIDE_STEPS)
@pytest.mark.parametrize("victim", ["server", "start"])
async def test_killing_the_server_or_what_started_it(
    kind: str, step: str, victim: str, workspace: Path, opened: OpenSandbox
) -> None:
    """The command fails with a reason; after closing nothing is left, and a new one works."""
    (workspace / "file").write_text("content\n")
    before = (mounts(workspace), tree(workspace))
    sandbox = await opened(kind)
    assert sandbox._process is not None
    command = INSIDE_STEPS[step]
    task = await held(sandbox, command) if command is not None else None
    pidfds = watch({sandbox._process.pid, *descendants(sandbox._process.pid)})
    os.kill(server_of(sandbox) if victim == "server" else sandbox._process.pid, signal.SIGKILL)
    if task is not None:
        with pytest.raises(SandboxError, match="has died"):
            await task
    await sandbox.close()
    with pytest.raises(SandboxError):
        await sandbox.run(Command(argv=["true"]))
    await all_dead(pidfds)
    await asyncio.to_thread(unlocked, workspace / "held")
    assert before == (mounts(workspace), tree(workspace))
    another = await opened(kind)
    assert (await another.run(Command(argv=["true"]))).exit_code == 0


@ALL_KINDS
async def test_a_server_that_stands_still_is_ended_with_all_inside(
    kind: str, workspace: Path, opened: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command of the same user may stop it; closing does not wait for ever."""
    monkeypatch.setattr("tightloop.sandbox.session.KILL_LIMIT_S", 0.1)
    sandbox = await opened(kind)
    task = await held(sandbox, INSIDE_STEPS["daemon"] or Command())
    os.kill(server_of(sandbox), signal.SIGSTOP)
    await sandbox.close()
    with pytest.raises(SandboxError, match="was closed"):
        await task
    await asyncio.to_thread(unlocked, workspace / "held")


@pytest.mark.parametrize("kind", ["landlock", "none"])
async def test_what_outlives_agent_and_server_ends_with_the_next_start(
    kind: str, workspace: Path, opened: OpenSandbox
) -> None:
    """Without namespaces nobody is left to end it at once; the next sandbox of anybody does."""
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.sandbox.sandbox_owner", kind, str(workspace), "daemon"),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert agent.stdout is not None
    assert await agent.stdout.readline() == b"daemon\n"
    pids = descendants(agent.pid)
    pidfds = watch(pids)
    agent.send_signal(signal.SIGSTOP)  # it must not hear of the end of its server
    os.kill(next(pid for pid in pids if is_server(pid)), signal.SIGKILL)
    agent.kill()
    await agent.wait()
    sandbox = await opened(kind)
    await asyncio.to_thread(unlocked, workspace / "held")
    await all_dead(pidfds)
    assert (await sandbox.run(Command(argv=["true"]))).exit_code == 0
