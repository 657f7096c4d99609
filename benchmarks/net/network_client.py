"""The client's side of the experiment ``network``, run inside the near namespace.

Reads a plan (JSON, first argument), prints the samples as one JSON line. The ways run beside each
other, each with its own connection, its own turns and exactly the idle time asked for between
them: they share no bottleneck, and so all meet the same state of the machine.
"""

import asyncio
import random
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from benchmarks.net import namespaces
from benchmarks.net.trips import TIGHT, Sample, ask, new_item, request, transport_of, ttft_of
from tightloop.bench.history import history
from tightloop.trace import latency

NUM_WARMUP = 2


class Block(Struct, frozen=True, kw_only=True):
    """Turns of several ways that run beside each other."""

    ways: tuple[str, ...]
    history: str
    history_bytes: int
    new_bytes: int
    idle_s: float
    rounds: int


class Plan(Struct, frozen=True, kw_only=True):
    """What one client does in its namespace, block by block."""

    url: str
    blocks: tuple[Block, ...]
    congestion_control: str
    slow_start_after_idle: bool


class SendingLoop(asyncio.SelectorEventLoop):
    """Connects with a stated congestion control.

    By socket, since a namespace cannot make one its default that the kernel counts as restricted.
    """

    def __init__(self, congestion_control: str) -> None:
        super().__init__()
        self._name = congestion_control.encode()

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect ``sock``; its congestion control is set before its first packet."""
        if sock.type is socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self._name)
        await super().sock_connect(sock, address)


async def measure(plan: Plan) -> list[Sample]:
    """All samples, in the order of their blocks."""
    samples: list[Sample] = []
    for block in plan.blocks:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(turns(plan.url, block, way, number))
                for number, way in enumerate(block.ways)
            ]
        samples += [sample for task in tasks for sample in task.result()]
    return samples


async def turns(url: str, block: Block, way: str, lane: int) -> list[Sample]:
    """One way's turns; the first ones warm up."""
    rng = random.Random(f"{way} {block.history} {block.new_bytes}")
    items = history(block.history_bytes)
    transport = transport_of(way, url)
    samples: list[Sample] = []
    try:
        parent = ""
        if way == TIGHT:
            _, parent = await ask(transport, request(items, store=True))
        # Apart in time: what one way's request costs the two processors must not delay the others'.
        await asyncio.sleep(block.idle_s * lane / len(block.ways))
        for number in range(-NUM_WARMUP, block.rounds):
            await asyncio.sleep(block.idle_s)
            new = new_item(rng, block.new_bytes)
            if way == TIGHT:
                asked = request([new], previous_response_id=parent)
            else:
                asked = request([*items, new])
            trip, _ = await ask(transport, asked)
            if number < 0:
                continue
            samples.append(
                Sample(
                    way=way,
                    history=block.history,
                    new_bytes=block.new_bytes,
                    idle_s=block.idle_s,
                    number=number,
                    ttft_s=ttft_of(trip),
                    overhead_s=latency.round_trip_overhead_s(trip),
                    round_trip_s=latency.round_trip_s(trip),
                    request_bytes=len(orjson.dumps(asked)),
                )
            )
    finally:
        await transport.close()
    return samples


def main() -> None:
    """Set the namespace's TCP up as the plan says, measure, print."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    namespaces.end_with_parent()
    namespaces.set_ipv4("tcp_slow_start_after_idle", str(int(plan.slow_start_after_idle)))
    with asyncio.Runner(loop_factory=lambda: SendingLoop(plan.congestion_control)) as runner:
        samples = runner.run(measure(plan))
    print(msgspec.json.encode(samples).decode())


if __name__ == "__main__":
    main()
