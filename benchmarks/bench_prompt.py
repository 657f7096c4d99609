"""What a turn costs before its first step, against the length of the history.

For each length, a coding conversation of calls and outputs is answered once; then it is continued
by one tool output of 400 characters, again and again, in turn:

- ``whole``: the parent is not known, so that everything is rendered and tokenised, and every warm
  sequence is compared; the sequence that holds the history is found and reused;
- ``new``: the parent is known: only what is new is rendered and tokenised.

``read`` is rendering and tokenising alone; ``turn`` is a whole response of no tokens through
``TokenEngine`` on the scripted backend (a token per byte), whose own work is in both. With
``--model`` reading is measured with that model's tokeniser instead. Prints one JSON object with
medians in microseconds. Usage: ``python benchmarks/bench_prompt.py [--model MODEL]``.
"""

import argparse
import asyncio
import json
import statistics
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.families.chat_template import CHATML, ChatTemplate
from tightloop.engine.families.prompts import Known, Prompt, PromptReader
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.interface import GenerationRequest, Node, TokenBackend
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.model_files import resolve
from tightloop.engine.scripted_backend import IM_END, ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import Delta, Finished
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item, user_message
from tightloop.protocol.requests import FunctionTool
from tightloop.trace.clock import now_ns

LENGTHS = (1_000, 10_000, 50_000)
OUTPUT = "def add(left, right):\n    return left + right\n\n\n" * 20
NEW = OUTPUT[:400]
TOOLS = (FunctionTool("run", description="runs a command", parameters={"type": "object"}),)


def history(num_chars: int) -> tuple[Item, ...]:
    """A question, then calls and outputs of about ``num_chars`` in all."""
    items: list[Item] = [user_message("Make the tests pass.")]
    for n in range(max(1, num_chars // (len(OUTPUT) + 100))):
        items.append(FunctionCall(f"c{n}", "run", '{"cmd": "cat add.py"}'))
        items.append(FunctionCallOutput(f"c{n}", OUTPUT))
    return tuple(items)


def asked(name: str, items: Sequence[Item], parent: Node | None = None) -> GenerationRequest:
    """One response of at most one token."""
    return GenerationRequest(name, "m", parent, tuple(items), tools=TOOLS, max_output_tokens=1)


def continued(request: GenerationRequest) -> Node:
    """The node of ``request``, had it been answered with a call."""
    items = (*request.items, FunctionCall("new", "run", "{}"))
    return Node(request.response_id, request.parent, items)


def finish(steps: Generator[None, None, Prompt]) -> Prompt:
    """What the steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            prompt: Prompt = end.value
            return prompt


def reading(backend: TokenBackend, items: Sequence[Item], num_rounds: int) -> dict[str, Any]:
    """Rendering and tokenising one continuation, both ways, in turn."""
    pool = SequencePool(backend, lambda: False)
    template = ChatTemplate(backend.metadata.get("tokenizer.chat_template") or CHATML)
    reader = PromptReader(pool, template, Vocabulary(pool), bos="")
    first = asked("r", items)
    prompt = finish(reader.read(reader.draft(first, None)))
    if prompt.shown is None:
        raise SystemExit("this model's template is not prefix-stable: there is nothing to compare")
    known = Known(prompt.whole(), prompt.shown)
    follow = asked("next", (FunctionCallOutput("new", NEW),), continued(first))
    times: dict[str, list[float]] = {"whole": [], "new": []}
    for _ in range(num_rounds):
        for way, parent in (("whole", None), ("new", known)):
            begun = now_ns()
            finish(reader.read(reader.draft(follow, parent)))
            times[way].append((now_ns() - begun) / 1000)
    figures = {way: round(statistics.median(values), 1) for way, values in times.items()}
    return {"history_tokens": len(prompt), **figures}


async def answer(engine: TokenEngine, request: GenerationRequest) -> float:
    """Microseconds until the response has ended."""
    is_done = asyncio.Event()

    def sink(deltas: Sequence[Delta]) -> None:
        if isinstance(deltas[-1], Finished):
            is_done.set()

    begun = now_ns()
    engine.submit(request, sink)
    await is_done.wait()
    return (now_ns() - begun) / 1000


async def turns(items: Sequence[Item], num_rounds: int) -> dict[str, float]:
    """A whole response both ways, in turn, on the scripted backend."""
    backend = ScriptedBackend(lambda _: IM_END, context_window=1 << 18, num_cells=1 << 20)
    engine = TokenEngine(lambda: backend, ChatFamily, name="bench")
    await engine.start()
    first = asked("first", items)
    node = continued(first)
    times: dict[str, list[float]] = {"whole": [], "new": []}
    try:
        await answer(engine, first)
        for n in range(num_rounds):
            parents = {"new": node, "whole": replace(node, id="unknown")}
            for way, parent in parents.items():
                # Never the same text: a sibling's sequence must not serve this one.
                output = FunctionCallOutput("new", f"{n} {way}\n{NEW}")
                follow = asked(f"{way}{n}", (output,), parent)
                times[way].append(await answer(engine, follow))
                if way == "new":
                    node = continued(follow)
    finally:
        await engine.close()
    return {way: round(statistics.median(values), 1) for way, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", help="a model file or name, for its tokeniser")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    results = []
    for length in LENGTHS:
        if arguments.model is None:
            items = history(length)
            read = reading(ScriptedBackend(lambda _: 0), items, arguments.rounds)
            turn = asyncio.run(turns(items, arguments.rounds))
            results.append({"read": read, "turn": turn})
        else:
            backend = LlamaCppBackend(resolve(arguments.model), num_sequences=1)
            read = reading(backend, history(4 * length), arguments.rounds)
            backend.shutdown()
            results.append({"read": read})
    print(json.dumps({"unit": "us, median", "rounds": arguments.rounds, "results": results}))


if __name__ == "__main__":
    main()
