"""The switchboard: frames find the response they belong to."""

from contextlib import nullcontext
from typing import Any

import orjson
import pytest

from tightloop.client import inbox as inbox_module
from tightloop.client.inbox import Inbox, Switchboard
from tightloop.client.transport import TransportError
from tightloop.protocol.accumulator import TERMINAL_TYPES
from tightloop.protocol.errors import ApiError


def event(kind: str, **fields: object) -> bytes:
    return orjson.dumps({"type": kind, **fields})


def created(response_id: str, **fields: object) -> bytes:
    return event("response.created", response={"id": response_id}, **fields)


DONE = event("response.completed", response={})


async def types(inbox: Inbox) -> list[str]:
    found = []
    while (item := await inbox.get()) is not None:
        found.append(item["type"])
    return found


async def test_creates_of_a_lane_are_answered_in_order() -> None:
    """The first open inbox owns what comes, until its terminal event."""
    board = Switchboard("x")
    first, frame = board.open({"model": "m"})
    second, _ = board.open({"model": "m"})
    assert orjson.loads(frame) == {"type": "response.create", "model": "m"}
    for frame in (created("a"), DONE, created("b"), event("response.failed", response={})):
        board.receive(frame)
    assert await types(first) == ["response.created", "response.completed"]
    assert await types(second) == ["response.created", "response.failed"]


async def test_lanes_are_told_apart() -> None:
    """By stream_id; events of lanes nobody opened are dropped."""
    board = Switchboard("x")
    main, _ = board.open({})
    lane, _ = board.open({"stream_id": "a"})
    board.receive(created("r", stream_id="other"))
    board.receive(event("response.completed", response={}, stream_id="a"))
    board.receive(DONE)
    assert await types(lane) == ["response.completed"]
    assert await types(main) == ["response.completed"]


async def test_an_error_ends_its_create_only() -> None:
    """Events before it are delivered first."""
    board = Switchboard("x")
    first, _ = board.open({})
    second, _ = board.open({})
    board.receive(created("a"))
    board.receive(event("error", status=429, error={"message": "slow", "code": "c"}))
    board.receive(DONE)
    assert await first.get() is not None
    with pytest.raises(ApiError, match="slow") as caught:
        await first.get()
    assert caught.value.status == 429
    assert await types(second) == ["response.completed"]


async def test_leaving_names_what_to_cancel() -> None:
    """Id and lane when they are known; nothing once the response is over."""
    board = Switchboard("x")
    inbox, _ = board.open({"stream_id": "a"})
    assert orjson.loads(board.leave(inbox) or b"") == {"type": "response.cancel", "stream_id": "a"}
    board.receive(created("r", stream_id="a"))
    cancel = orjson.loads(board.leave(inbox) or b"")
    assert cancel == {"type": "response.cancel", "stream_id": "a", "response_id": "r"}
    board.receive(event("response.incomplete", response={}, stream_id="a"))
    assert board.leave(inbox) is None


async def test_a_queued_create_that_is_left_does_not_cancel_the_one_before() -> None:
    """A cancel without an id means the lane's oldest response, which is somebody else's."""
    board = Switchboard("x")
    board.open({})
    second, _ = board.open({})
    assert board.leave(second) is None


@pytest.mark.parametrize("code", ["response_not_active", "response_not_found"])
async def test_a_cancel_that_came_too_late_harms_no_other_response(code: str) -> None:
    """It crossed with the end of its own; the answer to it is for no create. Else such a code is as any other."""
    board = Switchboard("x")
    refused, _ = board.open({})
    later, _ = board.open({})
    board.leave(refused)
    board.receive(event("error", error={"message": "no such model", "code": "model_not_found"}))
    board.receive(event("error", error={"message": "nothing runs", "code": code}))
    board.receive(DONE)
    assert await types(later) == ["response.completed"]
    board = Switchboard("x")
    refused, _ = board.open({})
    board.receive(event("error", error={"message": "nothing runs", "code": code}))
    with pytest.raises(ApiError, match="nothing runs"):
        await refused.get()


async def test_every_kind_of_end_gives_the_lane_to_the_next() -> None:
    board = Switchboard("x")
    inboxes = [board.open({})[0] for _ in TERMINAL_TYPES]
    for kind in TERMINAL_TYPES:
        board.receive(event(kind, response={}))
    assert [[kind] for kind in TERMINAL_TYPES] == [await types(inbox) for inbox in inboxes]


async def test_what_nobody_reads_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept is delivered, then the error; whoever keeps up may be told any number of bytes."""
    monkeypatch.setattr(inbox_module, "MAX_UNREAD_BYTES", 2 * len(delta("x")))
    board = Switchboard("x")
    inbox, _ = board.open({})
    later, _ = board.open({})
    for _ in range(5):
        board.receive(delta("x"))
        assert await inbox.get() is not None
    for text in "abcd":
        board.receive(delta(text))
    assert [(await inbox.get() or {})["delta"] for _ in range(2)] == ["a", "b"]
    with pytest.raises(TransportError, match="nobody read"):
        await inbox.get()
    assert board.leave(inbox) is not None
    for frame in (DONE, DONE):
        board.receive(frame)
    assert await types(later) == ["response.completed"]


async def test_an_abandoned_response_still_keeps_its_place() -> None:
    """Its events go nowhere, and the next create gets its own."""
    board = Switchboard("x")
    first, _ = board.open({})
    second, _ = board.open({})
    board.leave(first)
    for frame in (created("a"), DONE, DONE):
        board.receive(frame)
    assert await types(second) == ["response.completed"]


@pytest.mark.parametrize(
    "frame",
    [
        *(b"", b"{", b"[]", b"7", b"{}", "text"),
        b'{"type":"x","stream_id":[]}',
        b'{"type":"response.created","response":7}',
        b'{"type":[]}',
    ],
)
async def test_a_frame_that_is_no_event_names_the_server(frame: bytes | str) -> None:
    """The connection cannot be trusted any more."""
    board = Switchboard("http://there")
    board.open({})
    with pytest.raises(TransportError, match=r"http://there sent a frame that is no event"):
        board.receive(frame)


async def test_losing_the_connection_ends_every_open_inbox() -> None:
    """What was filed before is still delivered."""
    board = Switchboard("x")
    first, _ = board.open({})
    second, _ = board.open({"stream_id": "a"})
    board.receive(created("a"))
    board.lose(TransportError("gone"))
    assert await first.get() is not None
    for inbox in (first, second):
        with pytest.raises(TransportError, match="gone"):
            await inbox.get()


def delta(text: str, **fields: object) -> bytes:
    return event("response.output_text.delta", delta=text, **fields)


async def test_deltas_keep_their_place_among_the_other_events() -> None:
    """Also those whose text names a lane, and those of a lane."""
    board = Switchboard("x")
    main, _ = board.open({})
    lane, _ = board.open({"stream_id": "a"})
    board.receive(created("r"))
    board.receive(delta('"stream_id":"a"'))
    board.receive(delta("of the lane", stream_id="a"))
    board.receive(event("response.output_text.done", text="x"))
    board.receive(delta("last"))
    board.receive(DONE)
    board.receive(delta("to nobody"))
    taken = [await main.get() for _ in range(5)]
    assert [item and item.get("delta") for item in taken] == [
        None,
        '"stream_id":"a"',
        None,
        "last",
        None,
    ]
    assert await main.get() is None
    assert await lane.get() == orjson.loads(delta("of the lane", stream_id="a"))


async def test_a_delta_that_is_none_ends_everything_when_it_is_taken() -> None:
    """What came before it was delivered, what came after it never is."""
    board = Switchboard("http://there")
    main, _ = board.open({})
    lane, _ = board.open({"stream_id": "a"})
    board.receive(delta("good"))
    board.receive(b'{"type":"response.output_text.delta","delta":')
    board.receive(delta("too late"))
    assert await main.get() == orjson.loads(delta("good"))
    for inbox in (main, main, lane):
        with pytest.raises(TransportError, match=r"http://there sent a frame that is no event"):
            await inbox.get()
    assert board.is_broken
    with pytest.raises(TransportError, match="no event"):
        board.receive(DONE)


async def test_deltas_for_somebody_who_has_left_are_dropped() -> None:
    board = Switchboard("x")
    inbox, _ = board.open({})
    board.receive(created("r"))
    board.leave(inbox)
    board.receive(delta("unheard"))
    board.receive(DONE)
    assert await types(inbox) == ["response.created"]


class Reader:
    """A callback, and the texts of what it was given, one list per call."""

    def __init__(self, *, enough: str = "") -> None:
        self.reads: list[list[str]] = []
        self.enough = enough

    def __call__(self, events: list[dict[str, Any]]) -> bool:
        self.reads.append([event.get("delta", event["type"]) for event in events])
        if "fault" in self.reads[-1]:
            raise ValueError("fault")
        return self.enough in self.reads[-1]


async def test_a_callback_is_given_what_one_read_brought() -> None:
    """In one call, up to its own end; the response behind it in the lane gets the rest."""
    board, reader = Switchboard("x"), Reader(enough="never")
    tap, frame = board.tap({"model": "m"}, reader)
    later, _ = board.open({})
    assert orjson.loads(frame) == {"type": "response.create", "model": "m"}
    board.receive_all([created("r"), delta("a"), delta("b")])
    board.receive_all([delta("c"), DONE, created("s"), DONE])
    await tap.wait()
    assert reader.reads == [["response.created", "a", "b"], ["c", "response.completed"]]
    assert board.leave(tap) is None
    assert await types(later) == ["response.created", "response.completed"]


async def test_a_callback_that_has_enough_hears_no_more() -> None:
    """Nor does one that failed, or whose reader has left; the response is cancelled by its id."""
    for text, error in (("enough", None), ("fault", ValueError)):
        board, reader = Switchboard("x"), Reader(enough="enough")
        tap, _ = board.tap({"stream_id": "a"}, reader)
        board.receive_all([created("r", stream_id="a"), delta(text, stream_id="a")])
        board.receive_all([delta("more", stream_id="a")])
        with pytest.raises(error) if error else nullcontext():
            await tap.wait()
        farewell = board.leave(tap)
        assert farewell is not None
        cancel = {"type": "response.cancel", "response_id": "r", "stream_id": "a"}
        assert cancel == orjson.loads(farewell)
        board.receive_all([delta("late", stream_id="a"), event("response.failed", stream_id="a")])
        assert [["response.created", text]] == reader.reads


async def test_a_callback_hears_what_came_before_a_fault() -> None:
    """A refusal, a frame that is no event, a lost connection."""
    refusal = event("error", status=429, error={"message": "slow", "code": "c"})
    board, reader = Switchboard("x"), Reader(enough="never")
    tap, _ = board.tap({}, reader)
    board.receive_all([delta("a"), refusal])
    with pytest.raises(ApiError, match="slow"):
        await tap.wait()
    second, _ = board.tap({}, reader)
    with pytest.raises(TransportError, match="no event"):
        board.receive_all([delta("b"), b'{"type":"response.output_text.delta","delta":'])
    board.lose(TransportError("gone"))
    with pytest.raises(TransportError, match="gone"):
        await second.wait()
    assert reader.reads == [["a"], ["b"]]
