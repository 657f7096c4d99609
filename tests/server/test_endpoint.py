"""The endpoint: one engine, many connections, an orderly end."""

from pathlib import Path

import pytest

from tests.server.wire import Wire, text_of
from tightloop.engine.scripted import Hold, ScriptedEngine, in_turn
from tightloop.protocol.deltas import TextDelta
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store


async def test_connections_do_not_see_each_others_unstored_responses() -> None:
    """But each other's stored ones."""
    endpoint = Endpoint(ScriptedEngine())
    one, other = Wire(endpoint), Wire(endpoint)
    one.create("a", store=False)
    one.create("b", store=True)
    await one.end(2)
    unstored, stored = (end["response"]["id"] for end in one.ends())
    other.create("c", previous_response_id=unstored)
    assert (await other.end())["error"]["code"] == "previous_response_not_found"
    other.create("d", previous_response_id=stored)
    assert text_of(await other.end(2)) == "echo: d"
    await endpoint.close()


async def test_drained_returns_when_everything_has_ended() -> None:
    """Creates that wait behind a running one are started and waited for too."""
    hold = Hold()
    endpoint = Endpoint(ScriptedEngine(in_turn([[hold, TextDelta("a")], [TextDelta("b")]])))
    wire = Wire(endpoint)
    wire.create()
    wire.create()
    hold.release.set()
    await endpoint.drained(30)
    assert [text_of(end) for end in wire.ends()] == ["a", "b"]
    await endpoint.close()


async def test_drained_gives_up_when_the_time_is_up() -> None:
    """What still runs is cancelled by close; nothing is written after it."""
    endpoint = Endpoint(ScriptedEngine(in_turn([[TextDelta("a"), Hold()]])))
    wire = Wire(endpoint)
    wire.create()
    await endpoint.drained(0)
    assert wire.ends() == []
    await endpoint.close()
    await endpoint.close()
    assert wire.ends() == []
    assert not endpoint.backstage.running


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [{"role": "user", "content": "x"}, {"type": "compaction_trigger"}]},
        {"context_management": [{"type": "compaction", "compact_threshold": 1}]},
        {"truncation": "auto"},
    ],
)
async def test_close_ends_and_stores_what_the_engine_has_not_begun_yet(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    """A response that is being prepared ends before the store is closed."""
    engine = ScriptedEngine(lambda _: [TextDelta("a"), Hold()])
    endpoint = Endpoint(engine, Store(tmp_path / "db"))
    await endpoint.start()
    wire = Wire(endpoint)
    wire.create(**fields)  # type: ignore[arg-type]
    wire.session.close(is_goodbye=False)
    await endpoint.close()
    assert not endpoint.backstage.running
    store = Store(tmp_path / "db")
    await store.open()
    body = await store.get(wire.events[0]["response"]["id"])
    assert body is not None
    await store.close()
