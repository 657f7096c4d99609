"""A dropped stream is resumed byte for byte; one that was left is stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.server.test_http import Client
from tests.server.wire import Wire, text_of
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine, call_answer, text_answer
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import TextDelta
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store


class Slow:
    """Says a word, then waits to be released before the rest."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []

    def __call__(self, _request: GenerationRequest) -> Answer:
        self.holds.append(Hold())
        return [TextDelta("one"), self.holds[-1], *call_answer("shell", {"cmd": "ls"}), *WORDS]


WORDS = text_answer(" two three \u00fc\U0001f600")


@asynccontextmanager
async def serving(
    script: Callable[[GenerationRequest], Answer], *, store: Store | None = None, **options: Any
) -> AsyncIterator[Client]:
    endpoint = Endpoint(ScriptedEngine(script), store, **options)
    server = Server(endpoint, Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(server, endpoint, http)
    finally:
        await server.stop(grace_s=0)


async def frames(response: aiohttp.ClientResponse, number: int) -> list[bytes]:
    """The first frames of a stream, as they come."""
    found: list[bytes] = []
    buffer = b""
    while len(found) < number:
        buffer += await response.content.readany()
        *whole, buffer = buffer.split(b"\n\n")
        found += whole
    return found[:number]


def begin(c: Client, **fields: Any) -> Any:
    body = {"model": "scripted", "input": "hi", "stream": True, **fields}
    return c.http.post(c.root + "/v1/responses", json=body)


async def resumed(c: Client, response_id: str, after: int | None = None) -> list[bytes]:
    query = "stream=true" + ("" if after is None else f"&starting_after={after}")
    async with c.http.get(f"{c.root}/v1/responses/{response_id}?{query}") as response:
        assert response.status == 200
        return (await response.read()).split(b"\n\n")[:-1]


def response_id_of(frame: bytes) -> str:
    return str(orjson.loads(frame.split(b"data: ", 1)[1])["response"]["id"])


@pytest.mark.parametrize("store", [False, True])
async def test_a_dropped_stream_goes_on_and_is_read_again_from_any_event(store: bool) -> None:
    """Byte for byte what an unbroken reader has, also of an unstored response."""
    slow = Slow()
    async with serving(slow) as c:
        async with begin(c, store=store) as response:
            early = await frames(response, 4)
        response_id = response_id_of(early[0])
        await orphaned(c)
        late = asyncio.create_task(resumed(c, response_id, 3))
        whole = asyncio.create_task(resumed(c, response_id))
        await slow.holds[0].reached.wait()
        slow.holds[0].release.set()
        unbroken = await whole
        assert early + await late == unbroken
        assert unbroken[-1] == b"data: [DONE]"
        for after in range(-1, len(unbroken)):
            again = await resumed(c, response_id, after if after >= 0 else None)
            assert [*unbroken[after + 1 : -1], b"data: [DONE]"] == again


async def orphaned(c: Client) -> None:
    """Return when the server has noticed that nobody reads the one running response."""
    while not c.endpoint.backstage.orphans:
        await c.call("GET", "/health")


async def test_nobody_comes_back_and_the_response_is_stopped() -> None:
    """After the grace; what it had said can still be read."""
    slow = Slow()
    async with serving(slow, resume_grace_s=0) as c:
        async with begin(c) as response:
            early = await frames(response, 4)
        events = await resumed(c, response_id_of(early[0]))
        assert early == events[:4]
        assert events[-2].startswith(b"event: response.incomplete")


async def test_a_client_that_moved_on_leaves_no_work_behind() -> None:
    """The same cache key, or the same parent, is the same client."""
    slow = Slow()
    async with serving(slow) as c:
        async with begin(c, prompt_cache_key="thread-1", store=False) as response:
            early = await frames(response, 4)
        await orphaned(c)
        async with begin(c, prompt_cache_key="thread-1", store=False) as response:
            await frames(response, 4)
            events = await resumed(c, response_id_of(early[0]))
            assert events[-2].startswith(b"event: response.incomplete")


async def test_other_lanes_of_a_dropped_socket_go_on() -> None:
    """They share the cache key; only the lane that is used again has moved on."""
    slow = Slow()
    endpoint = Endpoint(ScriptedEngine(slow))
    wire = Wire(endpoint)
    for lane in ("a", "b"):
        wire.create(store=False, stream_id=lane, prompt_cache_key="thread-1")
    await wire.until(lambda: len(wire.types()) >= 4)
    wire.session.close(is_goodbye=False)
    again = Wire(endpoint)
    again.create(store=False, stream_id="a", prompt_cache_key="thread-1")
    lanes = {turn.request.stream_id: turn.is_cancelled for turn in endpoint.backstage.orphans}
    assert lanes == {"a": True, "b": False}
    again.session.close()
    await endpoint.close()


async def test_a_stream_cannot_be_resumed_from_an_event_that_was_not_made_yet() -> None:
    slow = Slow()
    async with serving(slow) as c, begin(c) as response:
        response_id = response_id_of((await frames(response, 4))[0])
        path = f"/v1/responses/{response_id}?stream=true&starting_after=1000"
        refused = await c.call("GET", path, status=400)
        assert refused["error"]["param"] == "starting_after"


async def test_a_stream_is_resumed_after_a_restart(tmp_path: Path) -> None:
    """From the store, byte for byte."""
    async with serving(lambda _: WORDS, store=Store(tmp_path / "db")) as c, begin(c) as response:
        unbroken = (await response.read()).split(b"\n\n")[:-1]
    async with serving(lambda _: WORDS, store=Store(tmp_path / "db")) as c:
        assert unbroken[3:] == await resumed(c, response_id_of(unbroken[0]), 2)


async def test_a_socket_that_vanished_is_no_goodbye(tmp_path: Path) -> None:
    """Its response ends as if nothing had happened and can be continued from elsewhere."""
    slow = Slow()
    endpoint = Endpoint(ScriptedEngine(slow))
    wire = Wire(endpoint)
    wire.create()
    await slow.holds[0].reached.wait()
    response_id = wire.events[0]["response"]["id"]
    wire.session.close(is_goodbye=False)
    slow.holds[0].release.set()
    await endpoint.backstage.drained()
    other = Wire(endpoint)
    other.create("next", previous_response_id=response_id)
    await slow_end(slow, other)
    assert text_of(other.ends()[0]).startswith("one")


async def slow_end(slow: Slow, wire: Wire) -> None:
    await wire.until(lambda: len(slow.holds) == 2 and slow.holds[1].reached.is_set())
    slow.holds[1].release.set()
    await wire.end()


async def test_a_goodbye_stops_the_response_at_once() -> None:
    slow = Slow()
    endpoint = Endpoint(ScriptedEngine(slow))
    wire = Wire(endpoint)
    wire.create()
    await slow.holds[0].reached.wait()
    wire.session.close()
    await endpoint.backstage.drained()
    journal = endpoint.backstage.streams.get(wire.events[0]["response"]["id"])
    assert journal is not None
    assert orjson.loads(journal.events()[-1])["type"] == "response.incomplete"


async def test_a_running_response_is_cancelled_by_its_id() -> None:
    """Its status says so; cancelling it again changes nothing."""
    slow = Slow()
    async with serving(slow) as c:
        async with begin(c) as response:
            early = await frames(response, 4)
            path = f"/v1/responses/{response_id_of(early[0])}"
            assert (await c.call("GET", path))["status"] == "in_progress"
            cancelled = await c.call("POST", path + "/cancel")
            assert cancelled["status"] == "cancelled"
            assert b"event: response.incomplete" in await response.read()
        assert cancelled == await c.call("POST", path + "/cancel")
        assert cancelled == await c.call("GET", path)
        await c.call("POST", "/v1/responses/resp_none/cancel", status=404)


async def test_a_background_response_needs_no_reader() -> None:
    """It is answered at once, polled, and can be read as a stream meanwhile."""
    slow = Slow()
    async with serving(slow, resume_grace_s=0) as c:
        made = await c.create(background=True)
        assert (made["status"], made["background"]) == ("in_progress", True)
        path = f"/v1/responses/{made['id']}"
        reading = asyncio.create_task(resumed(c, made["id"]))
        await slow.holds[0].reached.wait()
        slow.holds[0].release.set()
        assert (await reading)[-2].startswith(b"event: response.completed")
        assert (await c.call("GET", path))["status"] == "completed"


async def test_a_background_response_must_be_stored() -> None:
    async with serving(lambda _: WORDS) as c:
        refused = await c.create(background=True, store=False, status=400)
        assert refused["error"]["param"] == "background"


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "\u0663"])
async def test_a_bad_place_to_resume_from_is_named(after: str) -> None:
    async with serving(lambda _: WORDS) as c:
        made = await c.create()
        path = f"/v1/responses/{made['id']}?stream=true&starting_after={after}"
        refused = await c.call("GET", path, status=400)
        assert refused["error"]["param"] == "starting_after"
        await c.call("GET", "/v1/responses/resp_none?stream=true", status=404)


async def test_json_answers_tell_where_the_time_went() -> None:
    async with serving(lambda _: WORDS) as c:
        body = {"model": "scripted", "input": "hi"}
        async with c.http.post(c.root + "/v1/responses", json=body) as response:
            assert response.headers["Server-Timing"].startswith("server;dur=")


async def test_a_header_asks_for_the_timing_event() -> None:
    async with serving(lambda _: WORDS) as c:
        body = {"model": "scripted", "input": "hi", "stream": True}
        headers = {"X-Tightloop-Timing": "1"}
        async with c.http.post(c.root + "/v1/responses", json=body, headers=headers) as response:
            assert b"event: tightloop:timing" in await response.read()


async def test_an_event_that_was_never_sent_is_no_place_to_resume_from() -> None:
    """Else its reader would get events that it says it has; when all is said nothing follows."""
    slow = Slow()
    async with serving(slow) as c, begin(c) as response:
        early = await frames(response, 4)
        path = f"/v1/responses/{response_id_of(early[0])}?stream=true&starting_after="
        refused = await c.call("GET", f"{path}99", status=400)
        assert refused["error"]["param"] == "starting_after"
        slow.holds[0].release.set()
        await response.read()
        assert await resumed(c, response_id_of(early[0]), 99) == [b"data: [DONE]"]


async def test_who_resumes_and_leaves_again_is_not_kept() -> None:
    """Neither its connection nor its wait for the end."""
    slow = Slow()
    async with serving(slow) as c, begin(c) as response:
        early = await frames(response, 4)
        journal = c.endpoint.backstage.streams.get(response_id_of(early[0]))
        assert journal is not None
        before = journal.num_waiting
        url = f"{c.root}/v1/responses/{journal.response_id}?stream=true"
        for _ in range(5):
            async with c.http.get(url) as again:
                await frames(again, 4)
        while journal.num_waiting > before:
            await c.call("GET", "/health")


async def test_a_running_response_that_is_deleted_is_stopped_and_gone(tmp_path: Path) -> None:
    slow = Slow()
    async with serving(slow, store=Store(tmp_path / "db")) as c:
        made = await c.create(background=True)
        path = f"/v1/responses/{made['id']}"
        assert (await c.call("DELETE", path))["deleted"] is True
        assert not c.endpoint.backstage.running
        await c.call("GET", path, status=404)
        await c.call("GET", path + "?stream=true", status=404)


class HeldStore(Store):
    """Saves when it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.saving, self.go_on = asyncio.Event(), asyncio.Event()

    async def save(self, *args: Any, **options: Any) -> None:
        self.saving.set()
        await self.go_on.wait()
        await super().save(*args, **options)


async def test_nobody_sees_an_end_that_is_not_on_disk_yet(tmp_path: Path) -> None:
    """Who asks for the response meanwhile waits; who resumes gets the terminal event after it."""
    store = HeldStore(tmp_path / "db")
    async with serving(lambda _: WORDS, store=store) as c:
        made = await c.create(background=True)
        await store.saving.wait()
        asking = asyncio.create_task(c.call("GET", f"/v1/responses/{made['id']}"))
        reading = asyncio.create_task(resumed(c, made["id"]))
        await c.call("GET", "/health")
        assert not asking.done()
        store.go_on.set()
        assert (await asking)["status"] == "completed"
        assert (await reading)[-2].startswith(b"event: response.completed")
