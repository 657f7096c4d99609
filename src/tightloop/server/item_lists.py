"""Items as the API lists them: each with an id, complete for strict clients, in pages.

An item keeps the id that it came with. One without gets an id made of its node's id and its place
there, so that it is the same in every listing, now and after a restart, and nothing is stored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import Raw

from tightloop.engine.interface import Node
from tightloop.protocol.errors import ApiError, shorten
from tightloop.protocol.items import (
    Compaction,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Part,
    Reasoning,
    encode_item,
)
from tightloop.protocol.output_items import call_item, text_part

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100

_PREFIXES: Final[dict[type, str]] = {
    Message: "msg",
    FunctionCall: "fc",
    FunctionCallOutput: "fco",
    CustomToolCall: "ctc",
    CustomToolCallOutput: "ctco",
    Reasoning: "rs",
    Compaction: "cmp",
    OpaqueItem: "item",
}


@dataclass(frozen=True, slots=True)
class ListedItem:
    """An item and the id that it is listed under."""

    id: str
    item: Item


def listed(node: Node, start: int = 0, stop: int | None = None) -> list[ListedItem]:
    """The items of a node from ``start`` to ``stop``, oldest first; ancestors are left out."""
    items = node.items[start:stop]
    return [ListedItem(_id(node, n, item), item) for n, item in enumerate(items, start)]


def walk(node: Node | None, *, is_ascending: bool = False) -> Iterator[ListedItem]:
    """The items of the node and all its ancestors, newest or oldest first, one at a time.

    A page of a long conversation costs what it shows, not what there is.
    """
    links: list[Node] = []
    while node is not None:
        links.append(node)
        if not is_ascending:
            yield from reversed(listed(node))
        node = node.parent
    if is_ascending:
        for link in reversed(links):
            yield from listed(link)


def listed_context(node: Node | None) -> list[ListedItem]:
    """The items of the node and all its ancestors, oldest first."""
    return list(walk(node, is_ascending=True))


def key_of(node_id: str) -> str:
    """What the ids of a node's items hold of the node's own id."""
    return node_id.rpartition("_")[2][:16]


def key_in(item_id: str) -> str | None:
    """The ``key_of`` the node that an item was made in; None for an id of another making."""
    key = item_id.rpartition("_")[2][:16]
    return key if len(key) == 16 and key.isalnum() and key.isascii() else None


def with_id(entry: ListedItem) -> Item:
    """The item with the id it is listed under as its own."""
    item = entry.item
    if isinstance(item, OpaqueItem):
        return OpaqueItem(item.type, _spliced(item.raw, entry.id))
    return msgspec.structs.replace(item, id=entry.id)


def wire_item(entry: ListedItem) -> Raw:
    """JSON of the item as a server lists it."""
    item = entry.item
    if isinstance(item, OpaqueItem):
        return _spliced(item.raw, entry.id)
    return Raw(msgspec.json.encode(_fields(entry.id, item)))


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which part of a list is wanted."""

    limit: int = DEFAULT_LIMIT
    is_ascending: bool = False
    after: str | None = None

    def page(self, entries: Iterable[ListedItem]) -> bytes:
        """JSON of the part of ``entries``, which come in the order that was asked for.

        Raises ``ApiError`` when there is none to come after.
        """
        rest = iter(entries)
        if self.after is not None and all(entry.id != self.after for entry in rest):
            raise no_item(self.after, status=400, param="after")
        shown = list(islice(rest, self.limit))
        return item_list(shown, next(rest, None) is not None)


def decode_query(query: Mapping[str, str]) -> PageQuery:
    """The query string of a listing. Raises ``ApiError`` naming the parameter at fault."""
    given = query.get("limit", str(DEFAULT_LIMIT))
    limit = int(given) if given.isascii() and given.isdigit() and len(given) < 9 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise _bad_query("limit", f"a number from 1 to {MAX_LIMIT}", given)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _bad_query("order", "asc or desc", order)
    return PageQuery(limit, order == "asc", query.get("after") or None)


def item_list(entries: Sequence[ListedItem], has_more: bool = False) -> bytes:
    """JSON of a list object that holds all of ``entries``, in their order."""
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [wire_item(entry) for entry in entries],
            "first_id": entries[0].id if entries else None,
            "last_id": entries[-1].id if entries else None,
            "has_more": has_more,
        }
    )


def no_item(item_id: str, *, status: int, param: str) -> ApiError:
    """The refusal for an item that is not where it was looked for."""
    return ApiError(
        f"no item with id {shorten(item_id, 200)!r}",
        status=status,
        code="item_not_found",
        param=param,
    )


class _HasId(msgspec.Struct):
    id: Any = None


_has_id: Final = msgspec.json.Decoder(_HasId)


def _id(node: Node, index: int, item: Item) -> str:
    own = _opaque_id(item.raw) if isinstance(item, OpaqueItem) else item.id
    # The i keeps it apart from the ids of the same node's output items, which count in hex.
    return own or f"{_PREFIXES[type(item)]}_{key_of(node.id)}i{index:x}"


def _opaque_id(raw: Raw) -> str | None:
    try:
        found = _has_id.decode(raw).id
    except (msgspec.DecodeError, RecursionError):  # kept unread: numbers of any size, any depth
        return None
    return found if isinstance(found, str) else None


def _spliced(raw: Raw, item_id: str) -> Raw:
    """The object with this id, without decoding it; of two equal keys readers take the last."""
    if _opaque_id(raw) == item_id:
        return raw
    body = bytes(raw).rstrip()[:-1]
    return Raw(body + b',"id":' + msgspec.json.encode(item_id) + b"}")


def _fields(item_id: str, item: Item) -> dict[str, Any]:
    match item:
        case Message():
            return _message(item_id, item)
        case FunctionCall() | CustomToolCall():
            return call_item(item, item_id, "completed")
        case FunctionCallOutput() | CustomToolCallOutput():
            bare = msgspec.structs.replace(item, id=item_id, parts=())
            fields = {**encode_item(bare), "status": "completed"}
            return {**fields, "output": _parts(item.parts)} if item.parts else fields
        case _:
            return encode_item(msgspec.structs.replace(item, id=item_id))


def _message(item_id: str, item: Message) -> dict[str, Any]:
    fields = {
        "type": "message",
        "id": item_id,
        "status": "completed",
        "role": item.role,
        "content": _parts(item.content),
    }
    return fields if item.phase is None else {**fields, "phase": item.phase}


def _parts(parts: Sequence[Part]) -> list[Any]:
    return [_part(part) for part in parts]


def _part(part: Part) -> Any:
    if isinstance(part, OpaquePart):
        return part.raw
    if part.type == "output_text":
        return text_part(part.text)
    return {"type": part.type, "text": part.text}


def _bad_query(param: str, expected: str, given: str) -> ApiError:
    text = f"{param} must be {expected}, got {shorten(given, 100)!r}"
    return ApiError(text, code="invalid_value", param=param)
