"""Compaction: a summary takes the place of what came before it in a conversation.

A ``compaction`` item carries its content in ``encrypted_content``, which clients pass on unread:
with ``store: false`` the item is the only place that holds the summary. Nothing in it is secret
from the client whose conversation it sums up, so it is encoded, not encrypted.

Two kinds. One made inside a response (``context_management``) stands in a chain that still holds
the old items, so it carries the messages worth keeping and hides everything before itself. One that
a client asked for (``compaction_trigger``, ``/responses/compact``) begins a new chain; the client
itself puts the messages in front of it, so it hides nothing.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    Compaction,
    Item,
    Message,
    OpaqueItem,
    TextPart,
    decode_input,
    encode_items,
)

PREFIX: Final = "tlc1."
"""Format and version of the content."""

SUMMARY_HEAD: Final = "Summary of the conversation so far, which it replaces:\n\n"
"""What stands before the summary when a model reads it."""


class Summary(Struct, frozen=True):
    """The content of a compaction item.

    ``kept`` are items that stay as they are, in front of the summary. ``hides_earlier``: the items
    before it in the conversation are no longer part of the context.
    """

    text: str
    kept: tuple[Item, ...] = ()
    hides_earlier: bool = False


class _Wire(Struct):
    summary: str
    kept: Raw = Raw(b"[]")
    hides_earlier: bool = False


_wire: Final = msgspec.json.Decoder(_Wire)


def seal(summary: Summary) -> str:
    """The ``encrypted_content`` of a compaction item."""
    wire = _Wire(summary.text, Raw(encode_items(summary.kept)), summary.hides_earlier)
    return PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(wire)).decode()


def unseal(item: Compaction, where: str = "input") -> Summary:
    """The content of an item that ``seal`` made. Raises ``ApiError`` for any other."""
    encoded = item.encrypted_content
    try:
        if not encoded.startswith(PREFIX):
            raise ValueError("it was not made by this server")
        # As text: what stays Raw is not checked by the decoder.
        wire = _wire.decode(str(base64.urlsafe_b64decode(encoded[len(PREFIX) :]), "utf-8"))
        return Summary(wire.summary, _kept(wire.kept), wire.hides_earlier)
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError, ApiError) as error:
        raise ApiError(
            f"the content of the compaction item cannot be read: {error}; pass it on unchanged",
            code="invalid_encrypted_content",
            param=f"{where}.encrypted_content",
        ) from error


def _kept(raw: Raw) -> tuple[Item, ...]:
    """Messages and uninterpreted items only: others mean something by what is around them."""
    items = decode_input(raw)
    for item in items:
        if not isinstance(item, Message | OpaqueItem):
            raise ValueError(f"it keeps an item of type {type(item).__name__}")
    return items


def is_trigger(item: Item) -> bool:
    """Whether the item asks for a compaction and says nothing."""
    return isinstance(item, OpaqueItem) and item.type == "compaction_trigger"


def check_compactions(items: Sequence[Item], first: int = 0) -> None:
    """Every compaction item among ``items`` can be read. Raises ``ApiError`` naming the first.

    Those before number ``first`` were looked at before.
    """
    for index in range(first, len(items)):
        item = items[index]
        if isinstance(item, Compaction):
            unseal(item, f"input[{index}]")


def visible(items: Iterable[Item]) -> list[Item]:
    """The items as a model should read them: summaries spelt out, what they hide left out.

    The items have passed ``check_compactions``.
    """
    seen: list[Item] = []
    for item in items:
        if isinstance(item, Compaction):
            summary = unseal(item)
            if summary.hides_earlier:
                seen.clear()
            seen += summary.kept
            seen.append(_as_message(summary.text))
        elif not is_trigger(item):
            seen.append(item)
    return seen


def _as_message(text: str) -> Message:
    return Message("user", (TextPart("input_text", SUMMARY_HEAD + text),))
