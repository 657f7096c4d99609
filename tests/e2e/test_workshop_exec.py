"""``tightloop exec`` with tests that run ahead of the model, as a person has it.

1. the model asks for what has run ahead: it gets that result, and the summary counts it as used
2. the model says its last word instead: what runs ahead ends with the turn, and is counted as wasted
3. the first in JSON: the figures stand in the closing event, nothing on standard error
4. interrupted while a run ahead goes on: nothing is left of it, and the log counts it

The model is a scripted one that waits; how far a run ahead has come is told by files: it waits itself
until one appears in its copy of the workspace.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.conftest import command
from tightloop.engine.scripted import (
    Answer,
    Hold,
    ScriptedEngine,
    call_answer,
    in_turn,
    text_answer,
)
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.trace.log import read_log

LIMIT_S = 90.0  # far above what it takes on a busy machine
CONFIG = "[sandbox.policies.workspace-write]\nwarm_tests = false\n"
"""Warm test processes only take time to start here."""
CACHE = ".pytest_cache"
PROGRAM = "#!/bin/bash\necho testing\n. ./m\n"
"""Passes for a test run at the price of a shell script; ``m`` is what it tests."""
WAITING = f"touch {CACHE}/up; until test -e {CACHE}/go; do sleep 0.01; done; exit 0"
PATCH = f"*** Begin Patch\n*** Update File: m\n@@\n-exit 1\n+{WAITING}\n*** End Patch"
TEST: dict[str, Any] = {"cmd": "./pytest"}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a failing test; its cache is there from the start."""
    place = tmp_path / "repo"
    (place / CACHE).mkdir(parents=True)
    (place / CACHE / "kept").touch()
    (place / "m").write_text("exit 1\n")
    (place / "pytest").write_text(PROGRAM)
    (place / "pytest").chmod(0o755)
    (place / "AGENTS.md").write_text("Run the tests with `./pytest`.\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "begin"]):
        settings = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", "-C", str(place), *settings, *words], check=True)
    return place


@dataclass
class Run:
    """A ``tightloop exec`` under way."""

    process: asyncio.subprocess.Process
    state: Path

    @property
    def workspaces(self) -> list[Path]:
        """Those of the session, its own one among them, as the session itself sees them."""
        own = Path(f"/proc/{self.process.pid}/root{self.state}/workspaces")
        return sorted(own.glob("*/view/repo"))

    async def until(self, find: Callable[[], Path | None]) -> Path:
        """What is found, once it is."""
        async with asyncio.timeout(LIMIT_S):
            while (found := await asyncio.to_thread(find)) is None:
                assert self.process.returncode is None
        return found

    async def ahead(self) -> Path:
        """The copy of the workspace in which a test command waits now."""
        return await self.until(
            lambda: next((one for one in self.workspaces if (one / CACHE / "up").exists()), None)
        )

    async def gone(self, copy: Path) -> None:
        """The copy is no more."""
        await self.until(lambda: None if copy in self.workspaces else copy)

    async def end(self) -> tuple[int | None, str, str]:
        """Exit code and both streams."""
        async with asyncio.timeout(LIMIT_S):
            out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def run_of(repo: Path, answers: Sequence[Answer], *more: str) -> AsyncIterator[Run]:
    """The program at work on the repository, with a model that gives these answers."""
    engine = ScriptedEngine(in_turn(answers))
    server = Server(Endpoint(engine), Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    url = await server.start()
    state, config = repo.parent / "state", repo.parent / "config.toml"
    config.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        *command(), "exec", "fix it", "--repo", str(repo), "--state-dir", str(state),
        "--sandbox", "bubblewrap", "--server", url, "--config", str(config), *more,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    try:
        yield Run(process, state)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await server.stop(grace_s=0.0)


def _calls(hold: Hold, last: Answer) -> list[Answer]:
    """A patch, then, when the hold is released, what is ``last``."""
    return [call_answer("apply_patch", PATCH, "c1"), [hold, *last], text_answer("fixed")]


async def _used(run: Run, hold: Hold) -> None:
    await hold.reached.wait()
    copy = await run.ahead()
    (copy / CACHE / "go").touch()
    await run.gone(copy)
    hold.release.set()


async def _wasted(run: Run, hold: Hold) -> None:
    await hold.reached.wait()
    await run.ahead()
    hold.release.set()


def _turn(state: Path) -> dict[str, Any]:
    (log,) = (state / "runs").iterdir()
    (turn,) = [line for line in read_log(log) if line["kind"] == "turn"]
    return turn


async def test_a_used_run_is_told_to_a_person(repo: Path) -> None:
    """Case 1. The repository is as it was, and no workspace is left."""
    hold = Hold()
    answers = _calls(hold, call_answer("exec_command", TEST, "c2"))
    async with run_of(repo, answers) as run:
        await _used(run, hold)
        code, out, err = await run.end()
    assert code == 0, err
    assert f"+{WAITING}" in out
    summary = err.splitlines()
    (line,) = [line for line in summary if "run ahead:" in line]
    assert line.startswith("1 run ahead: 1 used, ")
    assert line.endswith("; 0 wasted, 0 ms")
    (one,) = _turn(run.state)["tries"]
    assert (one["command"], one["is_used"], one["reason"]) == ("./pytest", True, "")
    assert one["started_ns"] < one["ran_ns"] < one["ended_ns"] < one["asked_ns"]
    assert list((run.state / "workspaces").iterdir()) == []
    assert (repo / "m").read_text() == "exit 1\n"
    assert not (repo / CACHE / "go").exists()


async def test_a_wasted_run_is_told_to_a_person(repo: Path) -> None:
    """Case 2. It was running when the turn ended, so it has cost something."""
    hold = Hold()
    async with run_of(repo, _calls(hold, text_answer("fixed"))) as run:
        await _wasted(run, hold)
        code, _, err = await run.end()
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if "run ahead:" in line]
    assert line.startswith("1 run ahead: 0 used, 0 ms saved, 0 ms of processor time; 1 wasted, ")
    assert not line.endswith(" 0 ms")
    (one,) = _turn(run.state)["tries"]
    assert (one["is_used"], one["reason"]) == (False, "nobody asked for it")
    assert one["cpu_s"] > 0
    assert list((run.state / "workspaces").iterdir()) == []


async def test_figures_in_json(repo: Path) -> None:
    """Case 3. They are those of the log; the command's own item says that it ran ahead."""
    hold = Hold()
    answers = _calls(hold, call_answer("exec_command", TEST, "c2"))
    async with run_of(repo, answers, "--json") as run:
        await _used(run, hold)
        code, out, err = await run.end()
    assert (code, err) == (0, "")
    events = [orjson.loads(line) for line in out.splitlines()]
    figures = events[-1]["tightloop"]["speculation"]
    (one,) = _turn(run.state)["tries"]
    assert (figures["used"], figures["wasted"], figures["wasted_cpu_ms"]) == (1, 0, 0)
    assert figures["used_cpu_ms"] == pytest.approx(one["cpu_s"] * 1e3)
    assert figures["saved_ms"] == pytest.approx((one["ended_ns"] - one["ran_ns"]) / 1e6, abs=0.001)
    (item,) = [
        event["item"]
        for event in events
        if event["type"] == "item.completed" and event["item"]["type"] == "command_execution"
    ]
    said = (item["aggregated_output"], item["exit_code"], item["how"])
    assert said == ("testing\n", 0, "spawn ahead")


async def test_an_interrupted_run_ahead_is_counted(repo: Path) -> None:
    """Case 4. Nothing of it is left, and the log has its cost."""
    hold = Hold()
    async with run_of(repo, _calls(hold, text_answer("fixed"))) as run:
        await hold.reached.wait()
        await run.ahead()
        run.process.send_signal(signal.SIGINT)
        code, _, err = await run.end()
    assert code == 130, err
    turn = _turn(run.state)
    (one,) = turn["tries"]
    assert (turn["status"], one["is_used"]) == ("cancelled", False)
    assert one["reason"] == "nobody asked for it"
    assert one["cpu_s"] > 0
    assert list((run.state / "workspaces").iterdir()) == []
