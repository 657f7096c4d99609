"""The client's side of the network experiment's turns on a real model, inside the near namespace.

Reads a plan (JSON, first argument), prints the samples as one JSON line. One way at a time, because
the model computes; in random order, round by round. Before the measured turn a tool runs for a
while, so that each connection is as idle as it would be.
"""

import asyncio
import random
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.net import namespaces
from benchmarks.net.follow_up import Case, Round
from benchmarks.net.network_client import SendingLoop
from benchmarks.net.printing import print_slowly
from benchmarks.net.trips import KEPT, NEW, STREAMED, TIGHT, TUNED, transport_of, ttft_of
from tightloop.protocol.items import FunctionCallOutput
from tightloop.trace.latency import RoundTrip

WAYS = (NEW, KEPT, TUNED, TIGHT, STREAMED)


class Plan(Struct, frozen=True, kw_only=True):
    """What one client measures."""

    url: str
    case: Case
    congestion_control: str


class EngineSample(Struct, frozen=True, kw_only=True):
    """One measured turn."""

    way: str
    number: int
    ttft_s: float
    cached_tokens: int
    input_tokens: int


async def measure(plan: Plan) -> list[EngineSample]:
    """All samples; the first round warms up."""
    rng = random.Random(str(plan.case))
    samples: list[EngineSample] = []
    for number in range(-1, plan.case.rounds):
        shared = f"{rng.getrandbits(64):016x}"
        for way in rng.sample(WAYS, len(WAYS)):
            turn = Round(plan.case, plan.url, shared, rng)
            try:
                trip = await measured_turn(turn, way)
            finally:
                for transport in turn.sessions:
                    await transport.close()
            if number >= 0:
                samples.append(
                    EngineSample(
                        way=way,
                        number=number,
                        ttft_s=ttft_of(trip),
                        cached_tokens=trip.cached_tokens,
                        input_tokens=trip.input_tokens,
                    )
                )
    return samples


async def measured_turn(turn: Round, way: str) -> RoundTrip:
    """The call, the tool's time, and the turn that answers it."""
    namespaces.set_ipv4("tcp_slow_start_after_idle", "0" if way == TUNED else "1")
    is_full = way not in (TIGHT, STREAMED)
    session = turn.session(transport_of(way, turn.url), full_resend=is_full)
    call_id = await turn.called(session)
    text = turn.text()
    if way == STREAMED:
        await print_slowly(session, call_id, text, turn.case.tool_s)
    else:
        await asyncio.sleep(turn.case.tool_s)
    return await turn.answer(session, [FunctionCallOutput(call_id, text)])


def main() -> None:
    """Measure what the plan says, print."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    namespaces.end_with_parent()
    with asyncio.Runner(loop_factory=lambda: SendingLoop(plan.congestion_control)) as runner:
        print(msgspec.json.encode(runner.run(measure(plan))).decode())


if __name__ == "__main__":
    main()
