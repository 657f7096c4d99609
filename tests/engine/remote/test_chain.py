"""A server of ours whose engine is another server of ours: what agents meet behind a gateway."""

from contextlib import aclosing

import pytest

from tests.engine.remote.peers import upstream
from tightloop.client.in_memory import InMemoryTransport
from tightloop.client.session import Session
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.remote.sockets import ResponsesSockets
from tightloop.engine.scripted import Answer, call_answer, text_answer
from tightloop.protocol.deltas import ReasoningDelta, TextDelta
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item, Message, user_message
from tightloop.server.endpoint import Endpoint

NUM_ROUNDS = 4
TOOLS = [{"type": "function", "name": "run", "parameters": {"type": "object"}}]


def script(asked: GenerationRequest) -> Answer:
    """Reasoning, a word and a call each round, and at last an answer."""
    num_outputs = sum(isinstance(item, FunctionCallOutput) for item in asked.context())
    if num_outputs == NUM_ROUNDS:
        return text_answer("all done")
    call = call_answer("run", {"n": num_outputs}, f"call_{num_outputs}")
    return [ReasoningDelta("so"), ReasoningDelta(" then"), TextDelta("I look."), *call]


async def rounds(session: Session) -> list[str]:
    """The texts of a tool loop to its end."""
    new: list[Item] = [user_message("go")]
    while new:
        async with aclosing(session.respond(new)) as events:
            async for _ in events:
                pass
        last = session.last
        assert last is not None
        assert last.status == "completed", last.error
        new = [
            FunctionCallOutput(item.call_id, f"output of {item.call_id}")
            for item in last.output_items
            if isinstance(item, FunctionCall)
        ]
    return [item.text for item in session.items if isinstance(item, Message)]


@pytest.mark.parametrize("full_resend", [False, True])
@pytest.mark.parametrize("api", ["chat", "responses", "responses-ws"])
async def test_a_tool_loop_through_two_servers(api: str, full_resend: bool) -> None:
    """The same words whichever way the second server is asked, and however the client asks."""
    async with upstream(script, api=api) as peer:
        front = Endpoint(peer.engine)
        session = Session(
            InMemoryTransport(front), model="scripted", tools=TOOLS, full_resend=full_resend
        )
        assert await rounds(session) == ["go", *["I look."] * NUM_ROUNDS, "all done"]
        await session.close()
        if api == "responses-ws":
            assert isinstance(peer.engine.api, ResponsesSockets)
            assert peer.engine.api.num_whole == 1
            assert peer.engine.api.num_incremental == NUM_ROUNDS
            assert [len(told.items) for told in peer.asked] == [1] * (NUM_ROUNDS + 1)
        await front.close()


async def test_leaving_one_conversation_lets_another_go_on() -> None:
    async with upstream(script, api="responses-ws") as peer:
        front = Endpoint(peer.engine)
        session = Session(InMemoryTransport(front), model="scripted", tools=TOOLS)
        async with aclosing(session.respond([user_message("go")])) as events:
            async for event in events:
                if event["type"] == "response.output_item.done":
                    break  # leaves, which cancels
        other = Session(InMemoryTransport(front), model="scripted", tools=TOOLS)
        assert (await rounds(other))[-1] == "all done"
        await session.close()
        await other.close()
        await front.close()
