"""When a response is ended early, and what of a dropped one goes out again."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from msgspec import Raw

from tightloop.agent.early_end import MAX_IN_A_ROW, EarlyEnd
from tightloop.agent.tools.interface import Hopeless, ToolResult
from tightloop.client.scripted import Reply, ScriptedTransport, call_reply, text_reply
from tightloop.client.session import Session
from tightloop.client.transport import Event
from tightloop.protocol.items import (
    CustomToolCall,
    FunctionCall,
    Item,
    Message,
    OpaqueItem,
    Reasoning,
    TextPart,
)
from tightloop.protocol.prefill import CANCEL


class Ending(ScriptedTransport):
    """A scripted server that can, or cannot, end a response and go on from there."""

    def __init__(self, *names: str, replies: Sequence[Reply] = ()) -> None:
        super().__init__(replies)
        self.capabilities = frozenset(names)
        self.hints: list[Event] = []

    def hint(self, event: Event) -> bool:
        self.hints.append(event)
        return True


def _doomed(num_more_tokens: float) -> Hopeless:
    return Hopeless("half", ToolResult("no", is_ok=False), num_more_tokens)


async def _making(transport: Ending) -> tuple[Session, AsyncGenerator[Event, None]]:
    """A session in the middle of a response."""
    session = Session(transport, model="scripted")
    stream = session.respond([])
    await anext(stream)
    return session, stream


async def test_a_server_that_can_is_asked_to_end() -> None:
    transport = Ending(CANCEL)
    session, stream = await _making(transport)
    early = EarlyEnd(session, 100.0)
    early.begin()
    assert early.consider(None) is False
    assert early.consider(_doomed(99.0)) is False
    assert transport.hints == []
    assert early.consider(_doomed(100.0)) is False, "read on: the early end is on its way"
    assert transport.hints == [{"type": CANCEL, "response_id": "resp_1"}]
    assert early.consider(_doomed(500.0)) is False
    assert len(transport.hints) == 1
    await stream.aclose()


async def test_of_any_other_server_the_response_is_dropped() -> None:
    session, stream = await _making(Ending())
    early = EarlyEnd(session, 0.0)
    early.begin()
    assert early.consider(_doomed(0.0)) is True
    await stream.aclose()


async def test_a_server_that_keeps_half_calls_is_not_sent_them() -> None:
    """Ours drops them; whatever it keeps must not be there twice."""
    replies = [call_reply("apply_patch", "half", "c"), text_reply("hm")]
    transport = Ending(CANCEL, replies=replies)
    session = Session(transport, model="scripted")
    early = EarlyEnd(session, 100.0)
    cut = CustomToolCall("c", "apply_patch", "half")
    kept = []
    for _ in replies:
        early.begin()
        async for _event in session.respond([]):
            early.consider(_doomed(200.0))
        early.settle([cut], is_dropped=False)
        kept.append(early.kept)
    assert kept == [[], [cut]]


async def test_never() -> None:
    session, stream = await _making(Ending())
    early = EarlyEnd(session, None)
    early.begin()
    assert early.consider(_doomed(1e9)) is False
    await stream.aclose()


async def test_not_again_and_again() -> None:
    """After some in a row the model may finish; then the count begins anew."""
    session, stream = await _making(Ending())
    early = EarlyEnd(session, 100.0)
    seen = []
    for _ in range(MAX_IN_A_ROW + 2):
        early.begin()
        is_dropped = early.consider(_doomed(200.0))
        seen.append(is_dropped)
        early.settle([], is_dropped=is_dropped)
    assert seen == [*[True] * MAX_IN_A_ROW, False, True]
    await stream.aclose()


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (Message("assistant", (TextPart("output_text", "hm"),), "msg_1"),
         Message("assistant", (TextPart("output_text", "hm"),))),
        (FunctionCall("c", "f", "{}", "fc_1"), FunctionCall("c", "f", "{}")),
        (Reasoning(("so",), "sealed", "rs_1"), Reasoning(("so",), "sealed")),
        (Reasoning((), None, "rs_1", ("so",)), Reasoning((), None, None, ("so",))),
        (Reasoning(("so",), None, "rs_1"), None),
        (OpaqueItem("web_search_call", Raw(b'{"type":"web_search_call"}')), None),
    ],
)  # fmt: skip
async def test_what_goes_out_again(item: Item, kept: Item | None) -> None:
    """Without ids that nobody knows, and without what only the dropped response's server reads."""
    session, stream = await _making(Ending())
    early = EarlyEnd(session, 100.0)
    cut = CustomToolCall("d", "apply_patch", "half")
    early.begin()
    early.note(item)
    early.settle([cut], is_dropped=True)
    expected: list[Any] = [cut] if kept is None else [kept, cut]
    assert expected == early.kept
    early.begin()
    assert early.kept == []
    await stream.aclose()
