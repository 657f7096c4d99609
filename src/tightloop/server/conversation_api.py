"""``/v1/conversations``: conversations by name, and their items."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web
from msgspec import Raw

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.items import Item, decode_item
from tightloop.protocol.surrogates import has_surrogate_escape, replace_lone_surrogates
from tightloop.server.conversation_book import Conversation, ConversationBook
from tightloop.server.item_lists import ListedItem, decode_query, item_list, no_item, wire_item
from tightloop.server.item_references import resolve_references

MAX_ITEMS: Final = 20
"""Items added at a time. Source: Conversations API reference."""

MAX_PAIRS: Final = 16
MAX_KEY_CHARS: Final = 64
MAX_VALUE_CHARS: Final = 512
"""Of metadata. Source: Conversations API reference."""


class _Create(msgspec.Struct):
    items: list[Raw] | None = None
    metadata: dict[str, str] | None = None


class _Update(msgspec.Struct):
    metadata: dict[str, str] | None


class _AddItems(msgspec.Struct):
    items: list[Raw]


_create: Final = msgspec.json.Decoder(_Create)
_update: Final = msgspec.json.Decoder(_Update)
_add_items: Final = msgspec.json.Decoder(_AddItems)


class ConversationApi:
    """Handlers of the routes. They raise ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, book: ConversationBook) -> None:
        self._book = book

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """All routes below ``/v1/conversations``."""
        one = "/v1/conversations/{id}"
        item = f"{one}/items/{{item_id}}"
        router.add_post("/v1/conversations", self.create)
        router.add_get(one, self.retrieve, allow_head=False)
        router.add_post(one, self.update)
        router.add_delete(one, self.delete)
        router.add_post(f"{one}/items", self.add_items)
        router.add_get(f"{one}/items", self.list_items, allow_head=False)
        router.add_get(item, self.retrieve_item, allow_head=False)
        router.add_delete(item, self.delete_item)

    async def create(self, request: web.Request) -> web.Response:
        """``POST /v1/conversations``: a new conversation, with up to 20 ``items`` to begin with."""
        wire: _Create = _decode(_create, await request.read() or b"{}")
        items = await resolve_references(
            self._book.responses, _items(wire.items or ()), None, "items"
        )
        return _answer(await self._book.create(items, _metadata(wire.metadata)))

    async def retrieve(self, request: web.Request) -> web.Response:
        """``GET /v1/conversations/{id}``: the conversation without its items."""
        return _answer(await self._book.get(request.match_info["id"]))

    async def update(self, request: web.Request) -> web.Response:
        """``POST /v1/conversations/{id}``: the metadata given replaces the old."""
        wire: _Update = _decode(_update, await request.read())
        conversation_id = request.match_info["id"]
        return _answer(await self._book.set_metadata(conversation_id, _metadata(wire.metadata)))

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/conversations/{id}``: its name goes; responses made in it stay."""
        conversation_id = request.match_info["id"]
        await self._book.delete(conversation_id)
        deleted = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
        return _json(orjson.dumps(deleted))

    async def add_items(self, request: web.Request) -> web.Response:
        """``POST /v1/conversations/{id}/items``: add up to 20 ``items`` at the end.

        The answer lists them with their ids. Refused with 409 while a response is being made in the
        conversation.
        """
        wire: _AddItems = _decode(_add_items, await request.read())
        items = _items(wire.items)
        with await self._book.hold(request.match_info["id"]) as hold:
            items = await resolve_references(self._book.responses, items, hold.head, "items")
            added = await hold.add(items) if items else []
        return _json(item_list(added))

    async def list_items(self, request: web.Request) -> web.Response:
        """``GET /v1/conversations/{id}/items``: one page of its items.

        ``limit`` is 1 to 100 (20), ``order`` is ``asc`` or ``desc`` (``desc``: newest first), ``after``
        is the id of the item that the page follows.
        """
        query = decode_query(request.query)
        conversation = await self._book.get(request.match_info["id"])
        return _json(query.page(conversation.walk(is_ascending=query.is_ascending)))

    async def retrieve_item(self, request: web.Request) -> web.Response:
        """``GET /v1/conversations/{id}/items/{item_id}``: one item of the conversation."""
        conversation = await self._book.get(request.match_info["id"])
        entry = _find(conversation.walk(), request.match_info["item_id"])
        return _json(bytes(wire_item(entry)))

    async def delete_item(self, request: web.Request) -> web.Response:
        """``DELETE /v1/conversations/{id}/items/{item_id}``: take one item out.

        The others keep their ids; the answer is the conversation. Refused with 409 while a response
        is being made in it.
        """
        with await self._book.hold(request.match_info["id"]) as hold:
            await hold.remove(request.match_info["item_id"])
            return _answer(hold.conversation)


def _decode(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    try:
        text = str(body, "utf-8")  # bytes kept as Raw are not checked by the decoder
        if has_surrogate_escape(body):
            text = replace_lone_surrogates(body)
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise from_validation_error(error) from error


def _items(raws: Sequence[Raw]) -> tuple[Item, ...]:
    if len(raws) > MAX_ITEMS:
        raise ApiError(
            f"items has {len(raws)} entries; at most {MAX_ITEMS} can be added at a time",
            code="invalid_value",
            param="items",
        )
    return tuple(decode_item(raw, where=f"items[{n}]") for n, raw in enumerate(raws))


def _metadata(given: dict[str, str] | None) -> dict[str, str]:
    pairs = given or {}
    if len(pairs) > MAX_PAIRS:
        raise _bad_metadata(f"metadata has {len(pairs)} pairs, the limit is {MAX_PAIRS}")
    for key, value in pairs.items():
        if len(key) > MAX_KEY_CHARS or len(value) > MAX_VALUE_CHARS:
            limits = f"{MAX_KEY_CHARS} for a key and {MAX_VALUE_CHARS} for a value"
            raise _bad_metadata(f"metadata[{key[:100]!r}] is too long; limits are {limits}")
    return pairs


def _bad_metadata(reason: str) -> ApiError:
    return ApiError(reason, code="invalid_value", param="metadata")


def _find(entries: Iterable[ListedItem], item_id: str) -> ListedItem:
    for entry in entries:
        if entry.id == item_id:
            return entry
    raise no_item(item_id, status=404, param="item_id")


def _answer(conversation: Conversation) -> web.Response:
    return _json(conversation.wire())


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
