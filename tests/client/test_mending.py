"""Calls that a host worded badly."""

from typing import Any

import orjson
import pytest

from tightloop.client.scripted import ScriptedTransport
from tightloop.client.session import Session
from tightloop.client.transport import Event
from tightloop.protocol.items import CustomToolCall, FunctionCall, FunctionCallOutput, user_message


def call(**fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "name": "t", "arguments": "{}", **fields}


class Canned(ScriptedTransport):
    """Answers with events as they are written down; then with nothing."""

    def __init__(
        self, *items: dict[str, Any], is_numbered: bool = True, is_told: bool = True
    ) -> None:
        super().__init__([])
        self.items = list(items)
        self.is_numbered = is_numbered
        self.is_told = is_told

    async def stream(self, request: dict[str, Any]) -> Any:
        self.requests.append(orjson.loads(orjson.dumps(request)))
        items, self.items = self.items, []
        for place, item in enumerate(items if self.is_told else ()):
            index = {"output_index": place} if self.is_numbered else {}
            yield {"type": "response.output_item.added", "item": dict(item), **index}
            yield {"type": "response.output_item.done", "item": dict(item), **index}
        response = {"id": f"r{len(self.requests)}", "output": [] if self.is_told else items}
        yield {"type": "response.completed", "response": response}


async def calls_of(transport: Canned) -> tuple[Session, list[Any], list[Event]]:
    session = Session(transport, model="m")
    events = [event async for event in session.respond([user_message("x")])]
    return session, session.items[1:], events


@pytest.mark.parametrize("is_numbered", [True, False])
@pytest.mark.parametrize("given", [{}, {"call_id": ""}, {"call_id": None}, {"call_id": 7}])
async def test_a_call_without_an_id_gets_one(given: dict[str, Any], is_numbered: bool) -> None:
    """The same in each of its events; the next request is a new chain, for the host knows no such id."""
    transport = Canned(call(**given), is_numbered=is_numbered)
    session, items, events = await calls_of(transport)
    assert items == [FunctionCall("call_fc_1", "t", "{}", id="fc_1")]
    done = [event["item"]["call_id"] for event in events if event["type"].endswith("item.done")]
    assert done == ["call_fc_1"]
    async for _ in session.respond([FunctionCallOutput("call_fc_1", "ok")]):
        pass
    assert "previous_response_id" not in transport.requests[1]
    assert [item["type"] for item in transport.requests[1]["input"]] == [
        "message",
        "function_call",
        "function_call_output",
    ]


async def test_without_any_id_it_is_named_after_its_place() -> None:
    _, items, _ = await calls_of(Canned(call(id=None), call(id=None)))
    assert [item.call_id for item in items] == ["call__0", "call__1"]


async def test_two_calls_with_one_id_become_two() -> None:
    _, items, _ = await calls_of(Canned(*[call(call_id="a")] * 3))
    assert [item.call_id for item in items] == ["a", "a~1", "a~2"]


@pytest.mark.parametrize("is_numbered", [True, False])
async def test_good_calls_are_left_alone(is_numbered: bool) -> None:
    """And the conversation is continued where it is."""
    transport = Canned(call(call_id="a"), call(call_id="b"), is_numbered=is_numbered)
    session, items, _ = await calls_of(transport)
    assert [item.call_id for item in items] == ["a", "b"]
    async for _ in session.respond([user_message("y")]):
        pass
    assert transport.requests[1]["previous_response_id"] == "r1"


@pytest.mark.parametrize(
    ("given", "arguments"),
    [({"a": 1}, '{"a":1}'), ([1], "[1]"), (None, ""), (3, "3"), ("not json", "not json")],
)
async def test_arguments_become_text(given: object, arguments: str) -> None:
    _, items, _ = await calls_of(Canned(call(call_id="a", arguments=given)))
    assert items[0].arguments == arguments


async def test_a_custom_call_with_an_object() -> None:
    item = {"type": "custom_tool_call", "call_id": "a", "name": None, "input": {"patch": "x"}}
    _, items, _ = await calls_of(Canned(item))
    assert items == [CustomToolCall("a", "", '{"patch":"x"}')]


async def test_calls_that_come_with_the_end_alone() -> None:
    _, items, _ = await calls_of(Canned(call(), call(), is_told=False))
    assert [item.call_id for item in items] == ["call_fc_1", "call_fc_1~1"]
