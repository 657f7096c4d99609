"""Models that read text refuse the rest, and say what it was and where."""

import pytest
from msgspec import Raw

from tightloop.engine.families.content import refuse_unreadable
from tightloop.engine.interface import EngineError
from tightloop.protocol.items import (
    CustomToolCallOutput,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    TextPart,
    user_message,
)


def part(kind: str) -> OpaquePart:
    return OpaquePart(kind, Raw(b'{"type":"' + kind.encode() + b'"}'))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            Message("user", (TextPart("input_text", "see"), part("input_image"))),
            "'user' holds an im",
        ),
        (Message("developer", (part("input_file"),)), "'developer' holds a file"),
        (FunctionCallOutput("c", "text", parts=(part("input_image"),)), "output holds an image"),
        (CustomToolCallOutput("c", "", parts=(part("odd"),)), "output holds a part of type 'odd'"),
    ],
)
def test_what_is_not_text_is_refused(item: Item, words: str) -> None:
    with pytest.raises(EngineError, match=words) as refused:
        refuse_unreadable([user_message("hi"), item], "tiny")
    assert refused.value.code == "unsupported_content"
    assert "'tiny'" in str(refused.value)


def test_text_refusals_and_unknown_items_pass() -> None:
    opaque = OpaqueItem("web_search_call", Raw(b'{"type":"web_search_call"}'))
    refusal = Message("assistant", (part("refusal"),))
    refuse_unreadable([user_message("hi"), refusal, opaque, FunctionCallOutput("c", "x")], "tiny")
