"""The client's side of the experiment ``network``, run inside the near namespace.

Reads a plan (JSON, first argument), prints the samples as one JSON line. The ways run beside each
other, each with its own connection, its own turns and exactly the idle time asked for between
them: they share no bottleneck, and so all meet the same state of the machine.
"""

import asyncio
import random
import socket
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from benchmarks.net import namespaces
from benchmarks.net.printing import print_slowly
from benchmarks.net.trips import (
    STREAMED,
    TIGHT,
    TIGHT_TUNED,
    Sample,
    ask,
    new_item,
    output_text,
    request,
    transport_of,
    ttft_of,
)
from tightloop.bench.history import TOOLS, history
from tightloop.client.session import Session
from tightloop.client.transport import Transport
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item, item_from_wire
from tightloop.trace import latency
from tightloop.trace.latency import RoundTrip

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
    transport = transport_of(way, url)
    agent = (Streaming if way == STREAMED else Asking)(transport, block, way)
    samples: list[Sample] = []
    try:
        await agent.open()
        # Apart in time: what one way's request costs the two processors must not delay the others'.
        await asyncio.sleep(block.idle_s * lane / len(block.ways))
        for number in range(-NUM_WARMUP, block.rounds):
            trip = await agent.turn()
            if number >= 0:
                samples.append(_sample(block, way, number, trip, agent.request_bytes))
    finally:
        await transport.close()
    return samples


def _sample(block: Block, way: str, number: int, trip: RoundTrip, num_bytes: int) -> Sample:
    return Sample(
        way=way,
        history=block.history,
        new_bytes=block.new_bytes,
        idle_s=block.idle_s,
        number=number,
        ttft_s=ttft_of(trip),
        overhead_s=latency.round_trip_overhead_s(trip),
        round_trip_s=latency.round_trip_s(trip),
        request_bytes=num_bytes,
    )


class Asking:
    """Turns that all start from the same history: a tool runs, then its output is sent."""

    def __init__(self, transport: Transport, block: Block, way: str) -> None:
        self.request_bytes = 0
        self._transport, self._block = transport, block
        self._continues = way in (TIGHT, TIGHT_TUNED)
        self._rng = random.Random(f"{way} {block.history} {block.new_bytes}")
        self._items = history(block.history_bytes)
        self._parent = ""

    async def open(self) -> None:
        """Leave the history with the server, where it keeps one."""
        if self._continues:
            _, self._parent = await ask(self._transport, request(self._items, store=True))

    async def turn(self) -> RoundTrip:
        """The tool's time, then one round trip."""
        new = new_item(self._rng, self._block.new_bytes)
        if self._continues:
            asked = request([new], previous_response_id=self._parent)
        else:
            asked = request([*self._items, new])
        self.request_bytes = len(orjson.dumps(asked))
        await asyncio.sleep(self._block.idle_s)
        trip, _ = await ask(self._transport, asked)
        return trip


class Streaming:
    """Turns of one growing conversation; the output goes out while the tool prints it, and whole
    at the end."""

    def __init__(self, transport: Transport, block: Block, way: str) -> None:
        self.request_bytes = 0
        self._block = block
        self._rng = random.Random(f"{way} {block.history} {block.new_bytes}")
        self._session = Session(transport, model="scripted", tools=TOOLS)

    async def open(self) -> None:
        """Leave the history with the server. Its answer calls the tool."""
        items = [item_from_wire(fields) for fields in history(self._block.history_bytes)[:-1]]
        await self._ask(items)

    async def turn(self) -> RoundTrip:
        """The tool's time with its output in pieces, then one round trip."""
        assert self._session.last is not None
        call = self._session.last.output_items[0]
        assert isinstance(call, FunctionCall)
        text = output_text(self._rng, self._block.new_bytes)
        self.request_bytes = len(text)
        await print_slowly(self._session, call.call_id, text, self._block.idle_s)
        await self._ask([FunctionCallOutput(call.call_id, text)])
        return self._session.trips[-1]

    async def _ask(self, items: Sequence[Item]) -> None:
        async with aclosing(self._session.respond(items)) as events:
            async for _ in events:
                pass


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
