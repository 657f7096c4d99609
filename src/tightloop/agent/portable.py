"""Items of one server's responses as input for a request that knows nothing of them."""

from collections.abc import Iterable

import msgspec

from tightloop.protocol.items import Item, OpaqueItem, Reasoning


def portable(items: Iterable[Item]) -> list[Item]:
    """The items without their ids, which would be looked up; what cannot be read elsewhere is left
    out: reasoning without content, items of kinds that only their server knows."""
    return [_as_input(item) for item in items if _is_portable(item)]


def _is_portable(item: Item) -> bool:
    if isinstance(item, Reasoning):
        return bool(item.encrypted_content or item.content)
    return not isinstance(item, OpaqueItem)


def _as_input(item: Item) -> Item:
    return item if isinstance(item, OpaqueItem) else msgspec.structs.replace(item, id=None)
