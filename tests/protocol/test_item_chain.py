"""What counts as the same item when a client sends it again."""

import msgspec
import pytest
from hypothesis import given
from msgspec import Raw

from tests.strategies import items as any_items
from tightloop.protocol.item_chain import (
    answers,
    are_same,
    chain,
    in_blocks,
    in_one_message,
    is_same,
    link,
    without_reasoning,
)
from tightloop.protocol.items import (
    CustomToolCall,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Reasoning,
    TextPart,
    decode_input,
    encode_items,
    user_message,
)

CALL = FunctionCall("call_1", "shell", '{"cmd": "ls"}', id="fc_1")
RESPELT = FunctionCall("call_1", "shell", '{"cmd":"ls"}')
TEXT = Message("assistant", (TextPart("output_text", "ab"),), id="msg_1")
THOUGHT = Reasoning(("plan",), id="rs_1")
OUTPUT = FunctionCallOutput("call_1", "x")
PICTURE = OpaquePart("input_image", Raw(b'{"type":"input_image","image_url":"data:a"}'))
OTHER_PICTURE = OpaquePart("input_image", Raw(b'{"type":"input_image","image_url":"data:b"}'))


def said(*texts: str) -> Message:
    return Message("assistant", tuple(TextPart("text", text) for text in texts))


@given(any_items)
def test_an_item_is_the_same_after_the_wire_and_without_its_id(item: Item) -> None:
    """And the same items have the same hash."""
    (again,) = decode_input(encode_items([item]))
    assert is_same(item, again)
    assert link(1, item) == link(1, again)
    if not isinstance(again, OpaqueItem):
        nameless = msgspec.structs.replace(again, id=None)
        assert is_same(item, nameless)
        assert link(1, item) == link(1, nameless)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user_message("a"), user_message("b")),
        (user_message("a"), said("a")),
        (CALL, CustomToolCall("call_1", "shell", '{"cmd": "ls"}')),
        (FunctionCallOutput("call_1", "x"), FunctionCallOutput("call_2", "x")),
        (FunctionCallOutput("call_1", "x"), FunctionCallOutput("call_1", "y")),
        (THOUGHT, Reasoning(("another plan",))),
        (CALL, RESPELT),
        (said("ab"), said("a", "b")),
        (TEXT, msgspec.structs.replace(TEXT, phase="commentary")),
        (OUTPUT, msgspec.structs.replace(OUTPUT, parts=(PICTURE,))),
        (Message("user", (PICTURE,)), Message("user", (OTHER_PICTURE,))),
        (CALL, msgspec.structs.replace(CALL, namespace="mcp")),
    ],
)
def test_what_a_model_would_read_differently_is_not_the_same(one: Item, other: Item) -> None:
    assert not is_same(one, other)
    assert not are_same([one], [other])


def test_the_hash_of_a_list_grows_with_it() -> None:
    """Parts of a text count as the text; reasoning does not count."""
    assert chain(0, [TEXT, CALL]) == link(link(0, TEXT), CALL)
    assert chain(0, [said("a", "b"), RESPELT]) == chain(0, [TEXT, CALL])
    assert chain(0, [THOUGHT, TEXT]) == chain(0, [TEXT])
    assert chain(0, [CALL, TEXT]) != chain(0, [TEXT, CALL])


def test_an_answer_may_come_back_without_reasoning_and_with_its_arguments_respelt() -> None:
    assert answers([said("a", "b"), RESPELT], [TEXT, CALL])
    assert answers([THOUGHT, TEXT, Reasoning(("altered",)), CALL], [TEXT, CALL])
    assert not answers([TEXT], [TEXT, CALL])
    assert not answers([TEXT, FunctionCall("call_1", "shell", '{"cmd":"rm"}')], [TEXT, CALL])
    assert not answers([TEXT, FunctionCall("call_1", "shell", "{")], [TEXT, CALL])
    assert not answers([TEXT, FunctionCall("call_2", "shell", CALL.arguments)], [TEXT, CALL])


def test_an_answer_may_come_back_without_its_phase() -> None:
    spoken = msgspec.structs.replace(TEXT, phase="commentary")
    assert answers([TEXT], [spoken])
    assert not answers([said_as("ab", "c")], [spoken])


@pytest.mark.parametrize(
    ("one", "other"),
    [("true", "1"), ("false", "0.0"), (f"{2**70}", f"{2**70 + 1}"), ('"1"', "1"), ("NaN", "NaN")],
)
def test_arguments_that_only_python_takes_for_the_same(one: str, other: str) -> None:
    given, made = (FunctionCall("call_1", "f", f'{{"a":{text}}}') for text in (one + " ", other))
    assert not answers([given], [made])


def test_arguments_that_are_nested_deeper_than_python_compares() -> None:
    """They are another answer, and no error."""
    deep = [FunctionCall("call_1", "f", '{"a":' * 1000 + end + "}" * 1000) for end in ("1", " 2")]
    assert not answers(deep[:1], deep[1:])


def test_an_answer_in_the_words_of_other_dialects() -> None:
    """One text and the calls in a chat message; blocks in their order, texts that meet as one."""
    more = said("c")
    items = (TEXT, THOUGHT, more, CALL, said("d"))
    assert (said_as("ab", "c", "d"), CALL) == in_one_message(items)
    assert (said_as("ab", "c"), CALL, said("d")) == in_blocks(items)
    assert (TEXT, more, CALL, said("d")) == without_reasoning(items)
    assert (CALL,) == in_one_message([CALL]) == in_blocks([CALL])


def said_as(*texts: str) -> Message:
    kinds = ["output_text", *["text"] * (len(texts) - 1)]
    return Message("assistant", tuple(map(TextPart, kinds, texts)), id="msg_1")
