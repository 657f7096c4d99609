"""Drives a chat family without an engine: what it says, and what its sequences hold afterwards."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.families.warm_sequence import WarmSequence
from tightloop.engine.interface import EngineError, Evaluate, GenerationRequest, Job
from tightloop.engine.scripted_backend import NextToken, ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.deltas import Delta, FinishReason, TextDelta


class OpinionatedBackend(ScriptedBackend):
    """Every token has some chance, which depends on the tokens before it and on nothing else."""

    def __init__(
        self,
        next_token: NextToken,
        *,
        noise: float = 0.3,
        strength: float = 1.0,
        num_cells: int = 16384,
    ) -> None:
        super().__init__(next_token, num_cells=num_cells)
        self._noise = noise
        self._strength = strength

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> NDArray[np.float32]:
        """Logits of ``strength`` for the scripted token, and noise made from the last tokens."""
        rows = super().evaluate(sequence, tokens, all_logits=all_logits)
        held = self._sequences[sequence]
        size = len(tokens) if all_logits else 1
        for place, row in enumerate(rows.reshape(size, -1)):
            end = len(held) - size + place + 1
            seed = hashlib.blake2b(repr(held[max(0, end - 4) : end]).encode(), digest_size=8)
            noise = np.random.default_rng(int.from_bytes(seed.digest(), "big"))
            row *= self._strength
            row += noise.normal(0, self._noise, len(row)).astype(np.float32)
        return rows

    def tokens_of(self, sequence: int) -> list[int]:
        """The tokens of a sequence."""
        return list(self._sequences[sequence])


Steps = Generator[Evaluate | None, Any, FinishReason]


@dataclass
class Said:
    """What one generation came to. ``steps`` are the numbers of tokens evaluated together."""

    deltas: list[Delta] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    reason: FinishReason | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        """All text."""
        return "".join(delta.text for delta in self.deltas if isinstance(delta, TextDelta))

    def add(self, name: str, *values: int) -> None:
        """Add to the counts called ``name``."""
        known = self.counts.setdefault(name, [0] * len(values))
        self.counts[name] = [a + b for a, b in zip(known, values, strict=True)]


def drive(
    family: ChatFamily, pool: SequencePool, request: GenerationRequest, *, num_steps: int = 10_000
) -> Said:
    """The response, broken off like a cancelled one after ``num_steps`` evaluations."""
    said = Said()
    job = Job(
        request=request,
        emit=said.deltas.append,
        is_cancelled=lambda: False,
        mark_prefilled=lambda: None,
        count_prefill=lambda *counts: said.add("prefill", *counts),
        count_input=lambda *counts: said.add("input", *counts),
        count_decode=lambda *counts: said.add("decode", *counts),
        count_output=lambda count: said.add("output", count),
        count_reasoning=lambda count: said.add("reasoning", count),
        count_drafts=lambda *counts: said.add("drafts", *counts),
        count_prediction=lambda *counts: said.add("prediction", *counts),
        report_stop=lambda text: None,
    )
    steps = family.generate(job)
    try:
        wanted = next(steps)
        while len(said.steps) < num_steps:
            wanted = _answer(pool, steps, wanted, said)
        steps.close()
    except StopIteration as end:
        said.reason = end.value
    except EngineError as error:
        said.error = error.code
    return said


def _answer(
    pool: SequencePool, steps: Steps, wanted: Evaluate | None, said: Said
) -> Evaluate | None:
    if not isinstance(wanted, Evaluate):
        return next(steps)
    try:
        answer = pool.evaluate(wanted.sequence, wanted.tokens, all_logits=wanted.all_logits)
    except EngineError as error:
        return steps.throw(error)
    said.steps.append(len(wanted.tokens))
    return steps.send(answer)


def filed(pool: SequencePool, name: str) -> WarmSequence:
    """The warm sequence of the response ``name``."""
    warm = pool.peek(name)
    assert isinstance(warm, WarmSequence)
    return warm
