"""Which create begins next; what it means on a connection is in ``test_lanes``."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.engine.scripted import ScriptedEngine
from tightloop.protocol.errors import ApiError
from tightloop.protocol.requests import decode_request
from tightloop.protocol.websocket_mode import MAX_IN_FLIGHT, MAX_NAMED_STREAMS
from tightloop.server.endpoint import Endpoint
from tightloop.server.lane_order import MAX_WAITING, MAX_WAITING_BYTES, Create, Lanes, Refusal
from tightloop.server.turns import Turn

REQUEST = decode_request(b'{"model":"m"}')


def create(num_bytes: int = 0) -> Create:
    backstage = Endpoint(ScriptedEngine()).backstage
    return Create(Turn(backstage, REQUEST, None, lambda _: None, receive_ns=0), num_bytes)


@given(st.lists(st.integers(0, MAX_NAMED_STREAMS - 1), max_size=60))
def test_lanes_are_first_in_first_out_and_none_is_passed_over_twice(names: Sequence[int]) -> None:
    """Whatever waits where: a lane that waits begins before any other begins two more."""
    lanes, order = Lanes(), {}
    for number, name in enumerate(names):
        entry = create()
        order[entry] = (name, number)
        lanes.put(lanes.obtain(f"s{name}"), entry)
    begun: list[tuple[int, int]] = []
    active = []
    while not lanes.is_idle:
        while (taken := lanes.take()) is not None:
            lane, entry_or_refusal = taken
            assert isinstance(entry_or_refusal, Create)
            begun.append(order[entry_or_refusal])
            active.append(lane)
        assert len(active) <= MAX_IN_FLIGHT
        lanes.free(active.pop(0))
    for name in set(names):
        numbers = [number for lane, number in begun if lane == name]
        assert numbers == sorted(numbers)
        before = [lane for lane, _ in begun[: begun.index((name, numbers[0]))]]
        assert all(before.count(other) <= 2 for other in set(before))
    assert len(begun) == len(names)


def test_what_waits_is_bounded_by_number_and_by_size() -> None:
    """One create may always wait; a place is free again when its create has begun."""
    lanes = Lanes()
    lane = lanes.obtain(None)
    lanes.check_room(2 * MAX_WAITING_BYTES)
    lanes.put(lane, create(MAX_WAITING_BYTES))
    with pytest.raises(ApiError) as caught:
        lanes.check_room(1)
    assert caught.value.status == 429
    lanes.take()
    lanes.check_room(1)
    for _ in range(MAX_WAITING):
        lanes.put(lane, Refusal(ApiError("x"), None))
    assert lanes.is_full
    with pytest.raises(ApiError):
        lanes.check_room(0)


def test_after_a_clear_nothing_waits() -> None:
    lanes = Lanes()
    lane = lanes.obtain("a")
    first = create()
    lanes.put(lane, first)
    lanes.put(lane, create(5))
    assert lanes.take() == (lane, first)
    assert lanes.clear() == [lane]
    lanes.free(lane)
    assert lanes.take() is None
    assert lanes.is_idle
