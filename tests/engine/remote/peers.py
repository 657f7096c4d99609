"""What remote engines are tested against: our own server in this process, and what it was asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from tests.engine.collecting import Answer
from tightloop.engine.interface import GenerationRequest, Node
from tightloop.engine.remote import RemoteEngine, RemoteOptions
from tightloop.engine.scripted import Script, ScriptedEngine, echo_script
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import (
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from tightloop.protocol.items import (
    CustomToolCall,
    FunctionCall,
    Item,
    Message,
    Reasoning,
    TextPart,
)
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint


class Upstream:
    """A running server of ours, its engine, and a remote engine that asks it."""

    def __init__(self, server: Server, scripted: ScriptedEngine, engine: RemoteEngine) -> None:
        self.server = server
        self.scripted = scripted
        self.engine = engine

    @property
    def asked(self) -> list[GenerationRequest]:
        """What reached the upstream's engine, oldest first."""
        return list(self.scripted.requests)


@asynccontextmanager
async def upstream(
    script: Script = echo_script, *, model: str = "scripted", **options: Any
) -> AsyncIterator[Upstream]:
    """``options`` are those of ``RemoteOptions``."""
    scripted = ScriptedEngine(script)
    server = Server(Endpoint(scripted), Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    engine = RemoteEngine(
        model,
        server.url,
        options=RemoteOptions(**{"host_kind": "tightloop", **options}),
        api_key_env="TIGHTLOOP_TEST_KEY",
    )
    await engine.start()
    try:
        yield Upstream(server, scripted, engine)
    finally:
        await engine.close()
        await server.stop(grace_s=0)


def output_of(answer: Answer) -> tuple[Item, ...]:
    """The items that a server makes of an answer's deltas."""
    items: list[Item] = []
    for delta in answer.deltas:
        match delta, items[-1] if items else None:
            case TextDelta(text), Message() as message:
                items[-1] = Message("assistant", (TextPart("output_text", message.text + text),))
            case TextDelta(text), _:
                items.append(Message("assistant", (TextPart("output_text", text),)))
            case ReasoningDelta(text), Reasoning(summary):
                items[-1] = Reasoning(("".join(summary) + text,))
            case ReasoningDelta(text), _:
                items.append(Reasoning((text,)))
            case ToolCallStarted(call_id, name, is_custom), _:
                kind = CustomToolCall if is_custom else FunctionCall
                items.append(kind(call_id, name, ""))
            case ToolCallDelta(text), FunctionCall(call_id, name, so_far):
                items[-1] = FunctionCall(call_id, name, so_far + text)
            case ToolCallDelta(text), CustomToolCall(call_id, name, so_far):
                items[-1] = CustomToolCall(call_id, name, so_far + text)
    return tuple(items)


def node(asked: GenerationRequest, answer: Answer) -> Node:
    """The node that a server keeps for an answered request."""
    assert answer.finished.reason is not FinishReason.ERROR, answer.finished
    return Node(asked.response_id, asked.parent, (*asked.items, *output_of(answer)))


def below(parent: Node | None, asked: GenerationRequest) -> GenerationRequest:
    """``asked`` as a turn of the conversation of ``parent``."""
    return replace(asked, parent=parent)
