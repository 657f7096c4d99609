"""What all turns of a server share."""

import asyncio

import pytest

from tests.server.wire import Wire
from tightloop.engine.scripted import Hold, ScriptedEngine
from tightloop.protocol.deltas import TextDelta
from tightloop.protocol.requests import decode_request
from tightloop.server.endpoint import Endpoint


@pytest.mark.parametrize(
    ("asked", "is_stopped"),
    [
        (b'"prompt_cache_key":"k"', True),
        (b'"prompt_cache_key":"other"', False),
        (b'"store":true', False),
    ],
)
async def test_only_the_clients_own_orphans_are_stopped(asked: bytes, is_stopped: bool) -> None:
    """A client is known by its cache key, its parent or its conversation; no name is no client."""
    endpoint = Endpoint(ScriptedEngine(lambda _: [TextDelta("a"), Hold()]))
    wire = Wire(endpoint)
    wire.create(prompt_cache_key="k", store=False)
    await wire.until(lambda: len(wire.events) > 2)
    wire.session.close(is_goodbye=False)
    (orphan,) = endpoint.backstage.orphans
    endpoint.backstage.supersede(decode_request(b'{"model":"m",%b}' % asked))
    assert is_stopped is orphan.is_cancelled
    await endpoint.close()


async def test_who_waits_for_the_end_of_everything_waits_together() -> None:
    hold = Hold()
    endpoint = Endpoint(ScriptedEngine(lambda _: [hold]))
    Wire(endpoint).create()
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(endpoint.backstage.drained()) for _ in range(2)]
        await hold.reached.wait()
        assert not any(wait.done() for wait in waits)
        hold.release.set()
    assert not endpoint.backstage.running
    await endpoint.close()
