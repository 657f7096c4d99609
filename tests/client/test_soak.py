"""Random cancels, lost connections and failures: client and server never disagree.

Invariant: whatever happened before, the model sees exactly the items that the client's session
holds plus the new one; and when all is over nothing is left running.
"""

import asyncio
import random
from contextlib import aclosing

import pytest

from tests.client.rig import KINDS, Rig, running
from tightloop.client.session import Session
from tightloop.client.transport import TransportError
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, text_answer
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.protocol.items import user_message

NUM_USERS = 4
NUM_TURNS = 10


class Script:
    """Says how many items it sees, in pieces; sometimes fails instead."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def __call__(self, request: GenerationRequest) -> Answer:
        if self._dice.random() < 0.1:
            failed = Finished(FinishReason.ERROR, Usage(), None, "server_error", "bad luck")
            return [TextDelta("x"), failed]
        return text_answer(f"{len(request.context())} items")


async def turn(session: Session, dice: random.Random) -> None:
    """One response, perhaps left early; what it said must match what the session holds."""
    expected = f"{len(session.items) + 1} items"
    leaves_early = dice.random() < 0.2
    said = ""
    async with aclosing(session.respond([user_message("next")])) as events:
        async for event in events:
            if event["type"] == "response.output_text.delta":
                said += event["delta"]
                if leaves_early:
                    return
    assert session.last is not None
    if session.last.status == "completed":
        assert said == expected


async def user(rig: Rig, kind: str, dice: random.Random) -> None:
    transport = rig.another(kind)
    session = Session(transport, model="scripted", store=dice.random() < 0.5)
    for _ in range(NUM_TURNS):
        if dice.random() < 0.1:
            rig.server.abort_connections()
        if dice.random() < 0.1:
            await transport.close()
        try:
            await turn(session, dice)
        except TransportError:
            continue  # lost after output: the session is as it was
    await transport.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
async def test_client_and_server_agree_on_the_conversation(kind: str, seed: int) -> None:
    """Several users share the server; each other's troubles are theirs alone."""
    dice = random.Random(seed)
    async with running(kind, Script(dice)) as rig:
        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_USERS):
                group.create_task(user(rig, kind, random.Random(dice.random())))
        await rig.endpoint.drained(30)
        assert not rig.endpoint.backstage.running
