"""A soak of WebSocket mode: prints progress, then one JSON object; exits 1 if anything was lost.

64 lanes over 8 connections ask a real llama.cpp engine (a tiny network with random weights) for
answers, and do to the server what bad networks and impatient users do: cancel, interrupt and steer
at random, drop connections without a goodbye. A response whose connection was dropped is resumed over
HTTP from the next event. Counted: responses accepted (``response.created`` seen), delivered whole (every
number from 0 to the terminal event), resumed whole, and lost. At the end, once the grace of
the orphans is over, the server must have no turn, session or task left, and no sequence in use that
it does not know; its memory is sampled all along and must not grow in the last third. No response may fail.

Run with the repository's root on the path: ``PYTHONPATH=. python benchmarks/soak_wire.py``.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.registry import EngineOptions, create_engine
from tightloop.engine.sequence_pool import SequencePool
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store
from tightloop.trace import clock

NUM_CONNECTIONS = 8
LANES_PER_CONNECTION = 8
NUM_SEQUENCES = EngineOptions().num_sequences
GRACE_S = 2.0
MAX_GROWTH_MIB = 4.0
"""In the last third of the time, when every limit of what is kept has been reached (ten minutes)."""

SAMPLE_EVERY_S = 15.0
STALL_S = 60.0
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def now_s() -> float:
    """Seconds on a clock that never goes back."""
    return clock.now_ns() / 1e9


# ---------------------------------------------------------------------- the server's process


async def serve(folder: Path) -> None:
    """Serve until standard input ends; each line of it asks for the figures."""
    model = folder / "soak.gguf"
    write_gguf(model, num_context=8192)
    engine = create_engine(str(model))  # as anybody gets it: crowded, with 64 lanes
    endpoint = Endpoint(engine, Store(folder / "soak.db"), resume_grace_s=GRACE_S)
    server = Server(endpoint, Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    say(url=await server.start(), model=engine.models()[0].name)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        gc.collect()
        say(**figures(endpoint))
    await server.stop(grace_s=0)


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def figures(endpoint: Endpoint) -> dict[str, Any]:
    """What the server holds. Looks inside: a leak is what no interface shows."""
    backstage = endpoint.backstage
    pool = next(found for found in gc.get_objects() if isinstance(found, SequencePool))
    in_use = NUM_SEQUENCES - len(pool.backend._free)  # type: ignore[attr-defined]
    warm = sum(1 for _ in pool.newest_first())
    with Path("/proc/self/statm").open() as statm:
        resident = int(statm.read().split()[1]) * PAGE_BYTES
    return {
        "resident_mib": round(resident / (1 << 20), 1),
        "tasks": len(asyncio.all_tasks()),
        "turns": len(backstage.running),
        "orphans": len(backstage.orphans),
        "sessions": len(endpoint._sessions),
        "journal_mib": round(backstage.streams.num_bytes / (1 << 20), 2),
        "sequences_in_use": in_use,
        "sequences_warm": warm,
    }


# ---------------------------------------------------------------------- the clients


class Tally:
    """What happened to the responses of all lanes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.losses: list[str] = []

    def lose(self, reason: str) -> None:
        self.counts["lost"] += 1
        self.losses.append(reason)


class Lane:
    """One conversation on one ``stream_id``, one response after the other."""

    def __init__(self, name: str, tally: Tally, model: str, dice: random.Random) -> None:
        self.name = name
        self._tally = tally
        self._model = model
        self._dice = dice
        self._latest: str | None = None
        self._is_latest_stored = False
        self._is_stored = False
        self._is_expecting_successor = False
        self.response_id: str | None = None
        self.next_number = 0

    def create(self) -> dict[str, Any]:
        """The next request: new, or a continuation."""
        dice = self._dice
        self._is_stored = dice.random() < 0.5
        event: dict[str, Any] = {
            "type": "response.create",
            "model": self._model,
            "stream_id": self.name,
            "store": self._is_stored,
            "input": "word " * dice.randint(1, 40),
            "max_output_tokens": dice.randint(16, 64),
            "temperature": 1.0,
            "seed": dice.randint(0, 1 << 30),
        }
        if self._latest is not None and dice.random() < 0.6:
            event["previous_response_id"] = self._latest
        else:
            event["generate"] = dice.random() > 0.05
        return event

    def mischief(self) -> dict[str, Any] | None:
        """Something to send while the response is running, sometimes."""
        if self.response_id is None:
            return None
        chance = self._dice.random()
        if chance < 0.01:
            return {"type": "response.cancel", "response_id": self.response_id}
        if chance < 0.015:
            return {"type": "response.interrupt", "response_id": self.response_id}
        if chance < 0.025:
            return {
                "type": "response.steer",
                "previous_response_id": self.response_id,
                "input": "stop",
            }
        return None

    def take(self, event: dict[str, Any]) -> bool:
        """Whether the lane is free for its next request after this event."""
        kind = event["type"]
        if kind == "error":
            self._tally.counts[f"refused {event['error']['code']}"] += 1
            self._latest = None
            return True
        if kind == "response.steer.failed":
            self._tally.counts["steers failed"] += 1
            return False
        if kind == "response.created":
            self._tally.counts["accepted"] += 1
            self.response_id, self.next_number = event["response"]["id"], 0
            self._is_expecting_successor = False
        if kind == "response.steer.accepted":
            self._tally.counts["steers accepted"] += 1
            self._is_expecting_successor = True
        if event["sequence_number"] != self.next_number:
            self._tally.lose(f"{self.name}: {kind} has {event['sequence_number']}")
        self.next_number = event["sequence_number"] + 1
        if kind not in TERMINAL:
            return False
        self.end(event, "delivered")
        return not self._is_expecting_successor

    def end(self, event: dict[str, Any], how: str) -> None:
        """The response's terminal event has come."""
        self._tally.counts[how] += 1
        self._tally.counts[event["type"].removeprefix("response.")] += 1
        is_parent = event["type"] != "response.failed"
        if not is_parent:
            self._tally.counts[f"failed {event['response']['error']['code']}"] += 1
        self._latest = event["response"]["id"] if is_parent else None
        self._is_latest_stored = self._is_stored
        self.response_id = None

    def drop(self) -> None:
        """The connection is gone, and with it what was not stored."""
        self._is_expecting_successor = False
        if not self._is_latest_stored:
            self._latest = None


class Connection:
    """Eight lanes on one socket that is sometimes cut."""

    def __init__(
        self, number: int, url: str, model: str, tally: Tally, dice: random.Random
    ) -> None:
        self._url = url
        self._tally = tally
        self._dice = dice
        self._lanes = {
            name: Lane(name, tally, model, dice)
            for name in (f"c{number}-{n}" for n in range(LANES_PER_CONNECTION))
        }

    async def run(self, http: aiohttp.ClientSession, until_s: float) -> None:
        """Connect again and again until the time is up."""
        while now_s() < until_s:
            socket = await http.ws_connect(f"{self._url}/responses", max_msg_size=0)
            drop_at = now_s() + self._dice.uniform(1.0, 8.0)
            await self._talk(socket, min(drop_at, until_s), is_last=drop_at >= until_s)
            if socket._response.connection is not None:
                socket._response.connection.transport.abort()
            self._tally.counts["drops"] += 1
            for lane in self._lanes.values():
                if lane.response_id is not None:
                    await self._resume(http, lane)
                lane.drop()

    async def _talk(
        self, socket: aiohttp.ClientWebSocketResponse, until_s: float, *, is_last: bool
    ) -> None:
        for lane in self._lanes.values():
            await socket.send_json(lane.create())
        busy = set(self._lanes)
        while now_s() < until_s or (is_last and busy):
            async with asyncio.timeout(STALL_S):
                event = await socket.receive_json()
            lane = self._lanes[event["stream_id"]] if "stream_id" in event else self._owner(event)
            if lane is None:
                continue
            if lane.take(event):
                busy.discard(lane.name)
                if now_s() < until_s:
                    await socket.send_json(lane.create())
                    busy.add(lane.name)
            elif (mischief := lane.mischief()) is not None:
                await socket.send_json(mischief)

    def _owner(self, event: dict[str, Any]) -> Lane | None:
        """The lane of a failed steer, which names only its response."""
        target = event.get("steer", {}).get("previous_response_id")
        found = (lane for lane in self._lanes.values() if lane.response_id == target)
        return next(found, None)

    async def _resume(self, http: aiohttp.ClientSession, lane: Lane) -> None:
        after = lane.next_number - 1
        path = f"{self._url}/responses/{lane.response_id}?stream=true&starting_after={after}"
        async with asyncio.timeout(STALL_S), http.get(path) as response:
            if response.status != 200:
                self._tally.lose(f"{lane.name}: resuming gave {response.status}")
                return
            body = await response.read()
        event: dict[str, Any] = {}
        for frame in body.split(b"\n\n"):
            data = frame.partition(b"data: ")[2]
            if not data or data == b"[DONE]":
                continue
            event = json.loads(data)
            if event["sequence_number"] != lane.next_number:
                self._tally.lose(f"{lane.name}: resumed at {event['sequence_number']}")
                return
            lane.next_number += 1
        if event.get("type") in TERMINAL:
            lane.end(event, "resumed")
        else:
            self._tally.lose(f"{lane.name}: resumed without an end")


# ---------------------------------------------------------------------- both


async def soak(seconds: float, seed: int) -> bool:
    """Run it all; True when nothing was lost and nothing is left."""
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--serve",
            folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            return await drive(server, seconds, seed)
        finally:
            assert server.stdin is not None
            server.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await server.wait()
            if server.returncode is None:
                server.kill()
                await server.wait()


async def drive(server: asyncio.subprocess.Process, seconds: float, seed: int) -> bool:
    assert server.stdin is not None
    assert server.stdout is not None
    hello = json.loads(await server.stdout.readline())

    async def ask() -> dict[str, Any]:
        server.stdin.write(b"\n")  # type: ignore[union-attr]
        answer: dict[str, Any] = json.loads(await server.stdout.readline())  # type: ignore[union-attr]
        return answer

    tally, samples = Tally(), [await ask()]
    until_s = now_s() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as group:
        for n in range(NUM_CONNECTIONS):
            dice = random.Random(seed * 1000 + n)
            connection = Connection(n, hello["url"], hello["model"], tally, dice)
            group.create_task(connection.run(http, until_s))
        while (left := until_s - now_s()) > 0:
            await asyncio.sleep(min(SAMPLE_EVERY_S, left))
            samples.append(await ask())
            show(seconds - max(0.0, until_s - now_s()), samples[-1], tally)
    await asyncio.sleep(GRACE_S + 3.0)
    final = await ask()
    return report(seconds, seed, samples, final, tally)


def show(elapsed_s: float, sample: dict[str, Any], tally: Tally) -> None:
    counts = tally.counts
    print(
        f"{elapsed_s:5.0f} s  {sample['resident_mib']:6.1f} MiB  {sample['tasks']:3} tasks"
        f"  {sample['turns']:2} turns  accepted {counts['accepted']}  delivered"
        f" {counts['delivered']}  resumed {counts['resumed']}  lost {counts['lost']}",
        file=sys.stderr,
        flush=True,
    )


def report(
    seconds: float, seed: int, samples: list[dict[str, Any]], final: dict[str, Any], tally: Tally
) -> bool:
    counts = tally.counts
    settled = samples[len(samples) // 3 : -1] or samples
    unaccounted = counts["accepted"] - counts["delivered"] - counts["resumed"]
    leaks = {
        "turns": final["turns"],
        "orphans": final["orphans"],
        "sessions": final["sessions"],
        "tasks": final["tasks"] - samples[0]["tasks"],
        "sequences": final["sequences_in_use"] - final["sequences_warm"],
    }
    growth_mib = round(final["resident_mib"] - samples[-len(samples) // 3]["resident_mib"], 1)
    result = {
        "seconds": seconds,
        "seed": seed,
        "lanes": NUM_CONNECTIONS * LANES_PER_CONNECTION,
        "connections": NUM_CONNECTIONS,
        "counts": dict(sorted(counts.items())),
        "unaccounted": unaccounted,
        "losses": tally.losses[:10],
        "left_behind": leaks,
        "resident_mib": {
            "start": samples[0]["resident_mib"],
            "after_a_third": settled[0]["resident_mib"],
            "end": final["resident_mib"],
            "growth_in_the_last_third": growth_mib,
        },
        "resident_mib_samples": [sample["resident_mib"] for sample in samples],
        "final": final,
    }
    print(json.dumps(result))
    is_growing = growth_mib > MAX_GROWTH_MIB
    failures = sum(num for name, num in counts.items() if name.startswith("failed "))
    return not (counts["lost"] or unaccounted or failures or is_growing or any(leaks.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
        return 0
    return 0 if asyncio.run(soak(arguments.seconds, arguments.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
