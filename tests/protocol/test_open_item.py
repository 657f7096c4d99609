import json

import pytest

from tightloop.protocol.deltas import ToolCallStarted
from tightloop.protocol.items import CustomToolCall, FunctionCall
from tightloop.protocol.open_item import OpenCall, OpenItem, OpenMessage, OpenReasoning


def delta_event(item: OpenItem, text: str) -> dict[str, object]:
    escaped = json.dumps(text).encode()
    event: dict[str, object] = json.loads(item.delta_template % (7, escaped) + b"}")
    return event


def test_an_id_is_no_part_of_the_template() -> None:
    """Whatever it holds."""
    assert delta_event(OpenMessage("100%d", 2), "5 %b")["item_id"] == "100%d"


@pytest.mark.parametrize(
    ("item", "event", "place"),
    [
        (
            OpenMessage("msg_1", 2),
            "output_text",
            {"content_index": 0, "logprobs": []},
        ),
        (OpenReasoning("rs_1", 2), "reasoning_summary_text", {"summary_index": 0}),
        (OpenCall("fc_1", 2, ToolCallStarted("c", "f"), None), "function_call_arguments", {}),
        (
            OpenCall("ctc_1", 2, ToolCallStarted("c", "f", True), None),
            "custom_tool_call_input",
            {},
        ),
    ],
)
def test_the_fixed_parts_make_a_delta_event(
    item: OpenItem, event: str, place: dict[str, object]
) -> None:
    assert delta_event(item, 'a"\n') == {
        "type": f"response.{event}.delta",
        "sequence_number": 7,
        "item_id": item.id,
        "output_index": 2,
        "delta": 'a"\n',
        **place,
    }


@pytest.mark.parametrize(("is_custom", "kind"), [(False, FunctionCall), (True, CustomToolCall)])
def test_a_call_that_was_cut_gets_no_event_of_its_own(is_custom: bool, kind: type) -> None:
    item = OpenCall("id_1", 0, ToolCallStarted("c", "f", is_custom), "ns")
    item.pieces += ["{", "}"]
    assert item.close("incomplete").events == []
    closed = item.close("completed")
    assert len(closed.events) == 1
    assert closed.item == kind("c", "f", "{}", "id_1", "ns")
    assert closed.json["namespace"] == "ns"
