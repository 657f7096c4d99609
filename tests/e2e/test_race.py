"""``tightloop exec --race`` as a person has it, with a real process, socket and sandboxes.

1. a race: the winner's diff on standard output, what it cost in the last lines
2. the same in JSON: the items of one turn, candidates in events of their own, the ledger at the end
3. killed while all candidates are at work: the checkout as it was, no process, no mount
4. interrupted: the same, with the exit status of an interrupt
5. the server is restarted in the middle: the race goes on

The models are scripted and told apart by their seed.
"""

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.e2e.conftest import command
from tests.e2e.test_workshop_exec import CONFIG, LIMIT_S
from tests.harness.racing.track import GREEN, PROMPT, RED, by_candidate, patch, runs_tests, words
from tests.harness.racing.track import command as runs
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine
from tightloop.governance.keys import KeyRing
from tightloop.sandbox.processes import family
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

WRONG = "echo 2 failed; exit 2\n"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Its tests fail."""
    place = tmp_path / "repo"
    place.mkdir()
    (place / "m").write_text(RED)
    (place / "pytest").write_text("#!/bin/bash\n. ./m\n")
    (place / "pytest").chmod(0o755)
    (place / ".tightloop.toml").write_text('[test]\ncommand = "./pytest"\n')
    (tmp_path / "config.toml").write_text(CONFIG)
    return place


def good() -> list[Answer]:
    return [runs_tests(), patch(RED, GREEN), runs_tests(), words("Mended.")]


@dataclass
class Run:
    process: asyncio.subprocess.Process
    server: Server
    engine: ScriptedEngine

    async def end(self) -> tuple[int | None, str, str]:
        async with asyncio.timeout(LIMIT_S):
            out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()


def serving(
    script: Callable[[GenerationRequest], Answer], port: int
) -> tuple[ScriptedEngine, Server]:
    engine = ScriptedEngine(script, counts_input=True)
    access = Access(KeyRing(), "127.0.0.1")
    return engine, Server(Endpoint(engine), access, host="127.0.0.1", port=port)


@asynccontextmanager
async def run_of(
    repo: Path, parts: Mapping[int, Sequence[Answer]], *more: str
) -> AsyncIterator[Run]:
    engine, server = serving(by_candidate(parts), 0)
    url = await server.start()
    process = await asyncio.create_subprocess_exec(
        *command(), "exec", PROMPT, "--repo", str(repo), "--state-dir", str(repo.parent / "state"),
        "--sandbox", "bubblewrap", "--server", url, "--config", str(repo.parent / "config.toml"),
        *more,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    run = Run(process, server, engine)
    try:
        yield run
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await run.server.stop(grace_s=0.0)


def stuck(line: str = "./pytest") -> tuple[list[Answer], Hold]:
    hold = Hold()
    return [runs(line), [*words("Hm. "), hold]], hold


async def test_1_a_race_and_what_it_cost(repo: Path) -> None:
    thinks, _ = stuck()
    async with run_of(repo, {0: thinks, 1: good()}, "--race", "2", "--apply") as run:
        code, out, err = await run.end()
    assert code == 0, err
    assert f"+{GREEN}" in out
    assert (repo / "m").read_text() == GREEN
    lines = err.splitlines()
    assert "#1 won: ./pytest" in lines
    assert "#0 cancelled" in lines
    (line,) = [line for line in lines if line.startswith("race: ")]
    assert line.startswith("race: 2 candidates, #1 won after ")
    assert line.endswith(" s of processor time of the others wasted")


async def test_2_events(repo: Path) -> None:
    """A reader of the original format, which passes over what it does not know, sees one plain turn."""
    bad = [runs_tests(), patch(RED, WRONG), runs_tests(), words("No.")]
    async with run_of(repo, {0: bad, 1: good()}, "--retry", "2", "--json") as run:
        code, out, err = await run.end()
    assert (code, err) == (0, "")
    events = [orjson.loads(line) for line in out.splitlines()]
    known = [e for e in events if e["type"] not in ("turn.race", "item.updated")]
    assert [event["type"] for event in known] == [
        "thread.started", "turn.started", "item.started", "item.completed", "item.completed",
        "item.started", "item.completed", "item.completed", "turn.completed",
    ]  # fmt: skip
    race = known[-1]["tightloop"]["race"]
    assert (race["mode"], race["winner"], race["num_started"]) == ("retry", 1, 2)
    assert [one["outcome"] for one in race["candidates"]] == ["red", "won"]
    assert known[-1]["usage"]["output_tokens"] == sum(
        one["output_tokens"] for one in race["candidates"]
    )


async def test_3_killed(repo: Path) -> None:
    """Candidates think and run commands."""
    (one, hold), (two, other) = stuck(), stuck()
    busy = [runs_tests(), runs("sleep 4321")]
    async with run_of(repo, {0: one, 1: two, 2: busy}, "--race", "3") as run:
        await hold.reached.wait()
        await other.reached.wait()
        members = family(run.process.pid)
        assert len(members) > 3
        os.kill(run.process.pid, signal.SIGKILL)
        await run.process.wait()
        async with asyncio.timeout(LIMIT_S):
            for pid in members:
                await asyncio.to_thread(_gone, pid)
    assert (repo / "m").read_text() == RED
    assert str(repo.parent) not in _mounts()
    async with run_of(repo, {0: good(), 1: good()}, "--race", "2") as run:
        assert (await run.end())[0] == 0
    for name in ("workspaces", "tightloop-slots"):
        assert list((repo.parent / "state" / name).iterdir()) == []


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def _gone(pid: int) -> None:
    """Return once there is no such process, or only its remains."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = poll.poll(LIMIT_S * 1000)
    os.close(descriptor)
    assert ended


async def test_4_interrupted(repo: Path) -> None:
    (one, hold), (two, other) = stuck(), stuck()
    async with run_of(repo, {0: one, 1: two}, "--race", "2") as run:
        await hold.reached.wait()
        await other.reached.wait()
        members = family(run.process.pid)
        run.process.send_signal(signal.SIGINT)
        code, out, _ = await run.end()
        for pid in members:
            await asyncio.to_thread(_gone, pid)
    assert (code, out) == (130, "")
    assert (repo / "m").read_text() == RED
    assert list((repo.parent / "state" / "workspaces").iterdir()) == []


async def test_5_the_server_is_restarted(repo: Path) -> None:
    """It has forgotten every conversation: all that is needed is sent again."""
    hold = Hold()
    slow = [runs_tests(), [hold, *patch(RED, GREEN)], runs_tests(), words("Mended.")]
    bad = [runs_tests(), words("No.")]
    script = by_candidate({0: slow, 1: bad})
    async with run_of(repo, {0: slow, 1: bad}, "--race", "2") as run:
        await hold.reached.wait()
        port = int(run.server.url.split(":")[2].removesuffix("/v1"))
        await run.server.stop(grace_s=0.0)
        hold.release.set()
        run.engine, run.server = serving(script, port)
        await run.server.start()
        code, out, err = await run.end()
    assert code == 0, err
    assert f"+{GREEN}" in out
