"""What drafts gain and cost, for models of several sizes, and what longer steps cost in them.

Each model has random weights (``benchmarks/net/random_models.py``), and answers are drawn at
temperature 1 with one seed: words that seldom repeat (greedily it would say one word for ever).
Predictions of a known quality stand in for a file being edited:

- ``same``: the answer itself; ``edited``: with every 12th token another; ``wrong``: backwards;
- ``none``: no prediction, so that only the prompt and the answer itself can be drafted from.

Answers are decoded ``off`` (no drafts), ``auto`` (by the model's own cost curve, as a server
does) and ``forced`` (as if longer steps cost nothing: what drafts do where they must not be used).
They take turns; a ratio above 1 is a gain in tokens per second of CPU time, median over rounds with
quartiles. ``same_output`` counts the answers that are the same as the one of the same round without
drafts: kernels for several tokens round differently, and random weights have many near-ties.
``curve`` is c(k): CPU time of a step of k tokens with all logits over that of one token after another
one, the median of steps in turn at a context of about 512 tokens; ``measured`` is what the engine
found at load.

CPU time, because other load disturbs it least; wall time of these models on one thread is the same
on an idle machine. Prints one JSON object.
Usage: ``python -m benchmarks.bench_drafts [--models random-3m ...] [--rounds N] [--tokens N]``.
"""

import argparse
import json
import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.lab.machine import this_machine
from benchmarks.net.gguf_file import Shape
from benchmarks.net.random_models import SHAPES, random_model
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.families.warm_sequence import WarmSequence
from tightloop.engine.interface import Evaluate, GenerationRequest, Job, Sampling
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.deltas import Delta, FinishReason, TextDelta
from tightloop.protocol.items import user_message

SIZES: Final = (1, 2, 4, 8, 16)
FLAT: Final = dict.fromkeys(SIZES, 1.0)
QUALITIES: Final = ("same", "edited", "wrong", "none")
CONTEXT: Final = 512
OTHER_TOKEN: Final = 300
PROMPT: Final = "Write the file again, with the changes that were asked for. " * 8


@dataclass
class Made:
    """One answer: its text, CPU seconds from the first token on, and what was counted."""

    text: str = ""
    cpu_s: float = 0.0
    num_steps: int = 0
    num_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0


def curve(backend: LlamaCppBackend, rounds: int) -> dict[int, float]:
    """c(k) by CPU time."""
    sequence = backend.open()
    backend.evaluate(sequence, [n % 1000 + 3 for n in range(CONTEXT)])
    taken: dict[int, list[int]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            tokens = [n % 1000 + 3 for n in range(size)]
            if size == 1:  # as decoding is: see ``engine.step_costs``
                backend.evaluate(sequence, tokens)
                backend.truncate(sequence, CONTEXT)
            before = time.process_time_ns()
            backend.evaluate(sequence, tokens, all_logits=True)
            taken[size].append(time.process_time_ns() - before)
            backend.truncate(sequence, CONTEXT)
    backend.close(sequence)
    one = statistics.median(taken[1])
    return {size: round(statistics.median(found) / one, 2) for size, found in taken.items()}


def answer(family: ChatFamily, pool: SequencePool, request: GenerationRequest) -> Made:
    """The answer to ``request``, decoded in this thread."""
    made, pieces, start_ns = Made(), list[Delta](), 0

    def mark() -> None:
        nonlocal start_ns
        start_ns = time.process_time_ns()

    def count_drafts(checked: int, accepted: int) -> None:
        made.num_drafted, made.num_accepted = checked, accepted

    def count_decode(tokens: int, _: int) -> None:
        made.num_tokens = tokens

    job = Job(
        request=request,
        emit=pieces.append,
        is_cancelled=lambda: False,
        mark_prefilled=mark,
        count_prefill=lambda evaluated, reused: None,
        count_decode=count_decode,
        count_input=lambda *_: None,
        count_output=lambda tokens: None,
        count_reasoning=lambda tokens: None,
        count_drafts=count_drafts,
        count_prediction=lambda checked, accepted: None,
        report_stop=lambda text: None,
    )
    steps: Generator[Evaluate | None, Any, FinishReason] = family.generate(job)
    try:
        wanted = next(steps)
        while True:
            if wanted is None:
                wanted = next(steps)
                continue
            made.num_steps += start_ns > 0
            logits = pool.evaluate(wanted.sequence, wanted.tokens, all_logits=wanted.all_logits)
            wanted = steps.send(logits)
    except StopIteration:
        made.cpu_s = (time.process_time_ns() - start_ns) / 1e9
    made.text = "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))
    return made


class TellingBackend(LlamaCppBackend):
    """Reads the name of a prediction as its tokens: nonsense is not always read as it was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, num_sequences=4)
        self.told: dict[str, list[int]] = {}

    def tell(self, answer: Sequence[int]) -> None:
        """What the predictions of an answer are."""
        edited = [OTHER_TOKEN if n % 12 == 11 else token for n, token in enumerate(answer)]
        self.told = {"same": list(answer), "edited": edited, "wrong": list(reversed(answer))}

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """As llama.cpp does, but for those names."""
        return self.told.get(text) or super().tokenize(text, special=special)


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "q1": round(low, 3), "q3": round(high, 3)}


def measure(name: str, rounds: int, num_tokens: int) -> dict[str, Any]:
    """The figures of one model."""
    backend = TellingBackend(random_model(name))
    pool = SequencePool(backend, lambda: False)
    families = {
        "off": ChatFamily(pool, has_drafts=False),
        "auto": ChatFamily(pool),
        "forced": ChatFamily(pool, step_costs=FLAT),
    }
    asked = GenerationRequest(
        "warm", name, None, (user_message(PROMPT),), max_output_tokens=num_tokens + 1
    )
    asked = replace(asked, sampling=Sampling(temperature=1.0, seed=7))
    answer(families["off"], pool, asked)
    warm = pool.peek(asked.response_id)
    assert isinstance(warm, WarmSequence)
    backend.tell(warm.tokens[-num_tokens:])
    made: dict[tuple[str, str], list[Made]] = {}
    for _ in range(rounds):
        for quality in QUALITIES:
            request = replace(asked, prediction=None if quality == "none" else quality)
            for way, family in families.items():
                made.setdefault((quality, way), []).append(answer(family, pool, request))
    result: dict[str, Any] = {
        "curve": curve(backend, max(5, rounds)),
        "measured": {size: round(cost, 2) for size, cost in backend.step_costs().items()},
        "off_us_per_token": quartiles(
            [1e6 * one.cpu_s / num_tokens for quality in QUALITIES for one in made[quality, "off"]]
        ),
    }
    for quality in QUALITIES:
        for way in ("auto", "forced"):
            plain, drafted = made[quality, "off"], made[quality, way]
            pairs = list(zip(plain, drafted, strict=True))
            result[f"{quality}/{way}"] = {
                "gain": quartiles([a.cpu_s / b.cpu_s for a, b in pairs]),
                "same_output": sum(a.text == b.text for a, b in pairs),
                **{
                    key: round(statistics.mean(asdict(one)[key] for one in drafted), 1)
                    for key in ("num_steps", "num_tokens", "num_drafted", "num_accepted")
                },
            }
    pool.shutdown()
    return result


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["random-3m", "random-30m"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    given = parser.parse_args()
    SHAPES.setdefault("random-110m", Shape(width=768, layers=12, heads=12, inner=2816))
    result: dict[str, Any] = {
        "machine": asdict_of(this_machine()),
        "rounds": given.rounds,
        "tokens": given.tokens,
    }
    for name in given.models:
        result[name] = measure(name, given.rounds, given.tokens)
    print(json.dumps(result))


def asdict_of(machine: Any) -> dict[str, Any]:
    """The fields of a struct."""
    return {name: getattr(machine, name) for name in machine.__struct_fields__}


if __name__ == "__main__":
    main()
