"""Round trips of tightloop's own server and clients: prints one JSON object.

Time to first token and round-trip overhead (as ``trace.latency`` defines them) for one tool result
of 4 kB at several sizes of history, over: a WebSocket with only the new item; HTTP with only the
new item (stored parent, kept connection); HTTP with everything (kept connection); HTTP with
everything on a new connection; and in memory with only the new item. Variants are interleaved in random
order; medians and 90th percentiles. The engine is the scripted one, which answers at once and
tokenises nothing, so what is measured is transport, decoding, routing and hand-off. A real engine adds
the tokenisation of what is new to it, which for a full resend dwarfs everything here.

Server and client share the cores this process may use: run it under ``taskset -c 0`` for one-core
figures. The server's CPU time is that of its threads by scheduler accounting.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tightloop.bench.history import NEW_BYTES, TOOLS, history, output, tool_output
from tightloop.client.http import HttpTransport
from tightloop.client.in_memory import InMemoryTransport
from tightloop.client.transport import Transport
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, ScriptedEngine, call_answer
from tightloop.governance.keys import KeyRing
from tightloop.protocol.accumulator import OUTPUT_DELTA_TYPES, Accumulator
from tightloop.protocol.requests import TIMING_KEY
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store
from tightloop.trace import clock, latency
from tightloop.trace.latency import RoundTrip

HISTORIES = {"1k": 18_800, "10k": 53_000, "50k": 209_000}
"""Nominal tokens and bytes of JSON; coding-agent histories measure about 4 bytes a token."""

NUM_WARMUP = 5


@dataclass(slots=True)
class Variant:
    """One way to ask; ``sends_all`` is a full resend."""

    name: str
    transport: Transport
    sends_all: bool


@dataclass(slots=True)
class Samples:
    """What was measured of one variant at one size."""

    ttft_s: list[float] = field(default_factory=list)
    overhead_s: list[float] = field(default_factory=list)
    round_trip_s: list[float] = field(default_factory=list)
    server_cpu_ns: list[int] = field(default_factory=list)
    num_bytes: int = 0


def answer(_request: GenerationRequest) -> Answer:
    """A short tool call, whatever was asked: its cost does not depend on the history."""
    return call_answer("exec_command", {"cmd": "python -m pytest -q"}, "call_next")


def new_item() -> dict[str, Any]:
    return output("call_open", tool_output(random.Random()))


def request(items: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    metadata = {TIMING_KEY: "1"}
    fixed = {"model": "scripted", "tools": TOOLS, "store": False, "client_metadata": metadata}
    return {**fixed, "input": list(items), **fields}


async def ask(transport: Transport, asked: dict[str, Any]) -> tuple[RoundTrip, str]:
    """One round trip as the client sees it, and the id of the response."""
    response = Accumulator()
    first_ns: int | None = None
    sent_ns = clock.now_ns()
    async with aclosing(transport.stream(asked)) as events:
        async for event in events:
            kind = event["type"]
            if first_ns is None and (
                kind == "response.output_item.added" or kind in OUTPUT_DELTA_TYPES
            ):
                first_ns = clock.now_ns()
            response.feed(event)
    timing = response.timing or {}
    trip = RoundTrip(
        sent_ns=sent_ns,
        first_output_ns=first_ns,
        last_event_ns=clock.now_ns(),
        queue_s=timing.get("queue_s"),
        engine_first_token_s=timing.get("engine_first_token_s"),
    )
    return trip, response.response_id or ""


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


async def measure(variants: Sequence[Variant], pid: int, rounds: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for size, num_bytes in HISTORIES.items():
        items = history(num_bytes)
        parents = {
            variant.name: (await ask(variant.transport, request(items, store=True)))[1]
            for variant in variants
            if not variant.sends_all
        }
        samples: defaultdict[str, Samples] = defaultdict(Samples)
        for number in range(-NUM_WARMUP, rounds):
            for variant in random.sample(variants, len(variants)):
                if variant.sends_all:
                    asked = request([*items, new_item()])
                else:
                    parent = parents[variant.name]
                    asked = request([new_item()], previous_response_id=parent)
                before_ns = cpu_ns(pid)
                trip, _ = await ask(variant.transport, asked)
                spent_ns = cpu_ns(pid) - before_ns
                if number >= 0:
                    keep(samples[variant.name], trip, spent_ns, len(json.dumps(asked)))
        results[size] = {variant.name: summary(samples[variant.name]) for variant in variants}
    return results


def keep(samples: Samples, trip: RoundTrip, spent_ns: int, num_bytes: int) -> None:
    samples.ttft_s.append(latency.ttft_s(trip) or 0.0)
    samples.overhead_s.append(latency.round_trip_overhead_s(trip) or 0.0)
    samples.round_trip_s.append(latency.round_trip_s(trip))
    samples.server_cpu_ns.append(spent_ns)
    samples.num_bytes = num_bytes


def summary(samples: Samples) -> dict[str, float]:
    return {
        "ttft_us": micro(statistics.median(samples.ttft_s)),
        "ttft_min_us": micro(min(samples.ttft_s)),
        "ttft_p90_us": micro(statistics.quantiles(samples.ttft_s, n=10)[-1]),
        "overhead_us": micro(statistics.median(samples.overhead_s)),
        "round_trip_us": micro(statistics.median(samples.round_trip_s)),
        "server_cpu_us": round(statistics.median(samples.server_cpu_ns) / 1000),
        "request_bytes": samples.num_bytes,
    }


def micro(seconds: float) -> int:
    return round(seconds * 1e6)


async def serve() -> None:
    """The measured server, in a process of its own: prints its URL, ends with standard input."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(ScriptedEngine(answer), Store(Path(folder) / "responses.sqlite3"))
        access = Access(KeyRing(), "127.0.0.1")
        server = Server(endpoint, access, host="127.0.0.1", port=0)
        url = await server.start()
        gc.collect()
        gc.freeze()  # as ``tightloop serve`` does
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(grace_s=0)


async def compare(rounds: int) -> dict[str, Any]:
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    url = (await asyncio.to_thread(process.stdout.readline)).strip()
    local = Endpoint(ScriptedEngine(answer))
    variants = [
        Variant("websocket_incremental", WebSocketTransport(url), sends_all=False),
        Variant("http_kept_incremental", HttpTransport(url), sends_all=False),
        Variant("http_kept_full_resend", HttpTransport(url), sends_all=True),
        Variant(
            "http_new_connection_full_resend",
            HttpTransport(url, reuse_connection=False),
            sends_all=True,
        ),
        Variant("in_memory_incremental", InMemoryTransport(local), sends_all=False),
    ]
    try:
        return await measure(variants, process.pid, rounds)
    finally:
        for variant in variants:
            await variant.transport.close()
        await local.close()
        await asyncio.to_thread(process.communicate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="per variant and size (default 60)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
    results = asyncio.run(compare(arguments.rounds))
    print(
        json.dumps(
            {
                "benchmark": "round_trip",
                "cpus": sorted(os.sched_getaffinity(0)),
                "rounds": arguments.rounds,
                "new_item_bytes": NEW_BYTES,
                "histories": results,
            }
        )
    )


if __name__ == "__main__":
    main()
