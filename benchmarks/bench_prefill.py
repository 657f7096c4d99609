"""The first token after a tool that printed a lot, with and without streamed prefill.

Our server with a model of random weights, over a WebSocket, both in this process; the engine has one
thread, because two that wait for each other lose most of their time on a machine that is shared. For
each model the two ways take turns, each in a conversation whose history the engine has just read:

- ``plain``: the output goes out when the tool has ended;
- ``streamed``: it also goes out in pieces while the tool prints it.

The tool prints evenly for ``--tool-factor`` times what reading its output took without, so that the
engine can keep up, and ends with its last piece. ``ttft`` is the client's, in milliseconds; ``left``
is how many input tokens the last request still had to read; ``hint_us`` is what a hint costs the engine
thread besides evaluating, by the number of tokens told before it (a backend without a model).

Prints one JSON object. Usage: ``python -m benchmarks.bench_prefill [--models A,B]``.
"""

import argparse
import asyncio
import json
import random
import statistics
from collections.abc import Generator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.net.random_models import random_model
from tightloop.client.session import Session
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import Evaluate, GenerationRequest, Job, ModelInfo, Node
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.token_engine import TokenEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item, user_message
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.trace.clock import now_ns
from tightloop.trace.latency import RoundTrip, ttft_s

PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = {"type": "function", "name": "run", "parameters": PARAMETERS}
WORDS = [
    "def",
    "return",
    "for",
    "in",
    "if",
    "not",
    "value",
    "items",
    "index",
    "result",
    "self",
    "None",
    "print",
    "assert",
    "test",
]
PIECES_PER_S = 20
MIN_TOOL_S = 1.0


class Driven(Session):
    """A session whose model can be made to call the tool, which random weights never would."""

    def choose(self, **fields: Any) -> None:
        """For the requests to come."""
        self._fixed |= fields


def lines(rng: random.Random, num_chars: int) -> str:
    """A tool's output, never the same."""
    text = ""
    while len(text) < num_chars:
        text += " ".join(rng.choices(WORDS, k=9)) + "\n"
    return text[:num_chars]


async def finish(session: Session, *items: Item) -> RoundTrip:
    """One response to its end."""
    async with aclosing(session.respond(items)) as events:
        async for _ in events:
            pass
    return session.trips[-1]


def first_token_s(trip: RoundTrip) -> float:
    """Time to first token. Raises SystemExit for an answer without one."""
    found = ttft_s(trip)
    if found is None:
        raise SystemExit("the model answered nothing: there is no first token to time")
    return found


async def turn(
    url: str, model: str, rng: random.Random, text: str, tool_s: float | None
) -> RoundTrip:
    """The measured round trip; ``tool_s`` None tells nothing early."""
    session = Driven(WebSocketTransport(url), model=model, tools=[TOOL])
    try:
        await session.connect()
        session.choose(tool_choice={"type": "function", "name": "run"}, max_output_tokens=64)
        await finish(session, user_message(lines(rng, 3_000)))
        call = session.items[-1]
        if not isinstance(call, FunctionCall):
            raise SystemExit(f"the model made no call: {call}")
        if tool_s is not None:
            num_pieces = max(1, round(tool_s * PIECES_PER_S))
            begun, told = now_ns(), 0
            for number in range(1, num_pieces + 1):
                due_s = tool_s * number / num_pieces
                await asyncio.sleep(max(0.0, due_s - (now_ns() - begun) / 1e9))
                end = len(text) * number // num_pieces
                session.prefill(call.call_id, text[told:end])
                told = end
        session.choose(tool_choice="auto", max_output_tokens=16)
        return await finish(session, FunctionCallOutput(call.call_id, text))
    finally:
        await session.close()


def engine_of(name: str, path: Path) -> TokenEngine:
    """The model on one thread."""
    return TokenEngine(
        lambda: LlamaCppBackend(path, num_sequences=8, num_threads=1),
        ChatFamily,
        name=name,
        describe=lambda backend: ModelInfo(
            name, context_window=backend.context_window, prefills_early=True
        ),
    )


async def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways with one model."""
    path = random_model(name)
    rng = random.Random(name)
    backend = LlamaCppBackend(path, num_sequences=1)
    sample = lines(rng, 20_000)
    chars_per_token = len(sample) / len(backend.tokenize(sample, special=False))
    backend.shutdown()
    size = round(arguments.tokens * chars_per_token)
    trips: dict[str, list[RoundTrip]] = {"plain": [], "streamed": []}
    ratios = []
    tool_s = 0.0
    server = Server(
        Endpoint(engine_of(name, path)), Access(KeyRing(()), "127.0.0.1"), host="127.0.0.1", port=0
    )
    url = await server.start()
    try:
        await turn(url, name, rng, lines(rng, 500), None)
        for _ in range(arguments.rounds):
            plain = await turn(url, name, rng, lines(rng, size), None)
            tool_s = max(MIN_TOOL_S, arguments.tool_factor * first_token_s(plain))
            told = await turn(url, name, rng, lines(rng, size), tool_s)
            trips["plain"].append(plain)
            trips["streamed"].append(told)
            ratios.append(first_token_s(told) / first_token_s(plain))
    finally:
        await server.stop(grace_s=0)
    result: dict[str, Any] = {"model": name, "output_tokens": arguments.tokens}
    for way, measured in trips.items():
        times = [1e3 * first_token_s(trip) for trip in measured]
        left = [trip.input_tokens - trip.cached_tokens for trip in measured]
        result[way] = {
            "ttft_ms": [round(value, 1) for value in times],
            "median_ms": round(statistics.median(times), 1),
            "left": left,
        }
    result["ratio"] = {
        "median": round(statistics.median(ratios), 3),
        "all": [round(ratio, 3) for ratio in ratios],
    }
    result["last_tool_s"] = round(tool_s, 2)
    return result


class Unevaluated(ScriptedBackend):
    """The tokeniser of a real model before a model that costs nothing."""

    def __init__(self, model: LlamaCppBackend) -> None:
        super().__init__(lambda _: 0, context_window=1 << 16, num_cells=1 << 20)
        self.token_bytes = model.token_bytes  # type: ignore[method-assign]
        self.tokenize = model.tokenize  # type: ignore[method-assign]

    @property
    def num_vocab(self) -> int:
        return 1 << 15


def drive(pool: SequencePool, steps: Generator[Evaluate | None, Any, Any]) -> int:
    """Nanoseconds in the family's own steps."""
    spent, answer = 0, None
    while True:
        begun = now_ns()
        try:
            wanted = steps.send(answer)
        except StopIteration:
            return spent + now_ns() - begun
        spent += now_ns() - begun
        answer = None
        if wanted is not None:
            answer = pool.evaluate(wanted.sequence, wanted.tokens)


def cost_of_hints(model: Path, piece: int, num_hints: int) -> list[int]:
    """Microseconds of each hint, ``piece`` characters longer than the one before."""
    real = LlamaCppBackend(model, num_sequences=1)
    pool = SequencePool(Unevaluated(real), lambda: False)
    family = ChatFamily(pool)

    def job(request: GenerationRequest) -> Job:
        def ignore(*_: Any) -> None:
            """Nobody counts here."""

        return Job(
            request=request,
            emit=ignore,
            is_cancelled=lambda: False,
            mark_prefilled=lambda: None,
            **{
                name: ignore
                for name in Job.__dataclass_fields__
                if name.startswith(("count_", "report_"))
            },
        )

    first = GenerationRequest("r1", "m", None, (user_message("go"),), generate=False)
    drive(pool, family.generate(job(first)))
    parent = Node("r1", None, (*first.items, FunctionCall("c", "run", "{}")))
    text = lines(random.Random(1), piece * num_hints)
    costs: list[int] = []
    for number in range(1, num_hints + 1):
        output = FunctionCallOutput("c", text[: piece * number])
        hint = replace(first, response_id="h", parent=parent, items=(output,), is_open=True)
        costs.append(drive(pool, family.generate(job(hint))) // 1000)
    real.shutdown()
    return costs


def summary(costs: Sequence[int]) -> dict[str, int]:
    """Medians of the first, the middle and the last tenth."""
    size = max(1, len(costs) // 10)
    middle = len(costs) // 2
    return {
        "first": round(statistics.median(costs[1 : 1 + size])),
        "middle": round(statistics.median(costs[middle : middle + size])),
        "last": round(statistics.median(costs[-size:])),
        "total": sum(costs),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", default="random-3m,random-30m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=8_000, help="of the tool's output")
    parser.add_argument("--tool-factor", type=float, default=1.5)
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    results = [asyncio.run(compare(name, arguments)) for name in names]
    hints = cost_of_hints(random_model(names[0]), 400, 64)
    print(json.dumps({"results": results, "hint_us": summary(hints)}))


if __name__ == "__main__":
    main()
