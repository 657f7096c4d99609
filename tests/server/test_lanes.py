"""Lanes: order within one, concurrency between them, and what a connection remembers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.server.wire import Wire, text_of
from tightloop.engine.interface import GenerationRequest, ModelInfo
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine, in_turn, text_answer
from tightloop.protocol.items import MAX_INPUT_CHARS, Message
from tightloop.protocol.websocket_mode import MAX_IN_FLIGHT, MAX_NAMED_STREAMS
from tightloop.server.endpoint import Endpoint
from tightloop.server.lane_order import MAX_WAITING, MAX_WAITING_BYTES
from tightloop.server.store import Row, Store, StoreError


class Held:
    """A script whose answer to an input text waits until that text is released."""

    def __init__(self) -> None:
        self.holds: dict[str, Hold] = {}

    def __call__(self, request: GenerationRequest) -> Answer:
        last = request.items[-1]
        text = last.text if isinstance(last, Message) else ""
        self.holds[text] = hold = Hold()
        return [hold, *text_answer(text)]

    def release(self, text: str) -> None:
        self.holds[text].release.set()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def wire(held: Held) -> Wire:
    return Wire(Endpoint(ScriptedEngine(held)))


@pytest.fixture
def echo() -> Wire:
    return Wire(Endpoint(ScriptedEngine()))


async def test_one_lane_is_first_in_first_out(held: Held, wire: Wire) -> None:
    """The second response does not even begin before the first has ended."""
    wire.create("one")
    wire.create("two")
    assert list(held.holds) == ["one"]
    held.release("one")
    await wire.end()
    assert list(held.holds) == ["one", "two"]
    held.release("two")
    assert text_of(await wire.end(2)) == "two"
    starts = [n for n, kind in enumerate(wire.types()) if kind == "response.created"]
    ends = [n for n, kind in enumerate(wire.types()) if kind == "response.completed"]
    assert starts[1] > ends[0]


async def test_named_lanes_run_beside_each_other_and_are_marked(held: Held, wire: Wire) -> None:
    """Every event of a named lane says so; those of the default lane do not."""
    wire.create("main")
    wire.create("a", stream_id="lane-a")
    wire.create("b", stream_id="lane-b")
    assert sorted(held.holds) == ["a", "b", "main"]
    held.release("b")
    held.release("main")
    held.release("a")
    await wire.end(3)
    lanes = {text_of(end): end.get("stream_id") for end in wire.ends()}
    assert lanes == {"b": "lane-b", "main": None, "a": "lane-a"}
    marked = [event for event in wire.events if event.get("stream_id") == "lane-a"]
    assert [event["sequence_number"] for event in marked] == list(range(len(marked)))


async def test_more_than_the_limit_in_flight_wait(held: Held, wire: Wire) -> None:
    """They are not refused; one starts when one ends."""
    for n in range(MAX_IN_FLIGHT + 2):
        wire.create(f"t{n}", stream_id=f"s{n}")
    assert len(held.holds) == MAX_IN_FLIGHT
    held.release("t3")
    await wire.end()
    assert len(held.holds) == MAX_IN_FLIGHT + 1
    wire.session.close()


async def test_a_lane_with_a_long_queue_does_not_starve_the_others(held: Held, wire: Wire) -> None:
    """When more lanes wait than may run, they take turns."""
    for n in range(MAX_IN_FLIGHT + 2):
        for k in range(3):
            wire.create(f"s{n}.{k}", stream_id=f"s{n}")
    held.release("s0.0")
    await wire.end(1)
    held.release("s1.0")
    await wire.end(2)
    begun = list(held.holds)[MAX_IN_FLIGHT:]
    assert begun == [f"s{MAX_IN_FLIGHT}.0", f"s{MAX_IN_FLIGHT + 1}.0"]
    wire.session.close()


async def test_cancelling_a_lane_that_waits_for_its_turn_ends_its_oldest_create(
    held: Held, wire: Wire
) -> None:
    """It has no id yet; it ends in order, without asking the engine."""
    for n in range(MAX_IN_FLIGHT):
        wire.create(f"t{n}", stream_id=f"s{n}")
    wire.create("late", stream_id="late")
    wire.create("later", stream_id="late")
    wire.send({"type": "response.cancel", "stream_id": "late"})
    held.release("t0")
    await wire.until(lambda: "later" in held.holds)
    assert "late" not in held.holds
    (end,) = [end for end in wire.ends() if end.get("stream_id") == "late"]
    assert end["response"]["incomplete_details"] == {"reason": "interrupted"}
    wire.session.close()


async def test_too_many_names_are_refused_and_old_ones_go_on(echo: Wire) -> None:
    """A name once used stays usable."""
    for n in range(MAX_NAMED_STREAMS):
        echo.create("x", stream_id=f"s{n}")
    await echo.end(MAX_NAMED_STREAMS)
    echo.create("x", stream_id="one-more")
    error = (await echo.end(MAX_NAMED_STREAMS + 1))["error"]
    assert (error["code"], error["param"]) == ("websocket_stream_limit_reached", "stream_id")
    echo.create("again", stream_id="s0")
    assert (await echo.end(MAX_NAMED_STREAMS + 2))["type"] == "response.completed"


async def test_the_queue_of_a_connection_is_bounded(held: Held, wire: Wire) -> None:
    """Beyond it there is a 429 that says when to come back."""
    for n in range(MAX_WAITING + 2):
        wire.create(f"t{n}")
    end = await wire.end()
    assert (end["status"], end["headers"]) == (429, {"retry-after": "1"})
    wire.session.close()


async def test_what_waits_on_a_connection_is_bounded_in_bytes_too(held: Held, wire: Wire) -> None:
    """The frames of few creates can fill the memory as well as many can; one may always wait."""
    text = "x" * (MAX_INPUT_CHARS - 1)
    for _ in range(3 + MAX_WAITING_BYTES // MAX_INPUT_CHARS):
        wire.create(text)
    assert (await wire.end())["status"] == 429
    wire.session.close()


async def test_an_unstored_response_is_continued_on_its_connection_only(echo: Wire) -> None:
    """Also from another lane of it, which is how a conversation forks."""
    echo.create("base", store=False)
    base = (await echo.end())["response"]["id"]
    echo.create("fork", store=False, previous_response_id=base, stream_id="fork")
    assert text_of(await echo.end(2)) == "echo: fork"
    echo.create("main", store=False, previous_response_id=base)
    assert text_of(await echo.end(3)) == "echo: main"

    other = Wire(Endpoint(ScriptedEngine()))
    other.create("x", previous_response_id=base)
    end = await other.end()
    assert end["error"]["code"] == "previous_response_not_found"
    assert end["error"]["param"] == "previous_response_id"


async def test_a_lane_remembers_its_latest_response_only(echo: Wire) -> None:
    """An older unstored one is gone."""
    echo.create("one", store=False)
    one = (await echo.end())["response"]["id"]
    echo.create("two", store=False, previous_response_id=one)
    await echo.end(2)
    echo.create("back", store=False, previous_response_id=one)
    assert (await echo.end(3))["error"]["code"] == "previous_response_not_found"


async def test_a_failed_continuation_forgets_its_parent(echo: Wire) -> None:
    """On the same lane; the failed fork of another lane does not."""
    echo.create("one", store=False)
    one = (await echo.end())["response"]["id"]
    bad = [{"type": "function_call_output", "call_id": "nope", "output": ""}]
    echo.create(store=False, previous_response_id=one, stream_id="fork", input=bad)
    assert (await echo.end(2))["error"]["param"] == "input[0].call_id"
    echo.create(store=False, previous_response_id=one, input=bad)
    assert (await echo.end(3))["error"]["param"] == "input[0].call_id"
    echo.create("two", store=False, previous_response_id=one)
    assert (await echo.end(4))["error"]["code"] == "previous_response_not_found"


async def test_a_malformed_continuation_forgets_its_parent_too(echo: Wire) -> None:
    """A field of a wrong type is a 400 like any other."""
    echo.create("one", store=False)
    one = (await echo.end())["response"]["id"]
    echo.create("x", store=False, previous_response_id=one, temperature="hot")
    assert (await echo.end(2))["error"]["param"] == "temperature"
    echo.create("two", store=False, previous_response_id=one)
    assert (await echo.end(3))["error"]["code"] == "previous_response_not_found"


async def test_a_bad_create_is_answered_in_its_turn(held: Held, wire: Wire) -> None:
    """A client counts: the n-th create of a lane gets the n-th end."""
    wire.create("one")
    wire.create("bad", temperature="hot")
    wire.create("three")
    assert wire.ends() == []
    held.release("one")
    await wire.end(2)
    held.release("three")
    await wire.end(3)
    kinds = [end["type"] for end in wire.ends()]
    assert kinds == ["response.completed", "error", "response.completed"]


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[1]", None),
        (b"null", None),
        (b'"text"', None),
        (b"\xff\xfe", None),
        (b"{}", "type"),
        (b'{"type":7}', "type"),
        (b'{"type":"response.destroy"}', "type"),
        (b'{"type":"response.create"}', "model"),
        (b'{"type":"response.create","model":"scripted","input":7}', "input"),
        (b'{"type":"response.create","model":"scripted","stream_id":"a b"}', "stream_id"),
        (b'{"type":"response.create","model":"scripted","stream_id":9}', "stream_id"),
        (b'{"type":"response.cancel","response_id":9}', "response_id"),
        (b"[" * 100_000, None),
        (b'{"type":"response.create","model":"' + b"x" * 1_000_000 + b'"}', "model"),
    ],
)
async def test_what_is_no_event_is_named_and_harms_nothing(
    frame: bytes, param: str | None, echo: Wire
) -> None:
    """An error event of bounded size; the connection goes on."""
    echo.send(frame)
    end = await echo.end()
    assert (end["type"], end["status"], end["error"]["param"]) == ("error", 400, param)
    assert len(end["error"]["message"]) < 2100
    echo.create("still here")
    assert text_of(await echo.end(2)) == "echo: still here"


async def test_cancel_reaches_the_response_named_or_the_lanes_oldest(
    held: Held, wire: Wire
) -> None:
    """Ids of other lanes work; a response that is named and over is no error."""
    wire.create("one")
    wire.create("two")
    wire.create("lane", stream_id="a")
    ids = {event.get("stream_id"): event["response"]["id"] for event in wire.events}
    wire.send({"type": "response.cancel", "response_id": ids["a"]})
    assert (await wire.end())["stream_id"] == "a"
    wire.send({"type": "response.cancel"})
    assert (await wire.end(2))["type"] == "response.incomplete"
    wire.send({"type": "response.cancel", "response_id": ids["a"]})
    wire.send({"type": "response.interrupt", "mode": "discard_partial_items"})
    assert (await wire.end(3))["response"]["incomplete_details"] == {"reason": "interrupted"}
    assert len(wire.ends()) == 3


@pytest.mark.parametrize("kind", ["response.cancel", "response.interrupt"])
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "response_not_active", None),
        ({"stream_id": "a"}, "response_not_active", "stream_id"),
        ({"stream_id": "never"}, "response_not_active", "stream_id"),
        ({"response_id": "resp_nobodys"}, "response_not_found", "response_id"),
    ],
)
async def test_a_wish_to_end_what_there_is_not_is_answered(
    kind: str, fields: dict[str, str], code: str, param: str | None, echo: Wire
) -> None:
    """On the lane that was meant; the connection goes on."""
    echo.create("one", stream_id="a")
    await echo.end()
    echo.send({"type": kind, **fields})
    error = await echo.end(2)
    assert (error["type"], error["error"]["code"], error["error"]["param"]) == (
        "error",
        code,
        param,
    )
    assert error.get("stream_id") == fields.get("stream_id")
    echo.create("still here")
    assert text_of(await echo.end(3)) == "echo: still here"


async def test_a_response_of_another_connection_cannot_be_ended_and_goes_on(held: Held) -> None:
    """Whoever guesses an id learns nothing more than that it is not theirs."""
    endpoint = Endpoint(ScriptedEngine(held))
    wire, other = Wire(endpoint), Wire(endpoint)
    wire.create("one")
    response_id = wire.events[0]["response"]["id"]
    other.send({"type": "response.cancel", "response_id": response_id})
    assert (await other.end())["error"]["code"] == "response_not_found"
    held.release("one")
    assert (await wire.end())["type"] == "response.completed"


async def test_an_expired_connection_ends_what_runs_first(held: Held, wire: Wire) -> None:
    """New creates are refused with a code of their own; then it says so once more and closes."""
    closed: list[bool] = []
    wire.create("one")
    wire.session.expire(lambda: closed.append(True))
    wire.create("two")
    held.release("one")
    kinds = [(await wire.end(n)).get("error", {}).get("code") for n in (1, 2, 3)]
    assert kinds.count("websocket_connection_limit_reached") == 2
    assert kinds.count(None) == 1
    assert closed == [True]


async def test_closing_cancels_what_runs_and_says_nothing_more(held: Held, wire: Wire) -> None:
    """Nobody is listening; the engine must not go on working."""
    endpoint = Endpoint(ScriptedEngine(held))
    wire = Wire(endpoint)
    wire.create("one")
    wire.create("two")
    await held.holds["one"].reached.wait()
    written = len(wire.events)
    wire.session.close()
    wire.session.close()
    await endpoint.drained(30)
    assert not endpoint.backstage.running
    assert len(wire.events) == written
    assert list(held.holds) == ["one"]


class SlowStore(Store):
    """Reads wait until they are let go; then fail if told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.fails = False

    async def chain(self, response_id: str) -> list[Row]:
        self.asked.set()
        await self.go.wait()
        if self.fails:
            raise StoreError("disk gone")
        return await super().chain(response_id)


async def restarted(tmp_path: Path) -> tuple[Endpoint, SlowStore, str]:
    first = Endpoint(ScriptedEngine(), Store(tmp_path / "db"))
    await first.start()
    wire = Wire(first)
    wire.create("before", store=True)
    response_id: str = (await wire.end())["response"]["id"]
    await first.close()
    store = SlowStore(tmp_path / "db")
    second = Endpoint(ScriptedEngine(count_items), store)
    await second.start()
    return second, store, response_id


def count_items(request: GenerationRequest) -> Answer:
    return text_answer(str(len(request.context())))


async def test_a_stored_parent_is_read_from_disk_in_its_turn(tmp_path: Path) -> None:
    """Other lanes do not wait for the disk; the lane itself does."""
    endpoint, store, parent = await restarted(tmp_path)
    wire = Wire(endpoint)
    wire.create("after", previous_response_id=parent)
    wire.create("next")
    wire.create("beside", stream_id="a")
    assert text_of(await wire.end()) == "1"
    store.go.set()
    await wire.end(3)
    assert [text_of(end) for end in wire.ends()] == ["1", "3", "1"]
    await endpoint.close()


async def test_a_cancel_while_the_disk_is_read_still_ends_the_response(tmp_path: Path) -> None:
    """At the worst moment: the turn exists but has not begun."""
    endpoint, store, parent = await restarted(tmp_path)
    wire = Wire(endpoint)
    wire.create("after", previous_response_id=parent)
    await store.asked.wait()
    wire.send({"type": "response.cancel"})
    store.go.set()
    assert (await wire.end())["type"] == "response.incomplete"
    assert wire.types()[0] == "response.created"
    await endpoint.close()


async def test_a_connection_that_closes_while_the_disk_is_read_starts_nothing(
    tmp_path: Path,
) -> None:
    """The read ends into nothing."""
    endpoint, store, parent = await restarted(tmp_path)
    wire = Wire(endpoint)
    wire.create("after", previous_response_id=parent)
    await store.asked.wait()
    wire.session.close()
    store.go.set()
    await endpoint.close()
    assert wire.events == []


async def test_a_disk_that_fails_is_a_500_for_that_request(tmp_path: Path) -> None:
    """It must not look like an unknown response, after which clients resend everything."""
    endpoint, store, parent = await restarted(tmp_path)
    store.fails = True
    store.go.set()
    wire = Wire(endpoint)
    wire.create("after", previous_response_id=parent)
    end = await wire.end()
    assert (end["status"], end["error"]["message"]) == (500, "disk gone")
    await endpoint.close()


class BrokenModels(ScriptedEngine):
    """Raises where nobody expects it."""

    is_broken = False

    def models(self) -> Sequence[ModelInfo]:
        if self.is_broken:
            raise RuntimeError("a bug")
        return super().models()


async def test_a_turn_that_cannot_begin_harms_neither_lane_nor_connection() -> None:
    """Also when it is begun from the end of the one before it."""
    hold = Hold()
    engine = BrokenModels(in_turn([[hold], text_answer("x")]))
    wire = Wire(Endpoint(engine))
    wire.create()
    wire.create()
    await hold.reached.wait()
    engine.is_broken = True
    hold.release.set()
    assert (await wire.end(1))["type"] == "response.completed"
    assert (await wire.end(2))["status"] == 500
    engine.is_broken = False
    wire.create()
    assert (await wire.end(3))["type"] == "response.completed"


async def test_a_parent_that_cannot_be_looked_up_for_a_bug_ends_only_its_create() -> None:
    """The lane goes on, and the connection keeps its place for another response."""

    class BrokenStore(Store):
        async def chain(self, response_id: str) -> list[Row]:
            raise RuntimeError(f"a bug with {response_id}")

    wire = Wire(Endpoint(ScriptedEngine(), BrokenStore(Path("unused"))))
    wire.create(previous_response_id="resp_x")
    assert (await wire.end())["status"] == 500
    wire.create(store=False)
    assert (await wire.end(2))["type"] == "response.completed"
