"""Tool calls of whole agents: ours and Codex CLI, against the same server with the same script.

Per call: from the last event of the response that asks for it to the arrival of the request with its
output, both seen from the server's side (``turnstile``). Model and server play no part in that.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from benchmarks.lab.processes import NotStarted
from benchmarks.lab.record import Experiment, Row, this_machine
from benchmarks.workshop import codex
from benchmarks.workshop.interleaved import Table
from benchmarks.workshop.programs import own_version
from benchmarks.workshop.projects import PYTEST, edit_patch, make_project, write_edit
from benchmarks.workshop.turns import Turns
from benchmarks.workshop.turnstile import Turnstile
from tightloop.bench.serve_process import ServeProcess
from tightloop.trace.clock import now_ns

NAME = "tool-calls"
OURS, PLAIN = "tightloop exec", "plain subprocess"
TESTS = "pytest after an edit"
LIMIT_S = 400.0
NUM_CALLS, NUM_TESTS = 30, 10
ENDED_WELL = r"(?i)exit(ed)?( with)? code:? 0"
EXPECTED = {"apply_patch": "Success", TESTS: "20 passed"}
"""What the output of each kind of call must hold."""
WARM_UP = 2
"""Calls of each kind that do not count."""


@dataclass(frozen=True, slots=True)
class Call:
    """One step of the script; ``argv`` is what it comes to, None for a patch."""

    kind: str
    name: str
    arguments: dict[str, object] | str
    argv: tuple[str, ...] | None


def shell(kind: str, argv: Sequence[str], **more: object) -> Call:
    """A call of the tool for commands, by the name that both agents know."""
    return Call(kind, "exec_command", {"cmd": " ".join(argv), **more}, tuple(argv))


def script(num_calls: int, num_tests: int) -> list[Call]:
    """What the model asks for: commands, the same without a login shell, then edits and tests."""
    calls = [shell("true", ("true",)) for _ in range(num_calls + WARM_UP)]
    calls += [
        shell("true, login false", ("true",), login=False) for _ in range(num_calls + WARM_UP)
    ]
    for number in range(num_tests + WARM_UP):
        calls.append(Call("apply_patch", "apply_patch", edit_patch(number), None))
        calls.append(shell(TESTS, PYTEST, login=False))
    return calls


def write_script(calls: Sequence[Call], path: Path) -> str:
    """The script as a file; the name of the model that plays it."""
    answers: list[object] = [
        [{"call": {"name": call.name, "arguments": call.arguments, "call_id": f"call_{number}"}}]
        for number, call in enumerate(calls)
    ]
    path.write_bytes(orjson.dumps({"answers": [*answers, [{"text": "all done"}]]}))
    return f"scripted:{path}"


@dataclass(slots=True)
class Agent:
    """One agent at work on a project of its own; ``mode`` is Codex's sandbox mode, None for ours."""

    name: str
    mode: str | None
    folder: Path
    keeping: frozenset[int] = frozenset()
    gaps_ns: list[int] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    passed_ns: list[int] = field(default_factory=list)

    async def work(self, url: str, turns: Turns) -> None:
        """From start to end of one session. Raises NotStarted when it ends badly."""
        project, home, tmp = (self.folder / name for name in ("project", "home", "tmp"))
        for each in (home, tmp):
            each.mkdir(parents=True)
        await asyncio.to_thread(make_project, project)
        async with Turnstile(url, turns, self.name, self.keeping) as turnstile:
            environment = codex.home_environment(home, tmp, turnstile.origin)
            if self.mode is None:
                argv = [sys.executable, "-m", "tightloop", "exec", "--server", turnstile.url]
                argv += ["--model", codex.MODEL, "--state-dir", str(home / "state")]
                argv += ["--max-turns", "1000", "go"]
            else:
                environment |= await codex.configure(home, turnstile.url, self.mode)
                argv = [str(codex.program()), "exec", "--skip-git-repo-check", "go"]
            try:
                await run(argv, project, environment, self.folder / "log")
            finally:
                await turns.leave(self.name)
                self.gaps_ns, self.outputs = turnstile.gaps_ns, turnstile.outputs
                self.arrived_ns, self.passed_ns = turnstile.arrived_ns, turnstile.passed_ns


async def run(argv: list[str], project: Path, environment: dict[str, str], log: Path) -> None:
    """To its end, as the leader of a process group. Raises NotStarted with its last words."""
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=project,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(LIMIT_S):
            status = await process.wait()
    except TimeoutError:
        status = -signal.SIGKILL
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status:
        raise NotStarted(f"status {status}: {_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_text("utf-8", "replace").strip()[-300:]


async def plain(calls: Sequence[Call], folder: Path, turns: Turns) -> list[int]:
    """The commands themselves, round by round; 0 for what is no command."""
    project = folder / "project"
    await asyncio.to_thread(make_project, project)
    environment = codex.home_environment(folder, folder, "")
    took: list[int] = []
    num_patches = 0
    for call in calls:
        await turns.take(PLAIN)
        if call.argv is None:
            write_edit(project, num_patches)
            num_patches += 1
            took.append(0)
        else:
            took.append(await asyncio.to_thread(_run_plainly, call.argv, project, environment))
            await turns.give(PLAIN)
    await turns.leave(PLAIN)
    return took


def _run_plainly(argv: Sequence[str], cwd: Path, environment: dict[str, str]) -> int:
    started_ns = now_ns()
    subprocess.run(
        argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    return now_ns() - started_ns


async def measured(calls: Sequence[Call], folder: Path) -> tuple[list[int], list[Agent], list[Row]]:
    """All at once, one at a time: the commands themselves, the agents, and those that failed."""
    patches = frozenset(number for number, call in enumerate(calls) if call.argv is None)
    agents = [Agent(OURS, None, folder / "ours", patches)]
    agents += [
        Agent(f"Codex CLI, {mode}", mode, folder / mode, patches)
        for mode in (codex.SANDBOXED, codex.UNCONFINED)
    ]
    turns = Turns([PLAIN, *(agent.name for agent in agents)])
    missing: list[Row] = []

    async def work(agent: Agent, url: str) -> None:
        try:
            await agent.work(url, turns)
        except NotStarted as error:
            missing.append(Row(agent.name, {}, {}, str(error)))
            agent.gaps_ns = []

    (folder / "plain").mkdir()
    async with AsyncExitStack() as stack:
        model = write_script(calls, folder / "script.json")
        server = await stack.enter_async_context(ServeProcess(model, folder / "serve"))
        async with asyncio.TaskGroup() as tasks:
            alone = tasks.create_task(plain(calls, folder / "plain", turns))
            for agent in agents:
                tasks.create_task(work(agent, server.url))
    return alone.result(), [agent for agent in agents if agent.gaps_ns], missing


def run_experiment(*, is_quick: bool) -> Experiment:
    """Measure; agents that cannot be started are rows without figures."""
    num_calls, num_tests = (6, 3) if is_quick else (NUM_CALLS, NUM_TESTS)
    calls = script(num_calls, num_tests)
    with tempfile.TemporaryDirectory(prefix="bench-tools-") as name:
        alone, agents, missing = asyncio.run(measured(calls, Path(name)))
    for agent in agents:
        check(agent, calls)
    table = Table()
    for kind in dict.fromkeys(call.kind for call in calls):
        chosen = [number for number, call in enumerate(calls) if call.kind == kind][WARM_UP:]
        series = {PLAIN: alone, **{agent.name: agent.gaps_ns for agent in agents}}
        took = {name: [gaps[n] / 1e6 for n in chosen] for name, gaps in series.items()}
        if not any(took[PLAIN]):
            del took[PLAIN]
        ours = [OURS] if OURS in took else []
        # A warm test run takes less than the command does outside.
        floor = PLAIN if PLAIN in took and kind != TESTS else ""
        table.add(took, ours, floor=floor, figure="per call", call=kind)
    return Experiment(
        name=NAME,
        title="Tool calls of whole agents, the same script from the same server",
        settings={"quick": is_quick, "calls": num_calls, "tests": num_tests},
        machine=this_machine(),
        versions={"tightloop": own_version(), **codex.versions()},
        rows=[*table.rows, *missing],
        ratios=table.ratios,
        notes=NOTES,
    )


def check(agent: Agent, calls: Sequence[Call]) -> None:
    """Every call was made and went well. Raises NotStarted otherwise."""
    if len(agent.gaps_ns) != len(calls):
        raise NotStarted(f"{agent.name} made {len(agent.gaps_ns)} of {len(calls)} calls")
    for call, output in zip(calls, agent.outputs, strict=True):
        if re.search(EXPECTED.get(call.kind, ENDED_WELL), output) is None:
            raise NotStarted(f"{agent.name}, {call.kind}: {output[:300]!r}")


NOTES = [
    "Per call: from the last event of the response that asks for it to the arrival of the request with its"
    " output, seen from the server's side; agents take turns, call by call, in sessions that go on.",
    "Codex CLI runs as installed, with its own defaults, once in its sandbox for commands and once without;"
    " it starts a login shell for a command unless the model says login false.",
    "The tests are asked for as soon as the patch's output has arrived: nobody has time between the two.",
    "tightloop exec works in an overlay of the repository, inside bubblewrap; its test runs are warm, the"
    " others cold: all see the same edit before.",
]
