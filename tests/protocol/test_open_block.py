"""The three kinds of content block, alone."""

import json

import pytest

from tightloop.protocol.deltas import ToolCallStarted
from tightloop.protocol.items import FunctionCall, Message, Reasoning, TextPart
from tightloop.protocol.open_block import OpenBlock, TextBlock, ThinkingBlock, ToolUseBlock


def call(arguments: str = "") -> ToolUseBlock:
    block = ToolUseBlock("fc_1", 2, ToolCallStarted("call_1", "Bash"))
    block.pieces.append(arguments)
    return block


@pytest.mark.parametrize(
    ("block", "empty", "delta"),
    [
        (TextBlock("msg_1", 0), {"type": "text", "text": ""}, {"type": "text_delta", "text": "é"}),
        (
            ThinkingBlock("rs_1", 1, is_shown=True),
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "é"},
        ),
        (
            call(),
            {"type": "tool_use", "id": "call_1", "name": "Bash", "input": {}},
            {"type": "input_json_delta", "partial_json": "é"},
        ),
    ],
)
def test_the_events_of_a_block(
    block: OpenBlock, empty: dict[str, str], delta: dict[str, str]
) -> None:
    """All name the block's place."""
    place = {"index": block.index}
    opening = {"type": "content_block_start", **place, "content_block": empty}
    assert opening == json.loads(block.opening())
    text = block.delta_head + '"é"'.encode() + b"}}"
    assert json.loads(text) == {"type": "content_block_delta", **place, "delta": delta}
    assert {"type": "content_block_stop", **place} == json.loads(block.closing()[-1])


def test_thinking_is_signed_with_nothing() -> None:
    """Clients that collect a signature find one."""
    signed, _stop = ThinkingBlock("rs_1", 0, is_shown=True).closing()
    assert json.loads(signed)["delta"] == {"type": "signature_delta", "signature": ""}


def test_the_items_of_the_blocks() -> None:
    """As ``ResponseStream`` has them, so that both dialects continue one another."""
    text, thinking = TextBlock("msg_1", 0), ThinkingBlock("rs_1", 0, is_shown=False)
    text.pieces += ["a", "b"]
    thinking.pieces.append("c")
    assert Message("assistant", (TextPart("output_text", "ab"),), id="msg_1") == text.item()
    assert Reasoning(("c",), id="rs_1") == thinking.item()
    assert FunctionCall("call_1", "Bash", '{"a":1}', "fc_1") == call('{"a":1}').item()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": [1, {"b": 2.0}]}', {"a": [1, {"b": 2.0}]}),
        ('{"a": "cut', {}),
        ("", {}),
        ("[1]", {}),
        ("[" * 5000, {}),
    ],
)
def test_the_input_in_a_whole_message_is_an_object(arguments: str, expected: object) -> None:
    """A call that was cut off has an empty one there; ``stop_reason`` says what happened."""
    assert json.loads(json.dumps(expected)) == json.loads(bytes(call(arguments).json()["input"]))
