"""Several sessions on one engine: shared steps, prefill beside decoding, saving and restoring.

Prints one JSON object:

- ``parallel``: 1 to 16 sessions decode at once, each the same number of tokens. Tokens per second of
  all together, and milliseconds between two deliveries to one session (median, 99th percentile).
  ``joined`` is the engine as it is; ``in_turn`` is the same engine over a backend that evaluates the
  parts of a shared step one after the other, as it was before steps were shared.
- ``prefill_beside_decode``: one session decodes while another reads a long prompt, by the number of
  prompt tokens evaluated at a time: the decoding session's longest wait and its tokens meanwhile,
  and the time to the prompt's end. 0 is the prompt without a neighbour.
- ``restore``: saving and restoring a sequence against reading its tokens again.
- ``step_costs``: what a step of k tokens of one sequence costs, in steps of one.

Variants take turns within a round; medians over rounds. Usage:
``python -m benchmarks.bench_sessions [MODEL]``; ``--random WIDTH LAYERS`` makes a model instead.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import EngineError, Evaluate, GenerationRequest, Sampling
from tightloop.engine.llama_cpp.backend import LlamaCppBackend, Logits
from tightloop.engine.model_files import resolve
from tightloop.engine.rounds import SHARED_TOKENS
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import Delta, Finished
from tightloop.protocol.items import user_message
from tightloop.trace.clock import now_ns

SESSIONS = (1, 2, 4, 8, 16)
PIECES = (64, 128, 256, 512)
LONG_PROMPT, ROOM = 1500, 128
"""Tokens of a prompt, and of what stands around it: the model's own words, and an answer."""


class Endless(LlamaCppBackend):
    """Never ends a generation by itself."""

    @property
    def eos_tokens(self) -> frozenset[int]:
        return frozenset()


class InTurn(Endless):
    """Evaluates what should share a step one after the other."""

    def evaluate_many(self, parts: Sequence[Evaluate]) -> list[Logits | EngineError]:
        return [self.evaluate(p.sequence, p.tokens, all_logits=p.all_logits) for p in parts]


@dataclass(slots=True)
class Session:
    """Notes when something is delivered to it."""

    deliveries_ns: list[int] = field(default_factory=list)
    num_tokens: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, batch: Sequence[Delta]) -> None:
        self.deliveries_ns.append(now_ns())
        self.first.set()
        last = batch[-1]
        if isinstance(last, Finished):
            if last.error_message:
                raise SystemExit(last.error_message)
            self.num_tokens = last.usage.output_tokens
            self.done.set()

    def gaps_ms(self) -> list[float]:
        """Between two deliveries."""
        times = self.deliveries_ns
        return [(b - a) / 1e6 for a, b in pairwise(times)]


def ask(name: str, text: str, num_tokens: int) -> GenerationRequest:
    """A request for so many tokens; for none it only reads."""
    return GenerationRequest(
        name,
        "m",
        None,
        (user_message(text),),
        sampling=Sampling(temperature=0.0),
        max_output_tokens=num_tokens or None,
        generate=num_tokens > 0,
    )


class Bench:
    """Engines over one model file. Names of requests are never used twice."""

    def __init__(self, path: Path, num_context: int) -> None:
        self.path = path
        self.num_context = num_context
        self.window = num_context
        self._num_asked = 0

    async def engine(
        self,
        backend: Callable[..., LlamaCppBackend] = Endless,
        *,
        shared_tokens: int = SHARED_TOKENS,
    ) -> TokenEngine:
        """A started engine that drafts nothing and keeps nothing outside the context."""
        made = TokenEngine(
            lambda: backend(self.path, num_sequences=40, num_context=self.num_context),
            lambda pool: ChatFamily(pool, has_drafts=False),
            name="bench",
            saved_bytes=0,
            warm_bytes=0,
            shared_tokens=shared_tokens,
        )
        await made.start()
        return made

    def submit(self, engine: TokenEngine, text: str, num_tokens: int) -> Session:
        """A session that is being answered."""
        self._num_asked += 1
        session = Session()
        engine.submit(ask(f"r{self._num_asked}", f"{self._num_asked} {text}", num_tokens), session)
        return session

    async def parallel(self, rounds: int, num_tokens: int) -> dict[str, object]:
        """See the module."""
        engines = {"joined": await self.engine(), "in_turn": await self.engine(InTurn)}
        rates: dict[tuple[str, int], list[float]] = {}
        gaps: dict[tuple[str, int], list[float]] = {}
        for _ in range(rounds):
            for count in SESSIONS:
                for name, engine in engines.items():
                    start_ns = now_ns()
                    sessions = [self.submit(engine, "hello", num_tokens) for _ in range(count)]
                    for session in sessions:
                        await session.done.wait()
                    taken_s = (now_ns() - start_ns) / 1e9
                    total = sum(session.num_tokens for session in sessions)
                    rates.setdefault((name, count), []).append(total / taken_s)
                    for session in sessions:
                        gaps.setdefault((name, count), []).extend(session.gaps_ms())
        for engine in engines.values():
            await engine.close()
        return {
            name: {
                count: {
                    "tokens_per_s": round(statistics.median(rates[name, count])),
                    "gap_p50_ms": round(statistics.median(gaps[name, count]), 2),
                    "gap_p99_ms": round(statistics.quantiles(gaps[name, count], n=100)[98], 2),
                }
                for count in SESSIONS
            }
            for name in engines
        }

    async def prefill_beside_decode(self, rounds: int, num_prompt: int) -> dict[str, object]:
        """See the module."""
        engines = {size: await self.engine(shared_tokens=size) for size in PIECES}
        alone: list[float] = []
        found: dict[int, list[tuple[float, float, float]]] = {size: [] for size in PIECES}
        text = "x1" * (num_prompt // 2)
        for _ in range(rounds):
            for size, engine in engines.items():
                start_ns = now_ns()
                await self.submit(engine, text, 0).done.wait()
                alone.append((now_ns() - start_ns) / 1e6)
                decoding = self.submit(engine, "hello", 4000)
                await decoding.first.wait()
                start_ns, num_before = now_ns(), len(decoding.deliveries_ns)
                await self.submit(engine, text, 0).done.wait()
                end_ns = now_ns()
                times = [start_ns, *decoding.deliveries_ns[num_before:]]
                gaps = [(b - a) / 1e6 for a, b in pairwise(times)]
                found[size].append(((end_ns - start_ns) / 1e6, max(gaps, default=0.0), len(gaps)))
                await engine.close()
                engines[size] = await self.engine(shared_tokens=size)
        for engine in engines.values():
            await engine.close()
        columns = ("prompt_ms", "longest_wait_ms", "tokens_meanwhile")
        return {
            "prompt_tokens": num_prompt,
            "0": {"prompt_ms": round(statistics.median(alone), 1)},
            **{
                str(size): {
                    name: round(statistics.median(values), 1)
                    for name, values in zip(columns, zip(*rows, strict=True), strict=True)
                }
                for size, rows in found.items()
            },
        }

    def restore(self, rounds: int, sizes: Sequence[int]) -> dict[str, object]:
        """See the module."""
        backend = Endless(self.path, num_sequences=4, num_context=self.num_context)
        self.window = min(backend.context_window, self.num_context)
        result: dict[str, object] = {"step_costs": {}}
        for size in sizes:
            if size + 8 > min(backend.context_window, self.num_context // 2):
                continue
            times: dict[str, list[float]] = {"prefill_ms": [], "save_ms": [], "restore_ms": []}
            num_bytes = 0
            for _ in range(rounds):
                sequence = backend.open()
                marks = [now_ns()]
                backend.evaluate(sequence, [5 + n % 200 for n in range(size)])
                marks.append(now_ns())
                data = backend.save(sequence)
                marks.append(now_ns())
                restored = backend.restore(data)
                marks.append(now_ns())
                num_bytes = len(data)
                backend.close(sequence)
                backend.close(restored)
                for name, a, b in zip(times, marks, marks[1:], strict=False):
                    times[name].append((b - a) / 1e6)
            medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
            result[str(size)] = {**medians, "bytes": num_bytes}
        result["step_costs"] = {k: round(c, 2) for k, c in backend.step_costs().items()}
        backend.shutdown()
        return result


async def measure(path: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """The result as printed."""
    bench = Bench(path, arguments.context)
    restored = bench.restore(arguments.rounds, (400, 4000))
    return {
        "model": path.name,
        "step_costs": restored.pop("step_costs"),
        "restore": restored,
        "parallel": await bench.parallel(arguments.rounds, arguments.tokens),
        "prefill_beside_decode": await bench.prefill_beside_decode(
            arguments.rounds, arguments.prompt or min(LONG_PROMPT, bench.window - ROOM)
        ),
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="patchling")
    parser.add_argument("--random", nargs=2, type=int, metavar=("WIDTH", "LAYERS"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument(
        "--prompt", type=int, help="tokens of it (default: what the model can hold)"
    )
    parser.add_argument("--context", type=int, default=16384)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.random:
            width, layers = arguments.random
            path = Path(folder) / f"random-{width}x{layers}.gguf"
            write_gguf(path, num_context=8192, width=width, layers=layers)
        else:
            path = resolve(arguments.model)
        print(json.dumps(asyncio.run(measure(path, arguments))))


if __name__ == "__main__":
    main()
