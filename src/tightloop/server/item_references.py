"""Input items that only name another item: ``{"type": "item_reference", "id": ...}``.

Clients that keep ids instead of items send them. What the context already holds is not said twice;
what a stored response holds is put in the reference's place.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import Item, OpaqueItem
from tightloop.server.conversations import Conversations, Record
from tightloop.server.item_lists import key_in, listed, listed_context, no_item


class _Wire(msgspec.Struct):
    id: str


_wire: Final = msgspec.json.Decoder(_Wire)


def has_references(items: Sequence[Item]) -> bool:
    """Whether ``resolve_references`` has anything to do."""
    for item in items:  # noqa: SIM110 - half the time of any(), for each item of a long history
        if type(item) is OpaqueItem and item.type == "item_reference":
            return True
    return False


async def resolve_references(
    conversations: Conversations,
    items: tuple[Item, ...],
    parent: Record | None,
    field: str = "input",
) -> tuple[Item, ...]:
    """The items with every reference resolved. Raises ``ApiError`` 400 naming one that cannot be.

    An item can be named as long as its response can be fetched, or is in the context of ``parent``.
    Raises ``StoreError``.
    """
    if not has_references(items):
        return items
    context = {entry.id for entry in listed_context(parent.node if parent else None)}
    resolved: list[Item] = []
    for index, item in enumerate(items):
        if not isinstance(item, OpaqueItem) or not _is_reference(item):
            resolved.append(item)
            continue
        where = f"{field}[{index}]"
        item_id = _named(item, where)
        if item_id in context:
            continue
        resolved.append(await _look_up(conversations, item_id, where))
        context.add(item_id)
    return tuple(resolved)


async def _look_up(conversations: Conversations, item_id: str, where: str) -> Item:
    key = key_in(item_id)
    record = await conversations.find(key) if key is not None else None
    for entry in listed(record.node) if record is not None else ():
        if entry.id == item_id:
            return entry.item
    raise no_item(item_id, status=400, param=f"{where}.id")


def _named(item: OpaqueItem, where: str) -> str:
    try:
        return _wire.decode(item.raw).id
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(
            f"{where}.id must be the id of an item",
            code="missing_required_parameter",
            param=f"{where}.id",
        ) from error


def _is_reference(item: Item) -> bool:
    return isinstance(item, OpaqueItem) and item.type == "item_reference"
