"""tightloop's own server with an engine that costs next to nothing: what the server itself costs.

The engine says what the upstream stub says, clock readings at a set pace, from the same kind of
timer, on the server's own event loop. So the CPU time of this process contains making the tokens and
waking up for them, which a gateway's does not. Obeys ``pace RATE NUM`` on standard input, as the stub.
"""

import asyncio
import gc
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.pacer import SECOND_NS, Pacer
from benchmarks.peers.stub import BURST, State, command
from tightloop.cli.event_loop import run
from tightloop.engine.interface import GenerationRequest, ModelInfo, Sink
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import EngineTiming, Finished, FinishReason, TextDelta, Usage
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store
from tightloop.trace.clock import now_ns


class PacedEngine:
    """Answers every request with clock readings; one batch for the tokens that are due."""

    def __init__(self, state: State) -> None:
        self._state = state

    def models(self) -> Sequence[ModelInfo]:
        """One, named as the stub's."""
        return [ModelInfo("stub", "clock readings", 1 << 20)]

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to release."""

    async def count_input(self, _request: GenerationRequest) -> int:
        """Reads nothing."""
        return 0

    def submit(self, request: GenerationRequest, sink: Sink) -> "PacedGeneration":
        """Start one answer; its first token comes in the next turn of the loop."""
        generation = PacedGeneration(self._state, sink, is_silent=not request.generate)
        asyncio.get_running_loop().call_soon(generation.start)
        return generation


class PacedGeneration:
    """One answer on its way."""

    def __init__(self, state: State, sink: Sink, *, is_silent: bool) -> None:
        self._pacer, self._sink = state.pacer, sink
        self._num = 0 if is_silent else state.pace.num
        self._period_ns = SECOND_NS / state.pace.rate if state.pace.rate else 0.0
        self._start_ns = now_ns()
        self._first_ns = 0
        self._num_said = 0
        self._is_over = False

    def start(self) -> None:
        """The first token, and what brings the others."""
        self._first_ns = now_ns()
        if self._is_over:
            return
        if not self._num:
            self._finish(FinishReason.STOP)
        elif self._say(1) or not self._period_ns:
            self._go_on()
        else:
            self._pacer.at(self._due_ns(), self._tick)

    def cancel(self) -> None:
        """See ``Generation.cancel``."""
        if not self._is_over:
            self._finish(FinishReason.CANCELLED)

    def _go_on(self) -> None:
        if not self._is_over:
            asyncio.get_running_loop().call_soon(self._burst)

    def _burst(self) -> None:
        if not self._is_over:
            self._say(self._num_said + BURST)
            self._go_on()

    def _due_ns(self) -> int:
        return self._first_ns + int(self._num_said * self._period_ns)

    def _tick(self, time_ns: int) -> int | None:
        if self._is_over:
            return None
        due = int((time_ns - self._first_ns) / self._period_ns) + 1
        return None if due > self._num_said and self._say(due) else self._due_ns()

    def _say(self, due: int) -> bool:
        """Up to ``due`` tokens in all; whether that was the last."""
        due = min(due, self._num)
        text = TextDelta(f"{now_ns()} ")
        batch = [text] * (due - self._num_said)
        self._num_said = due
        if due < self._num:
            self._sink(batch)
            return False
        self._is_over = True
        self._sink([*batch, self._finished(FinishReason.STOP)])
        return True

    def _finish(self, reason: FinishReason) -> None:
        self._is_over = True
        self._sink([self._finished(reason)])

    def _finished(self, reason: FinishReason) -> Finished:
        timing = EngineTiming(
            self._start_ns, self._start_ns, self._first_ns, now_ns(), first_delta_ns=self._first_ns
        )
        return Finished(reason, Usage(10, 0, self._num_said), timing)


async def serve() -> None:
    """Print the URL, then obey standard input until it ends."""
    loop = asyncio.get_running_loop()
    state = State(Pacer(loop))
    ended = asyncio.Event()

    def readable() -> None:
        lines = os.read(0, 4096).decode().splitlines()
        if not lines:
            loop.remove_reader(0)
            ended.set()
        for line in lines:
            print(json.dumps(command(state, line)), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(PacedEngine(state), Store(Path(folder) / "responses.sqlite3"))
        server = Server(endpoint, Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
        url = await server.start()
        gc.collect()
        gc.freeze()  # as ``tightloop serve`` does
        print(json.dumps({"url": url}), flush=True)
        loop.add_reader(0, readable)
        await ended.wait()
        await server.stop(grace_s=0)


if __name__ == "__main__":
    run(serve())  # the loop that ``tightloop serve`` takes
