"""Our decode loop against the bare llama.cpp loop, on the same model, in the same process.

Three loops decode the same greedy tokens after the same prompt, in turn, for a number of rounds:

- ``bare``: ``llama_decode`` and an argmax over its logits, nothing else: the floor;
- ``backend``: ``LlamaCppBackend.evaluate`` and an argmax;
- ``engine``: the whole ``TokenEngine`` with ``ChatFamily``: sampling, detokenising, parsing, and
  deltas delivered to a sink on the event loop that a server runs on.

Prints one JSON object: microseconds per token (median and quartiles over rounds), and the speed of
``backend`` and ``engine`` as shares of ``bare`` (medians of the rounds' own ratios, because noise
comes and goes between rounds). ``wall`` is elapsed time; ``cpu`` is CPU time of all threads of the
process, which other load on the machine disturbs less, and which counts the event loop's work too
although it runs beside the decoding. Usage: ``python benchmarks/bench_engine.py [MODEL]``.
"""

import argparse
import asyncio
import ctypes
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tightloop.cli.event_loop import run
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import GenerationRequest, Sampling
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.llama_cpp.library import Batch
from tightloop.engine.model_files import resolve
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import Delta, Finished
from tightloop.protocol.items import user_message
from tightloop.trace.clock import now_ns

PROMPT = "Say something about the weather, and go on for as long as you can."


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds per token."""

    wall: float
    cpu: float


class Watch:
    """Time since it was made."""

    def __init__(self) -> None:
        self._wall_ns, self._cpu_ns = now_ns(), time.process_time_ns()

    def per_token(self, num_tokens: int) -> Cost:
        """What each of ``num_tokens`` tokens has cost since."""
        wall, cpu = now_ns() - self._wall_ns, time.process_time_ns() - self._cpu_ns
        return Cost(wall / 1e9 / num_tokens, cpu / 1e9 / num_tokens)


class EndlessBackend(LlamaCppBackend):
    """Never ends a generation by itself, so that every loop decodes the same number of tokens."""

    @property
    def eos_tokens(self) -> frozenset[int]:
        return frozenset()


def bare_loop(backend: LlamaCppBackend, prompt: Sequence[int], num_tokens: int) -> Cost:
    """Seconds per token of the bare loop, on one of the backend's sequences."""
    sequence = backend.open()
    token = int(backend.evaluate(sequence, prompt).argmax())
    calls, context = backend.library.calls, backend._context
    one = ctypes.c_int32 * 1
    tokens, positions, counts = one(), one(), one(1)
    wanted = (ctypes.c_int8 * 1)(1)
    holder = one(sequence)
    ids = (ctypes.c_void_p * 1)(ctypes.addressof(holder))
    batch = Batch(
        1,
        ctypes.addressof(tokens),
        None,
        ctypes.addressof(positions),
        ctypes.addressof(counts),
        ctypes.addressof(ids),
        ctypes.addressof(wanted),
    )
    decode, logits_ith = calls["llama_decode"], calls["llama_get_logits_ith"]
    address = logits_ith(context, -1)
    logits = np.ctypeslib.as_array((ctypes.c_float * backend.num_vocab).from_address(address))
    watch = Watch()
    for step in range(num_tokens):
        tokens[0], positions[0] = token, len(prompt) + step
        decode(context, batch)
        logits_ith(context, -1)
        token = int(logits.argmax())
    cost = watch.per_token(num_tokens)
    backend.close(sequence)
    return cost


def backend_loop(backend: LlamaCppBackend, prompt: Sequence[int], num_tokens: int) -> Cost:
    """Seconds per token of ``evaluate`` and an argmax."""
    sequence = backend.open()
    token = int(backend.evaluate(sequence, prompt).argmax())
    watch = Watch()
    for _ in range(num_tokens):
        token = int(backend.evaluate(sequence, (token,)).argmax())
    cost = watch.per_token(num_tokens)
    backend.close(sequence)
    return cost


async def engine_loop(engine: TokenEngine, name: str, num_tokens: int) -> Cost:
    """Seconds per token of the engine, from the first delta to the last."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[Watch] = loop.create_future()
    done: asyncio.Future[Cost] = loop.create_future()

    def sink(batch: Sequence[Delta]) -> None:
        if not first.done():
            first.set_result(Watch())
        last = batch[-1]
        if isinstance(last, Finished):
            assert last.timing is not None
            done.set_result(first.result().per_token(last.timing.num_decode_steps))

    engine.submit(
        GenerationRequest(
            name,
            "m",
            None,
            (user_message(PROMPT),),
            sampling=Sampling(temperature=0.0),
            max_output_tokens=num_tokens + 1,
        ),
        sink,
    )
    return await done


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in microseconds."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median_us": _us(middle), "q1_us": _us(low), "q3_us": _us(high)}


def shares(bare: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Our speed as a share of the bare loop's, round by round."""
    ratios = [floor / own for floor, own in zip(bare, ours, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": round(middle, 3), "q1": round(low, 3), "q3": round(high, 3)}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 1)


async def measure(model: str, rounds: int, num_tokens: int) -> dict[str, object]:
    """The result as printed."""
    path = resolve(model)
    bare_backend = LlamaCppBackend(path, num_sequences=2)
    loops: dict[str, list[Cost]] = {"bare": [], "backend": [], "engine": []}
    # Without drafts: the bare loop has none. Nothing is kept: its rounds have no neighbours either,
    # over whose cells attention would go (what that costs: design/0016-warm-sessions.md).
    engine = TokenEngine(
        lambda: EndlessBackend(path, num_sequences=2),
        lambda pool: ChatFamily(pool, has_drafts=False),
        name="bench",
        saved_bytes=0,
        warm_bytes=0,
    )
    await engine.start()
    template = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    prompt = bare_backend.tokenize(template, special=True)
    for number in range(rounds):
        loops["bare"].append(bare_loop(bare_backend, prompt, num_tokens))
        loops["backend"].append(backend_loop(bare_backend, prompt, num_tokens))
        loops["engine"].append(await engine_loop(engine, f"r{number}", num_tokens))
    await engine.close()
    result: dict[str, object] = {
        "model": path.name,
        "num_parameters": bare_backend.num_parameters,
        "library": f"{bare_backend.library.package} {bare_backend.library.version}",
        "num_threads": bare_backend.num_threads,
        "rounds": rounds,
        "tokens_per_round": num_tokens,
    }
    for kind in ("wall", "cpu"):
        series = {name: [getattr(cost, kind) for cost in costs] for name, costs in loops.items()}
        result[kind] = {
            **{name: summary(values) for name, values in series.items()},
            **{
                f"{name}_share_of_bare": shares(series["bare"], series[name])
                for name in ("backend", "engine")
            },
        }
    bare_backend.shutdown()
    return result


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="patchling")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=300)
    arguments = parser.parse_args()
    print(json.dumps(run(measure(arguments.model, arguments.rounds, arguments.tokens))))


if __name__ == "__main__":
    main()
