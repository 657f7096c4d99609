"""The first token after a tool that printed a lot, with and without streamed prefill.

Our server with a model of random weights, over a WebSocket, both in this process; the engine has one
thread, because two that wait for each other lose most of their time on a machine that is shared. For
each model the two ways take turns, each in a conversation whose history the engine has just read:

- ``plain``: the output goes out when the tool has ended;
- ``streamed``: it also goes out in pieces while the tool prints it.

The tool prints a hundredth of its output whenever the engine has read the one before, so it is as slow
as the engine and no slower, and ends with its last piece. ``ttft_ms`` is the client's; ``cpu_ms`` is what
this process computed until then, which other load on the machine hardly changes; ``left`` is how many
input tokens the last request still had to read; ``hint_us`` is what a hint costs the engine's thread
besides evaluating, for 64 hints of 400 characters each (a backend without a model).

Prints one JSON object. Usage: ``python -m benchmarks.bench_prefill [--models A,B]``.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.net.random_models import random_model
from tightloop.client.session import Session
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import Evaluate, GenerationRequest, Job, ModelInfo, Node, Sink
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.run import Run
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.token_engine import TokenEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import Delta, Finished
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item, user_message
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.trace.latency import RoundTrip, ttft_s

OUTPUT_TOKENS = {"random-3m": 8_000, "random-30m": 1_500}
"""Of the tool, for each model: more would take minutes a round with the larger one."""

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
NUM_PIECES = 100
POLL_S = 0.002


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


@dataclass(frozen=True, slots=True)
class Trip:
    """A round trip, and the CPU time of this process up to its first token, in seconds."""

    trip: RoundTrip
    cpu_s: float


async def finish(session: Session, *items: Item) -> Trip:
    """One response to its end. Events come from the first output on."""
    begun, first = time.process_time(), None
    async with aclosing(session.respond(items)) as events:
        async for _ in events:
            first = first or time.process_time()
    return Trip(session.trips[-1], (first or begun) - begun)


class Watched(TokenEngine):
    """``has_read`` is set while it reads nothing early."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.has_read = asyncio.Event()
        self.has_read.set()

    def submit(self, request: GenerationRequest, sink: Sink) -> Run:
        """As the engine's own."""
        if not request.is_open:
            return super().submit(request, sink)
        self.has_read.clear()

        def watch(deltas: Sequence[Delta]) -> None:
            if isinstance(deltas[-1], Finished):
                self.has_read.set()
            sink(deltas)  # which may ask for more at once

        return super().submit(request, watch)


def first_token_s(trip: RoundTrip) -> float:
    """Time to first token. Raises SystemExit for an answer without one."""
    found = ttft_s(trip)
    if found is None:
        raise SystemExit("the model answered nothing: there is no first token to time")
    return found


async def turn(url: str, engine: Watched, rng: random.Random, text: str, *, is_told: bool) -> Trip:
    """The measured round trip."""
    model = engine.models()[0].name
    session = Driven(WebSocketTransport(url), model=model, tools=[TOOL])
    try:
        await session.connect()
        session.choose(tool_choice={"type": "function", "name": "run"}, max_output_tokens=64)
        await finish(session, user_message(lines(rng, 3_000)))
        call = session.items[-1]
        if not isinstance(call, FunctionCall):
            raise SystemExit(f"the model made no call: {call}")
        told = 0
        for number in range(1, NUM_PIECES + 1) if is_told else ():
            end = len(text) * number // NUM_PIECES
            session.prefill(call.call_id, text[told:end])
            told = end
            await asyncio.sleep(POLL_S)
            if number < NUM_PIECES:
                await engine.has_read.wait()
        session.choose(tool_choice="auto", max_output_tokens=16)
        return await finish(session, FunctionCallOutput(call.call_id, text))
    finally:
        await session.close()


def engine_of(name: str, path: Path) -> Watched:
    """The model on one thread."""
    return Watched(
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
    num_tokens = arguments.tokens or OUTPUT_TOKENS.get(name, 1_000)
    size = round(num_tokens * chars_per_token)
    trips: dict[str, list[Trip]] = {"plain": [], "streamed": []}
    engine = engine_of(name, path)
    access = Access(KeyRing(()), "127.0.0.1")
    server = Server(Endpoint(engine), access, host="127.0.0.1", port=0)
    url = await server.start()
    try:
        await turn(url, engine, rng, lines(rng, 500), is_told=True)
        for _ in range(arguments.rounds):
            for way, measured in trips.items():
                text = lines(rng, size)
                measured.append(await turn(url, engine, rng, text, is_told=way == "streamed"))
                one = measured[-1]
                left = one.trip.input_tokens - one.trip.cached_tokens
                said = f"{name} {way}: {first_token_s(one.trip):.3f} s, {left} tokens left"
                print(f"{said}, {one.cpu_s:.3f} s of CPU", file=sys.stderr, flush=True)
    finally:
        await server.stop(grace_s=0)
    result: dict[str, Any] = {"model": name, "output_tokens": num_tokens}
    for way, measured in trips.items():
        result[way] = {
            "ttft_ms": [round(1e3 * first_token_s(one.trip)) for one in measured],
            "cpu_ms": [round(1e3 * one.cpu_s) for one in measured],
            "left": [one.trip.input_tokens - one.trip.cached_tokens for one in measured],
        }
    pairs = list(zip(trips["plain"], trips["streamed"], strict=True))
    ratios = {
        "ttft": [first_token_s(told.trip) / first_token_s(plain.trip) for plain, told in pairs],
        "cpu": [told.cpu_s / plain.cpu_s for plain, told in pairs],
    }
    result["ratio"] = {
        key: {
            "median": round(statistics.median(values), 3),
            "range": [round(min(values), 3), round(max(values), 3)],
        }
        for key, values in ratios.items()
    }
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
    """Nanoseconds of CPU time in the family's own steps."""
    spent, answer = 0, None
    while True:
        begun = time.process_time_ns()
        try:
            wanted = steps.send(answer)
        except StopIteration:
            return spent + time.process_time_ns() - begun
        spent += time.process_time_ns() - begun
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
    parser.add_argument("--tokens", type=int, help="of the tool's output (default: by the model)")
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    results = [asyncio.run(compare(name, arguments)) for name in names]
    hints = cost_of_hints(random_model(names[0]), 400, 64)
    print(json.dumps({"results": results, "hint_us": summary(hints)}))


if __name__ == "__main__":
    main()
