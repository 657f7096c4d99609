"""Whole edit-test rounds of agents: ours and Codex CLI, the same trajectory from the same paced server.

A round is three responses: read a file, patch it, run its tests. The server decodes at a stated rate
(``engine.paced``: prefill takes no time), so a round takes what its tokens take and what the agent
adds. Wall time of a round: from letting its first request through to the arrival of the request
that brings the tests' output. Agents take turns, round by round.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.lab.processes import NotStarted
from benchmarks.lab.record import Experiment, Row, Value, this_machine
from benchmarks.workshop import codex
from benchmarks.workshop.interleaved import Table
from benchmarks.workshop.programs import own_version
from benchmarks.workshop.projects import EDITED, PYTEST, edit_patch
from benchmarks.workshop.tool_calls import OURS, TESTS, Agent, Call, check, shell
from benchmarks.workshop.turns import Turns
from tightloop.bench.serve_process import ServeProcess
from tightloop.engine.paced import CHARS_PER_TOKEN

NAME = "rounds"
NUM_ROUNDS = 30
FAST, SLOW = 1000.0, 65.0
WARM_UP = 1
CALLS = 3
MODEL_ALONE = "the tokens alone"
THOUGHT = "The body has to change, and the test of this module has to pass again. "


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens that the model writes in a round, and how many a second."""

    tokens: int
    tokens_per_s: float


SIZES = (Size(200, FAST), Size(600, FAST), Size(200, SLOW))


def script(num_rounds: int) -> list[Call]:
    """What the model asks for."""
    calls: list[Call] = []
    for number in range(num_rounds + WARM_UP):
        calls.append(shell("read", ("sed", "-n", "1,40p", EDITED), login=False))
        calls.append(Call("apply_patch", "apply_patch", edit_patch(number), None))
        calls.append(shell(TESTS, PYTEST, login=False))
    return calls


def answers(calls: Sequence[Call], tokens: int) -> list[list[object]]:
    """An answer for each call, with so much thought that a round has this many tokens."""
    found: list[list[object]] = []
    for first in range(0, len(calls), CALLS):
        of_round = calls[first : first + CALLS]
        left = tokens * CHARS_PER_TOKEN - sum(map(_size, of_round))
        if left < 0:
            raise ValueError(f"a round's calls are more than {tokens} tokens")
        for number, call in enumerate(of_round, first):
            thought = (THOUGHT * (left // len(THOUGHT) + 1))[: left // CALLS]
            named = {"name": call.name, "arguments": call.arguments, "call_id": f"call_{number}"}
            found.append([{"reasoning": thought}, {"call": named}])
    return [*found, [{"text": "all done"}]]


def _size(call: Call) -> int:
    arguments = call.arguments
    return len(arguments if isinstance(arguments, str) else orjson.dumps(arguments))


def walls_ms(agent: Agent, num_rounds: int) -> list[float]:
    """Of each round that counts, in order."""
    return [
        (agent.arrived_ns[CALLS * (n + 1)] - agent.passed_ns[CALLS * n]) / 1e6
        for n in range(WARM_UP, num_rounds + WARM_UP)
    ]


async def measured(size: Size, num_rounds: int, folder: Path) -> tuple[list[Agent], list[Row]]:
    """Agents that ran the whole trajectory, and rows for those that did not."""
    calls = script(num_rounds)
    ends = {n for n in range(len(calls)) if n % CALLS == CALLS - 1}
    keeping = frozenset(range(len(calls))) - ends
    agents = [Agent(OURS, None, folder / "ours", keeping)]
    agents += [
        Agent(f"Codex CLI, {mode}", mode, folder / mode, keeping)
        for mode in (codex.SANDBOXED, codex.UNCONFINED)
    ]
    turns = Turns([agent.name for agent in agents])
    missing: list[Row] = []

    async def work(agent: Agent, url: str) -> None:
        try:
            await agent.work(url, turns)
            check(agent, calls)
        except NotStarted as error:
            missing.append(Row(agent.name, {}, {}, str(error)))
            agent.gaps_ns = []

    script_file = folder / "script.json"
    body = {"answers": answers(calls, size.tokens), "tokens_per_s": size.tokens_per_s}
    script_file.write_bytes(orjson.dumps(body))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            ServeProcess(f"scripted:{script_file}", folder / "serve")
        )
        async with asyncio.TaskGroup() as tasks:
            for agent in agents:
                tasks.create_task(work(agent, server.url))
    return [agent for agent in agents if agent.gaps_ns], missing


def run_experiment(*, is_quick: bool) -> Experiment:
    """Measure; agents that cannot be started are rows without figures."""
    num_rounds = 3 if is_quick else NUM_ROUNDS
    table, missing = Table(), list[Row]()
    for size in SIZES:
        with tempfile.TemporaryDirectory(prefix="bench-rounds-") as name:
            agents, failed = asyncio.run(measured(size, num_rounds, Path(name)))
        missing += failed
        took = {agent.name: walls_ms(agent, num_rounds) for agent in agents}
        alone = [size.tokens / size.tokens_per_s * 1e3] * num_rounds
        ours = [OURS] if OURS in took else []
        params: dict[str, Value] = {"tokens/s": int(size.tokens_per_s), "tokens": size.tokens}
        table.add({MODEL_ALONE: alone, **took}, ours, floor="", figure="per round", **params)
    return Experiment(
        name=NAME,
        title="Edit-test rounds of whole agents: the same trajectory from the same paced server",
        settings={"quick": is_quick, "rounds": num_rounds},
        machine=this_machine(),
        versions={"tightloop": own_version(), **codex.versions()},
        rows=[*table.rows, *missing],
        ratios=table.ratios,
        notes=NOTES,
    )


NOTES = [
    "A round: read a file, patch it, run its tests (20, 20 modules imported); three responses. Wall time from"
    " letting its first request through to the arrival of the request with the tests' output.",
    "The server decodes at the stated rate and prefills in no time; a token is four characters. Both agents get"
    " the same answers over WebSocket, from tightloop serve; it and its relay are in every figure.",
    "Codex CLI runs as installed, with its own defaults, once in its sandbox and once without; commands ask for"
    " no login shell, which is the quicker way for it.",
    "tightloop exec runs tests warm and ahead of the model, in a copy, from the moment a patch is applied.",
]
