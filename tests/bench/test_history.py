"""Made-up histories have their size, and their turns differ."""

import random

import orjson
import pytest

from tightloop.bench.history import NEW_BYTES, history, tool_output
from tightloop.protocol.items import item_from_wire


@pytest.mark.parametrize("num_bytes", [4_000, 40_000, 200_000])
def test_a_history_has_about_its_size(num_bytes: int) -> None:
    """Within a tenth and the open call: what a row is called is what was sent."""
    num_sent = len(orjson.dumps(history(num_bytes)))
    assert abs(num_sent - num_bytes) < num_bytes / 10 + 600


def test_every_call_but_the_last_is_answered() -> None:
    """Endpoints refuse a history with a call that nobody answered."""
    items = history(40_000)
    called = {item["call_id"] for item in items if item["type"] == "function_call"}
    answered = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    assert called - answered == {"call_open"}
    assert items[-1]["call_id"] == "call_open"
    for item in items:
        item_from_wire(item)


def test_no_two_tool_outputs_are_alike() -> None:
    """A cache of prompts must not know the new part of a turn; the seed gives the same again."""
    rng = random.Random(1)
    outputs = [tool_output(rng) for _ in range(20)]
    assert {NEW_BYTES} == {len(output.encode()) for output in outputs}
    assert len({output[:30] for output in outputs}) == 20
    assert tool_output(random.Random(1)) == outputs[0]
