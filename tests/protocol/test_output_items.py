"""The shapes of output items; that the official types accept them is tested with the stream."""

from tightloop.protocol.items import CustomToolCall, FunctionCall
from tightloop.protocol.output_items import call_item, message_item, reasoning_item


def test_a_message_not_yet_begun_has_no_parts() -> None:
    assert message_item("msg_1", None, "in_progress")["content"] == []
    part = {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}
    assert message_item("msg_1", "a", "completed")["content"] == [part]


def test_reasoning_has_a_status_only_when_it_was_cut() -> None:
    assert "status" not in reasoning_item("rs_1", "a")
    assert reasoning_item("rs_1", "a", "incomplete")["status"] == "incomplete"
    assert reasoning_item("rs_1", None)["encrypted_content"] == ""


def test_calls_of_both_kinds() -> None:
    assert call_item(FunctionCall("c1", "f", "{}"), "fc_1", "completed") == {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c1",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    }
    custom = call_item(CustomToolCall("c1", "p", "x", namespace="n"), "ctc_1", "completed")
    assert (custom["type"], custom["input"], custom["namespace"]) == ("custom_tool_call", "x", "n")
