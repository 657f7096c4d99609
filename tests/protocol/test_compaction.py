"""What a compaction item holds, and what a model reads of a conversation that has one."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import items, texts
from tightloop.protocol.compaction import (
    PREFIX,
    SUMMARY_HEAD,
    Summary,
    check_compactions,
    is_trigger,
    seal,
    unseal,
    visible,
)
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    Compaction,
    Item,
    Message,
    OpaqueItem,
    decode_input,
    user_message,
)

TRIGGER = OpaqueItem("compaction_trigger", msgspec.Raw(b'{"type":"compaction_trigger"}'))


def compaction(summary: Summary) -> Compaction:
    return Compaction(seal(summary), "cmp_1")


worth_keeping = items.filter(lambda item: isinstance(item, Message | OpaqueItem))


@given(texts, st.lists(worth_keeping, max_size=3).map(tuple), st.booleans())
def test_what_was_sealed_is_unsealed(text: str, kept: tuple[Item, ...], hides: bool) -> None:
    summary = Summary(text, kept, hides)
    assert summary == unseal(compaction(summary))


def test_a_summary_reads_as_a_message_in_its_place() -> None:
    before, after = user_message("fix it"), user_message("go on")
    seen = visible([before, compaction(Summary("tests fail")), TRIGGER, after])
    assert [before, user_message(SUMMARY_HEAD + "tests fail"), after] == seen


def test_a_summary_can_hide_what_came_before_but_for_what_it_kept() -> None:
    rules, old, new = user_message("rules"), user_message("old"), user_message("new")
    hiding = compaction(Summary("s", (rules,), hides_earlier=True))
    assert [rules, user_message(SUMMARY_HEAD + "s"), new] == visible([rules, old, hiding, new])


@pytest.mark.parametrize("content", ["", "gAAAAAB", "tlc1.", "tlc1.!!", "tlc1.e30="])
def test_a_foreign_item_is_refused_by_its_place(content: str) -> None:
    """Left out silently, it would take the whole conversation with it."""
    with pytest.raises(ApiError) as refusal:
        check_compactions([user_message("a"), Compaction(content)])
    assert refusal.value.param == "input[1].encrypted_content"


@pytest.mark.parametrize(
    "content",
    [
        b'{"summary":"x","kept":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"summary":"x","more":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"summary":"x","kept":[{"type":"unknown","text":"\xff"}]}',
        b'{"summary":"x","kept":[{"type":"compaction","encrypted_content":"y"}]}',
        b'{"summary":"x","kept":[{"type":"function_call_output","call_id":"c","output":"y"}]}',
    ],
)
def test_content_that_only_a_stranger_would_write_is_refused(content: bytes) -> None:
    """It must not reach an engine, nor end in an error of this server."""
    item = Compaction(PREFIX + base64.urlsafe_b64encode(content).decode())
    with pytest.raises(ApiError) as caught:
        check_compactions([item])
    assert caught.value.code == "invalid_encrypted_content"


def test_the_item_survives_the_wire() -> None:
    wire = b'[{"type":"compaction","id":"cmp_1","encrypted_content":"tlc1.x"}]'
    assert decode_input(wire) == (Compaction("tlc1.x", "cmp_1"),)
    (trigger,) = decode_input(b'[{"type":"compaction_trigger"}]')
    assert is_trigger(trigger)
    assert not is_trigger(user_message("a"))
