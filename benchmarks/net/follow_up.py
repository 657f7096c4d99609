"""Experiment ``follow-up-ttft``: how long the first token takes after a tool has printed its output.

A real server process with a real llama.cpp model; five ways to hand it the same output:

- ``full resend, cold``: HTTP, the whole conversation; the engine has never seen any of it;
- ``full resend, warm``: HTTP, the whole conversation; the engine still holds it up to the call;
- ``incremental``: WebSocket, ``previous_response_id`` and the output;
- ``prewarmed``: a conversation that the engine does not hold (evicted, or resumed elsewhere) is sent
  with ``generate: false`` when the tool starts; then as incremental;
- ``streamed prefill``: as incremental, and the output is also sent in pieces while the tool prints it.

The models have random weights (``gguf_file``): speed is real, text is not. The ways are interleaved in
random order, round by round; histories begin with a mark of their own where nothing may be known.
"""

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.lab.record import Experiment, Figure, Ratio, Row, paired_ratio, this_machine
from benchmarks.net.printing import PIECES_PER_S, print_slowly
from benchmarks.net.random_models import parameters, random_model
from benchmarks.net.trips import output_text, ttft_of
from tightloop.bench.history import history, message
from tightloop.bench.serve_process import ServeProcess
from tightloop.client.http import HttpTransport
from tightloop.client.session import Session
from tightloop.client.transport import Transport
from tightloop.client.websocket import WebSocketTransport
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item
from tightloop.protocol.items import item_from_wire as item
from tightloop.trace.clock import now_ns
from tightloop.trace.latency import RoundTrip, round_trip_overhead_s

NAME = "follow-up-ttft"
COLD, WARM, INCREMENTAL = "full resend, cold", "full resend, warm", "incremental"
PREWARMED, STREAMED = "prewarmed", "streamed prefill"
WAYS = (COLD, WARM, INCREMENTAL, PREWARMED, STREAMED)
BYTES_PER_TOKEN = 2.56
"""Of the histories, with the vocabulary of the random models."""

ANSWER_TOKENS = 16
TURN_LIMIT_S = 180.0
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "exec_command",
    "description": "run the tests",
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
}
CALL_NOW = {"type": "function", "name": "exec_command"}


@dataclass(frozen=True, slots=True)
class Case:
    """Sizes in tokens, about; ``tool_s`` is how long the tool prints."""

    model: str
    history: int
    output: int
    tool_s: float
    rounds: int
    ways: tuple[str, ...] = WAYS


CASES = (
    Case("random-3m", 2_000, 1_000, 2.0, 5),
    Case("random-3m", 8_000, 1_000, 3.0, 1),
    Case("random-3m", 2_000, 8_000, 20.0, 2, (WARM, INCREMENTAL, STREAMED)),
    Case("random-30m", 1_000, 1_000, 5.0, 1),
    Case("random-500m", 256, 256, 8.0, 1),
)
"""Chosen so that all of it ends within five minutes: one thread of a CPU evaluates a few thousand
tokens per second of the smallest model and about a hundred of the largest, fewer the longer the
context is. The tools print as slowly as the engine needs to keep up."""

QUICK = (Case("random-3m", 1_000, 1_000, 2.0, 2), Case("random-30m", 512, 512, 3.0, 1))


class TurnSession(Session):
    """A session whose model can be made to call the tool: random weights never would."""

    def choose(self, tool_choice: object, max_output_tokens: int) -> None:
        """For the requests to come."""
        self._fixed["tool_choice"] = tool_choice
        self._fixed["max_output_tokens"] = max_output_tokens


@dataclass(slots=True)
class Round:
    """What all ways of one round share: the history that stays warm, and the output."""

    case: Case
    url: str
    shared: str
    rng: random.Random
    sessions: list[Transport] = field(default_factory=list)

    def opening(self, mark: str) -> list[Item]:
        """A history that begins with ``mark``, up to before the call."""
        fields = history(round(self.case.history * BYTES_PER_TOKEN))[1:-1]
        return [item(message(f"{mark} fix the failing test")), *map(item, fields)]

    def text(self) -> str:
        """A tool's output, never the same."""
        return output_text(self.rng, round(self.case.output * BYTES_PER_TOKEN))

    def session(self, transport: Transport, *, full_resend: bool = False) -> TurnSession:
        """A new conversation."""
        self.sessions.append(transport)
        options = {"temperature": 0}
        name = self.case.model
        return TurnSession(
            transport, model=name, tools=[TOOL], full_resend=full_resend, options=options
        )

    async def called(self, session: TurnSession) -> str:
        """The id of the call that ends the shared history, which is warm now."""
        session.choose(CALL_NOW, 64)
        await finish(session, self.opening(self.shared))
        outputs = session.last.output_items if session.last is not None else ()
        call = next(found for found in outputs if isinstance(found, FunctionCall))
        return call.call_id

    async def answer(self, session: TurnSession, items: Sequence[Item]) -> RoundTrip:
        """The measured turn."""
        session.choose("auto", ANSWER_TOKENS)
        await finish(session, items)
        return session.trips[-1]


async def finish(session: Session, items: Sequence[Item]) -> None:
    """One response to its end. Raises RuntimeError when it failed."""
    async with aclosing(session.respond(items)) as events:
        async for _ in events:
            pass
    if session.last is None or session.last.status not in ("completed", "incomplete"):
        raise RuntimeError(f"the response failed: {session.last and session.last.error}")


async def cold(turn: Round) -> RoundTrip:
    """See the module's text, as for all ways."""
    session = turn.session(HttpTransport(turn.url), full_resend=True)
    await session.connect()
    mark = f"{turn.rng.getrandbits(64):016x}"
    call = FunctionCall("call_open", TOOL["name"], "{}")
    known = [*turn.opening(mark), call]
    return await turn.answer(session, [*known, FunctionCallOutput("call_open", turn.text())])


async def warm(turn: Round) -> RoundTrip:
    session = turn.session(HttpTransport(turn.url), full_resend=True)
    call_id = await turn.called(session)
    return await turn.answer(session, [FunctionCallOutput(call_id, turn.text())])


async def incremental(turn: Round) -> RoundTrip:
    session = turn.session(WebSocketTransport(turn.url))
    call_id = await turn.called(session)
    return await turn.answer(session, [FunctionCallOutput(call_id, turn.text())])


async def prewarmed(turn: Round) -> RoundTrip:
    session = turn.session(WebSocketTransport(turn.url))
    await session.connect()
    mark = f"{turn.rng.getrandbits(64):016x}"
    call = FunctionCall("call_open", TOOL["name"], "{}")
    session.choose("auto", ANSWER_TOKENS)
    start_ns = now_ns()
    await session.prewarm([*turn.opening(mark), call])
    await asyncio.sleep(turn.case.tool_s - (now_ns() - start_ns) / 1e9)
    return await turn.answer(session, [FunctionCallOutput("call_open", turn.text())])


async def streamed(turn: Round) -> RoundTrip:
    session = turn.session(WebSocketTransport(turn.url))
    call_id = await turn.called(session)
    text = turn.text()
    await print_slowly(session, call_id, text, turn.case.tool_s)
    return await turn.answer(session, [FunctionCallOutput(call_id, text)])


TURNS: dict[str, Callable[[Round], Awaitable[RoundTrip]]] = {
    COLD: cold,
    WARM: warm,
    INCREMENTAL: incremental,
    PREWARMED: prewarmed,
    STREAMED: streamed,
}


async def measure(case: Case, url: str, say: Callable[[str], None]) -> dict[str, list[RoundTrip]]:
    """The trips of each way, round by round."""
    rng = random.Random(f"{case}")
    trips: dict[str, list[RoundTrip]] = {way: [] for way in case.ways}
    for number in range(case.rounds):
        shared = f"{rng.getrandbits(64):016x}"
        for way in rng.sample(case.ways, len(case.ways)):
            turn = Round(case, url, shared, rng)
            say(f"{case.model} {case.history}+{case.output} round {number + 1}: {way}")
            try:
                async with asyncio.timeout(TURN_LIMIT_S):
                    trips[way].append(await TURNS[way](turn))
            finally:
                for transport in turn.sessions:
                    await transport.close()
            say(f"  {1e3 * ttft_of(trips[way][-1]):.0f} ms")
    return trips


def rows_of(case: Case, trips: dict[str, list[RoundTrip]]) -> list[Row]:
    """A row a way."""
    params: dict[str, str | int | float | bool] = {
        "model": case.model,
        "history": case.history,
        "output": case.output,
        "tool_s": case.tool_s,
    }
    return [Row(way, params, _figures(measured)) for way, measured in trips.items()]


def _figures(trips: Sequence[RoundTrip]) -> dict[str, Figure]:
    overheads = [over for trip in trips if (over := round_trip_overhead_s(trip)) is not None]
    return {
        "ttft": Figure.of([1e3 * ttft_of(trip) for trip in trips], "ms"),
        "overhead": Figure.of([1e3 * over for over in overheads], "ms"),
        "cached": Figure.of([float(trip.cached_tokens) for trip in trips], "tokens"),
        "input": Figure.of([float(trip.input_tokens) for trip in trips], "tokens"),
    }


def ratios_of(case: Case, trips: dict[str, list[RoundTrip]]) -> list[Ratio]:
    """Streamed prefill over every other way, incremental over both resends, round by round."""
    name = f"ttft {case.model} {case.history}+{case.output}"
    series = {way: [ttft_of(trip) for trip in measured] for way, measured in trips.items()}
    pairs = [(STREAMED, way) for way in WAYS[:-1]]
    pairs += [(INCREMENTAL, COLD), (INCREMENTAL, WARM)]
    return [
        paired_ratio(name, of, over, series[of], series[over])
        for of, over in pairs
        if of in series and over in series
    ]


async def run(*, is_quick: bool, say: Callable[[str], None]) -> Experiment:
    """The whole experiment, one server a model."""
    cases = QUICK if is_quick else CASES
    rows: list[Row] = []
    ratios: list[Ratio] = []
    for model in dict.fromkeys(case.model for case in cases):
        path = await asyncio.to_thread(random_model, model)
        with tempfile.TemporaryDirectory(prefix="tightloop-bench-") as folder:
            async with ServeProcess(str(path), Path(folder)) as server:
                for case in (case for case in cases if case.model == model):
                    trips = await measure(case, server.url, say)
                    rows += rows_of(case, trips)
                    ratios += ratios_of(case, trips)
    used = dict.fromkeys(case.model for case in cases)
    return Experiment(
        name=NAME,
        title="Time to first token of a follow-up turn, by how the tool's output gets there",
        settings={
            "quick": is_quick,
            "answer_tokens": ANSWER_TOKENS,
            "pieces_per_s": PIECES_PER_S,
            **{f"parameters {model}": parameters(model) for model in used},
        },
        machine=this_machine(),
        versions={"xllamacpp": version("xllamacpp")},
        rows=rows,
        ratios=ratios,
        notes=[
            "Models have random weights: speed is that of the shape, the text is nonsense. Their output"
            " matrix can only choose words, so that the length asked for alone ends an answer.",
            "The call before the measured turn is forced with tool_choice: random weights make none.",
            "Streamed prefill can hide what the engine evaluates while the tool runs, no more: with few"
            " tokens/s of prefill and a short tool, most of the output is still to come.",
            "Sizes are kept small and the larger models are measured once or twice only, so that the"
            " experiment ends within five minutes on two cores: their intervals mean nothing.",
        ],
    )
