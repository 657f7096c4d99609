"""An engine that plays a script at a stated decode rate: what a fast model is to the loop around it.

A shipped, documented fake. A token is four characters. Prefill takes no time: a prompt cache of a
good host makes a known history nearly free. Deltas leave at absolute deadlines, so that the rate
holds whatever the clock's granularity is; all that is due goes out as one batch. ``tightloop serve
--model scripted:FILE`` uses it for a script with ``tokens_per_s``. Places to hold are passed over.
"""

import asyncio
from collections.abc import Sequence

from msgspec import structs

from tightloop.engine.interface import GenerationRequest, ModelInfo, Sink
from tightloop.engine.scripted import Hold, Script
from tightloop.protocol.deltas import (
    Delta,
    EngineTiming,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    Usage,
)
from tightloop.trace.clock import now_ns

CHARS_PER_TOKEN = 4


def in_tokens(answer: Sequence[Delta | Hold]) -> list[tuple[int, Delta]]:
    """The answer as pieces of a token each: (tokens decoded up to it and with it, delta)."""
    pieces: list[tuple[int, Delta]] = []
    num_tokens = 0
    for step in answer:
        if isinstance(step, TextDelta):
            parts: list[Delta] = [TextDelta(text) for text in _cut(step.text)]
        elif isinstance(step, ToolCallDelta):
            parts = [ToolCallDelta(text) for text in _cut(step.text)]
        elif isinstance(step, ReasoningDelta):
            parts = [ReasoningDelta(text) for text in _cut(step.text)]
        elif isinstance(step, Hold):
            continue
        else:
            parts = [step]
        for part in parts:
            # the end of a call, or of the answer, is no token
            num_tokens += not isinstance(part, ToolCallDone | Finished)
            pieces.append((num_tokens, part))
    return pieces


def _cut(text: str) -> list[str]:
    return [text[at : at + CHARS_PER_TOKEN] for at in range(0, len(text), CHARS_PER_TOKEN)]


class PacedEngine:
    """Plays ``script`` at ``tokens_per_s``, the first token after one token's time."""

    def __init__(self, script: Script, tokens_per_s: float, *, name: str = "paced") -> None:
        self._script = script
        self._name = name
        self._token_ns = 1e9 / tokens_per_s
        self._playing: set[_Paced] = set()

    def models(self) -> Sequence[ModelInfo]:
        """One model, under the name given."""
        return [ModelInfo(self._name, "a script at a stated rate", 1 << 20)]

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """End what is running."""
        for generation in list(self._playing):
            generation.cancel()

    async def count_input(self, request: GenerationRequest) -> int:
        """Not counted: this engine has no tokeniser."""
        return 0

    def submit(self, request: GenerationRequest, sink: Sink) -> "_Paced":
        """Play the script's answer to ``request``."""
        pieces = in_tokens(self._script(request)) if request.generate else []
        generation = _Paced(pieces, sink, self._token_ns, self._playing)
        self._playing.add(generation)
        generation.step()
        return generation


class _Paced:
    """One answer being played."""

    def __init__(
        self,
        pieces: list[tuple[int, Delta]],
        sink: Sink,
        token_ns: float,
        playing: "set[_Paced]",
    ) -> None:
        self._pieces, self._sink, self._token_ns, self._playing = pieces, sink, token_ns, playing
        self._start_ns = now_ns()
        self._first_ns = 0
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def step(self) -> None:
        """Hand on what is due and come back for the rest."""
        now = now_ns()
        batch: list[Delta] = []
        ending: Finished | None = None
        while self._next < len(self._pieces) and self._due_ns(self._next) <= now:
            delta = self._pieces[self._next][1]
            self._next += 1
            if isinstance(delta, Finished):
                ending = delta
                break
            batch.append(delta)
        if batch:
            self._first_ns = self._first_ns or now
            self._sink(batch)
        if ending is not None:
            self._finish(ending.reason, ending)
            return
        if self._next == len(self._pieces):
            has_call = any(isinstance(delta, ToolCallDone) for _, delta in self._pieces)
            self._finish(FinishReason.TOOL_CALLS if has_call else FinishReason.STOP)
            return
        delay_s = max(0, self._due_ns(self._next) - now_ns()) / 1e9
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.step)

    def cancel(self) -> None:
        """End the answer early."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_over:
            asyncio.get_running_loop().call_soon(self._finish, FinishReason.CANCELLED)

    def _due_ns(self, index: int) -> float:
        return self._start_ns + self._pieces[index][0] * self._token_ns

    def _finish(self, reason: FinishReason, ending: Finished | None = None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._playing.discard(self)
        num_tokens = self._pieces[self._next - 1][0] if self._next else 0
        timing = EngineTiming(
            self._start_ns,
            self._start_ns,
            self._start_ns,
            now_ns(),
            num_decode_steps=num_tokens,
            first_delta_ns=self._first_ns,
        )
        finished = Finished(reason, Usage(output_tokens=num_tokens), timing)
        if ending is not None:
            usage = structs.replace(ending.usage, output_tokens=num_tokens)
            finished = structs.replace(ending, usage=usage, timing=timing)
        self._sink([finished])
