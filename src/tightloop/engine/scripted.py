"""The scripted engine: deterministic answers without a model. A shipped, documented fake.

It honours the whole ``Engine`` contract (batches, cancel, one ``Finished``), so servers, clients
and agents can be driven through every corner with it. ``tightloop serve --model scripted`` uses
``echo_script``. A script is a list of answers given in turn, or a function of the request.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from tightloop.engine.estimate import estimate_tokens
from tightloop.engine.interface import GenerationRequest, ModelInfo, Sink
from tightloop.protocol.deltas import (
    Delta,
    EngineTiming,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.items import Message
from tightloop.trace.clock import Clock, MonotonicClock

NUM_REQUESTS_KEPT = 1000
"""A server may run for months with this engine too."""


@dataclass(slots=True)
class Hold:
    """A place in an answer where the engine waits until ``release`` is set (or cancelled)."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)


Step = Delta | Hold
Answer = Sequence[Step]
Script = Callable[[GenerationRequest], Answer]


def text_answer(text: str) -> list[Step]:
    """One assistant message, a delta a word."""
    pieces = text.split(" ")
    return [TextDelta(piece if n == 0 else " " + piece) for n, piece in enumerate(pieces)]


def call_answer(name: str, arguments: object, call_id: str = "call_1") -> list[Step]:
    """One function call; a str argument makes it a custom (free-form) tool call."""
    is_custom = isinstance(arguments, str)
    body = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    half = len(body) // 2
    return [
        ToolCallStarted(call_id, name, is_custom),
        ToolCallDelta(body[:half]),
        ToolCallDelta(body[half:]),
        ToolCallDone(),
    ]


def echo_script(request: GenerationRequest) -> Answer:
    """Repeat the last user message: enough to see a stream."""
    texts = [item.text for item in request.context() if isinstance(item, Message)]
    return text_answer(f"echo: {texts[-1] if texts else ''}")


def in_turn(answers: Sequence[Answer]) -> Script:
    """A script that gives the answers one after the other, then says that it is exhausted."""
    remaining = list(answers)

    def script(_request: GenerationRequest) -> Answer:
        return remaining.pop(0) if remaining else text_answer("(the script has ended)")

    return script


class ScriptedEngine:
    """Answers from a script; one batch per run of deltas between holds.

    ``requests`` are the latest ones, oldest first. ``counts_input``: usage has an estimate of the
    input, which reads the whole context.
    """

    def __init__(
        self,
        script: Script = echo_script,
        *,
        name: str = "scripted",
        clock: Clock | None = None,
        counts_input: bool = False,
    ) -> None:
        self.requests: deque[GenerationRequest] = deque(maxlen=NUM_REQUESTS_KEPT)
        self._script = script
        self._name = name
        self._counts_input = counts_input
        self._clock = clock or MonotonicClock()
        self._tasks: set[asyncio.Task[None]] = set()

    def models(self) -> Sequence[ModelInfo]:
        """One model, under the name given."""
        return [ModelInfo(self._name, "deterministic answers without a model", 1 << 20)]

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Cancel what is running and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def count_input(self, request: GenerationRequest) -> int:
        """An estimate: this engine has no tokeniser."""
        return estimate_tokens(request)

    def submit(self, request: GenerationRequest, sink: Sink) -> "ScriptedGeneration":
        """Play the script's answer to ``request``."""
        self.requests.append(request)
        answer = self._script(request) if request.generate else []
        num_input = estimate_tokens(request) if self._counts_input else 0
        play = _Play(answer, sink, self._clock, num_input)
        task = asyncio.get_running_loop().create_task(play.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step never runs, and still must end.
        task.add_done_callback(lambda _: play.finish(FinishReason.CANCELLED))
        return ScriptedGeneration(task)


class _Play:
    """One answer being played."""

    def __init__(self, answer: Answer, sink: Sink, clock: Clock, num_input: int) -> None:
        self._answer = answer
        self._sink = sink
        self._clock = clock
        self._start_ns = clock.now_ns()
        self._first_ns = 0
        self._num_input = num_input
        self._num_output = 0
        self._batch: list[Delta] = []
        self._is_finished = False

    async def run(self) -> None:
        """Play to the end, or to the cancellation."""
        reason = FinishReason.STOP
        try:
            for step in self._answer:
                if isinstance(step, Hold):
                    self._flush()
                    step.reached.set()
                    await step.release.wait()
                elif isinstance(step, Finished):
                    self._end(step)
                    return
                else:
                    self._say(step)
                    if isinstance(step, ToolCallDone):
                        reason = FinishReason.TOOL_CALLS
        except asyncio.CancelledError:
            reason = FinishReason.CANCELLED
        self.finish(reason)

    def finish(self, reason: FinishReason) -> None:
        """The sink has had its ``Finished``."""
        if self._is_finished:
            return
        first = self._first_ns or self._clock.now_ns()
        timing = EngineTiming(
            self._start_ns,
            self._start_ns,
            first,
            self._clock.now_ns(),
            first_delta_ns=self._first_ns,
        )
        self._end(
            Finished(
                reason, Usage(input_tokens=self._num_input, output_tokens=self._num_output), timing
            )
        )

    def _say(self, delta: Delta) -> None:
        self._first_ns = self._first_ns or self._clock.now_ns()
        self._num_output += 1
        self._batch.append(delta)

    def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._sink(batch)

    def _end(self, finished: Finished) -> None:
        self._is_finished = True
        self._batch.append(finished)
        self._flush()


class ScriptedGeneration:
    """Handle of one running answer."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """End the answer early."""
        self._task.cancel()
