"""Collects what an engine says about one response, and waits for it."""

import asyncio
from collections.abc import Sequence

from tightloop.engine.interface import Engine, Generation, GenerationRequest, Node, Sampling
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from tightloop.protocol.items import Item, Message, TextPart, user_message
from tightloop.protocol.requests import Tool, ToolChoice


class Answer:
    """A sink that keeps every delta and can be waited for."""

    def __init__(self) -> None:
        self.batches: list[list[Delta]] = []
        self.first = asyncio.Event()
        self._done = asyncio.Event()
        self.generation: Generation | None = None

    def __call__(self, batch: Sequence[Delta]) -> None:
        assert not self._done.is_set(), "a batch after Finished"
        assert batch
        self.batches.append(list(batch))
        self.first.set()
        if isinstance(batch[-1], Finished):
            self._done.set()

    @property
    def deltas(self) -> list[Delta]:
        return [delta for batch in self.batches for delta in batch]

    @property
    def finished(self) -> Finished:
        last = self.batches[-1][-1]
        assert isinstance(last, Finished)
        return last

    @property
    def text(self) -> str:
        return "".join(d.text for d in self.deltas if isinstance(d, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(d.text for d in self.deltas if isinstance(d, ReasoningDelta))

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(name, arguments or input) of each call."""
        calls: list[tuple[str, str]] = []
        for delta in self.deltas:
            if isinstance(delta, ToolCallStarted):
                calls.append((delta.name, ""))
            elif isinstance(delta, ToolCallDelta):
                calls[-1] = (calls[-1][0], calls[-1][1] + delta.text)
        return calls

    async def wait(self) -> Finished:
        await self._done.wait()
        return self.finished


def request(
    text: str | Sequence[Item] = "hi",
    *,
    name: str = "resp_1",
    parent: Node | None = None,
    tools: tuple[Tool, ...] = (),
    sampling: Sampling | None = None,
    max_output_tokens: int | None = None,
    generate: bool = True,
    instructions: str | None = None,
    tool_choice: ToolChoice = "auto",
) -> GenerationRequest:
    """One response to make, with defaults for everything."""
    items = (user_message(text),) if isinstance(text, str) else tuple(text)
    return GenerationRequest(
        response_id=name,
        model="m",
        parent=parent,
        items=items,
        tools=tools,
        sampling=sampling or Sampling(),
        max_output_tokens=max_output_tokens,
        generate=generate,
        instructions=instructions,
        tool_choice=tool_choice,
    )


def start(engine: Engine, asked: GenerationRequest) -> Answer:
    """The answer being collected; its ``generation`` can be cancelled."""
    answer = Answer()
    answer.generation = engine.submit(asked, answer)
    return answer


async def ask(engine: Engine, asked: GenerationRequest) -> Answer:
    """The complete answer to one request."""
    answer = start(engine, asked)
    await answer.wait()
    return answer


def node_of(asked: GenerationRequest, answer: Answer) -> Node:
    """The node the server would keep for an answered request."""
    said = Message("assistant", (TextPart("output_text", answer.text),))
    return Node(asked.response_id, asked.parent, (*asked.items, said))
