"""Follow-up turns as they go out, over a transport that keeps what it was asked."""

import random
from typing import Any

import pytest

from tightloop.bench.conversations import Lost, ResponsesConversation, Watched
from tightloop.client.scripted import Reply, ScriptedTransport, call_reply, text_reply
from tightloop.protocol.errors import ApiError

RNG = random.Random(1)


class Asked:
    """Replies in order; keeps the requests."""

    def __init__(self, *replies: Reply) -> None:
        self.requests: list[dict[str, Any]] = []
        self._replies = list(replies)

    def __call__(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)
        return self._replies.pop(0)


def conversation(asked: Asked) -> tuple[ResponsesConversation, Watched]:
    transport = Watched(ScriptedTransport(asked))
    return ResponsesConversation(transport, "m", 64), transport


async def test_a_call_is_answered_with_the_tool_output() -> None:
    """Only that, with the parent's id; further calls get a short answer."""
    both = [*call_reply("exec_command", {"cmd": "ls"}, "a"), *call_reply("exec_command", {}, "b")]
    asked = Asked(both, text_reply("done"))
    talk, _ = conversation(asked)
    await talk.open(4_000)
    sample = await talk.follow(RNG)
    sent = asked.requests[1]["input"]
    assert [(item["type"], item["call_id"]) for item in sent] == [
        ("function_call_output", "a"),
        ("function_call_output", "b"),
    ]
    assert len(sent[0]["output"]) == 4096
    assert asked.requests[1]["previous_response_id"]
    assert 4096 < sample.num_bytes < 8_000


async def test_without_a_call_it_comes_as_a_message() -> None:
    """Models that answer with text are measured all the same."""
    asked = Asked(text_reply("hello"), text_reply("done"))
    talk, _ = conversation(asked)
    await talk.open(4_000)
    await talk.follow(RNG)
    (only,) = asked.requests[1]["input"]
    assert (only["type"], only["role"]) == ("message", "user")


async def test_a_turn_that_was_sent_in_full_is_no_sample() -> None:
    """The endpoint forgot the parent: what was measured is another variant."""
    forgotten = ApiError("gone", status=404, code="previous_response_not_found")
    talk, _ = conversation(Asked(text_reply("a"), forgotten, text_reply("b")))
    await talk.open(4_000)
    with pytest.raises(Lost):
        await talk.follow(RNG)


async def test_a_refusal_for_another_reason_is_told_as_it_came() -> None:
    """Left-out fields are tried once; the first refusal says why."""
    asked = Asked(ApiError("too long", status=400), ApiError("second", status=400))
    talk, transport = conversation(asked)
    with pytest.raises(ApiError, match="too long"):
        await talk.open(4_000)
    assert ["include" in request for request in asked.requests] == [True, False]
    assert not transport.sends_optional
