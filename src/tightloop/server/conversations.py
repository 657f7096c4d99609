"""The tree of responses: which node does a ``previous_response_id`` name?

A response that was stored can be continued from any connection, also after a restart: the chain is
then read from disk once. An unstored one lives with the connection that made it (see ``lanes``).
Adding a child costs what the child costs: parents are shared, never copied or validated again.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from tightloop.engine.interface import Node
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    OpaqueItem,
    decode_input,
    encode_items,
)
from tightloop.protocol.tools import Tool, additional_tools
from tightloop.server.cache_settings import CacheSettings
from tightloop.server.item_lists import key_of
from tightloop.server.known_histories import Known
from tightloop.server.store import Head, Row, Store

NUM_RECENT = 4096
MAX_RECENT_BYTES = 256 << 20
"""Of their JSON; in memory they take about as much again. The latest one stays however large."""

_CALLS: Final = (FunctionCall, CustomToolCall)
_OUTPUTS: Final = (FunctionCallOutput, CustomToolCallOutput)


@dataclass(slots=True, weakref_slot=True, eq=False)
class Record:
    """A node of the tree with what this server knows about it.

    ``num_input`` of the node's items came with the request. ``has_row``: its items are on disk,
    for itself or as the context of a stored descendant. ``tools`` came as items of the context
    (``additional_tools``) rather than as a field of a request. ``body`` is the final Response object of
    a stored response when there is no disk. ``num_bytes`` is the JSON size of a stored response.
    ``settings`` is None for a response read back from disk. ``view`` is the node as the engine knows it,
    where that is another: a request that came with its history has it above itself there. ``known`` is
    the end of its turn, None where nobody can come back to it with its history.
    """

    node: Node
    parent: "Record | None"
    num_input: int
    tools: tuple[Tool, ...] = ()
    has_row: bool = False
    body: bytes | None = None
    num_bytes: int = 0
    settings: CacheSettings | None = None
    view: Node | None = None
    known: Known | None = None

    @property
    def engine_node(self) -> Node:
        """What an engine takes for this response: the same context, perhaps in other pieces."""
        return self.view or self.node


class Conversations:
    """All stored responses; without a ``store`` the recent ones, as far as the two limits go."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        num_recent: int = NUM_RECENT,
        max_recent_bytes: int = MAX_RECENT_BYTES,
    ) -> None:
        self._store = store
        self._num_recent = num_recent
        self._max_recent_bytes = max_recent_bytes
        self._recent_bytes = 0
        self._recent: OrderedDict[str, Record] = OrderedDict()
        # Every stored record that a child or a connection still holds, beyond the recent ones.
        self._alive: WeakValueDictionary[str, Record] = WeakValueDictionary()
        self._by_key: WeakValueDictionary[str, Record] = WeakValueDictionary()
        # Every record with a row, context only or not: one object each, so that has_row is one truth.
        self._written: WeakValueDictionary[str, Record] = WeakValueDictionary()

    def recall(self, response_id: str) -> Record | None:
        """The stored response if it is in memory."""
        record = self._alive.get(response_id)
        if record is not None and response_id in self._recent:
            self._recent.move_to_end(response_id)
        return record

    async def load(self, response_id: str) -> Record | None:
        """The stored response, read from disk with those ancestors that are not in memory."""
        known = self.recall(response_id)
        if known is not None or self._store is None:
            return known
        rows = await self._store.chain(response_id)
        if not rows or rows[-1].body is None:
            return None
        return self._revive_chain(rows)

    async def load_context(self, row_id: str) -> Record | None:
        """As ``load``, for a row that may serve as context only; None without a disk."""
        rows = await self._store.chain(row_id) if self._store is not None else []
        return self._revive_chain(rows)

    def _revive_chain(self, rows: Sequence[Row]) -> Record | None:
        record: Record | None = None
        for row in rows:
            record = self._written.get(row.id) or _revive(row, record)
            self._written[row.id] = record
            if row.body is not None:
                self._remember(record)
        return record

    async def single(self, response_id: str) -> Record | None:
        """The stored response for what it holds itself: its parent may be left out."""
        known = self.recall(response_id)
        if known is not None or self._store is None:
            return known
        row = await self._store.get(response_id)
        return _revive(row, None) if row is not None and row.body is not None else None

    async def find(self, key: str) -> Record | None:
        """As ``single``, by ``key_of`` its id."""
        known = self._by_key.get(key)
        if known is not None or self._store is None:
            return known
        row = await self._store.find(f"resp_{key}")
        return _revive(row, None) if row is not None else None

    async def commit(
        self,
        record: Record,
        body: bytes | None,
        events: Sequence[bytes] | None = None,
        *,
        ends: str | None = None,
    ) -> None:
        """The response outlives this process once this returns. Raises ``StoreError``.

        Unstored ancestors are written too, as rows that only serve as context; so is the record
        itself when ``body`` is None. ``events`` are the JSON texts of its stream, for ``events()``.
        ``ends`` names the conversation whose last node it becomes with the same commit.
        """
        if self._store is None:
            record.body = body
            record.num_bytes = len(body or b"") + len(encode_items(record.node.items))
        else:
            links = _links_without_row(record)
            rows = [_row(link, body if link is record else None) for link in links]
            await self._store.save(
                rows,
                events={record.node.id: events} if events else None,
                head=Head(ends, record.node.id) if ends is not None else None,
            )
            for link in links:
                link.has_row = True
                self._written[link.node.id] = link
            record.num_bytes = _size(rows[0]) if rows else record.num_bytes
        if body is not None:
            self._remember(record)

    async def body(self, response_id: str) -> bytes | None:
        """The final Response object (JSON) of a stored response, or None."""
        if self._store is None:
            record = self._recent.get(response_id)
            return record.body if record else None
        row = await self._store.get(response_id)
        return row.body if row else None

    async def events(self, response_id: str) -> list[bytes] | None:
        """The events given to ``commit``, in order; None when they are not on disk (any more)."""
        return None if self._store is None else await self._store.events(response_id)

    async def delete(self, response_id: str) -> bool:
        """Whether there was such a response; it can no longer be fetched or continued."""
        record = self._alive.pop(response_id, None)
        self._by_key.pop(key_of(response_id), None)
        self._drop_recent(response_id)
        if self._store is None:
            return record is not None
        disown(record)  # of the ancestors those go with it that were only kept as its context
        is_gone = await self._store.delete(response_id)
        # Again: it may have been read from disk by somebody who was just before the deletion.
        disown(self._alive.pop(response_id, None))
        self._by_key.pop(key_of(response_id), None)
        self._drop_recent(response_id)
        return is_gone

    async def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            await self._store.close()

    def _remember(self, record: Record) -> None:
        self._drop_recent(record.node.id)
        self._alive[record.node.id] = record
        self._by_key[key_of(record.node.id)] = record
        self._recent[record.node.id] = record
        self._recent_bytes += record.num_bytes
        while len(self._recent) > self._num_recent or (
            len(self._recent) > 1 and self._recent_bytes > self._max_recent_bytes
        ):
            self._drop_recent(next(iter(self._recent)))

    def _drop_recent(self, response_id: str) -> None:
        record = self._recent.pop(response_id, None)
        if record is not None:
            self._recent_bytes -= record.num_bytes


def disown(record: Record | None, until: Record | None = None) -> None:
    """Before rows go: a later child must bring its context along again.

    Also one that is committed while they go, so call it first. ``until`` and what is above it stay.
    """
    while record is not None and record is not until:
        record.has_row = False
        record = record.parent


def context_tools(parent: Record | None, items: Sequence[Item]) -> tuple[Tool, ...]:
    """The tools that the context holds as items. Raises ``ApiError`` when one cannot be read."""
    return (parent.tools if parent else ()) + tools_among(items)


def tools_among(items: Sequence[Item], first: int = 0) -> tuple[Tool, ...]:
    """The tools in the items from number ``first`` on. Raises ``ApiError`` naming a bad one."""
    tools: tuple[Tool, ...] = ()
    for index in range(first, len(items)):
        item = items[index]
        if type(item) is OpaqueItem:
            tools += additional_tools(item, f"input[{index}]")
    return tools


def check_call_ids(items: Sequence[Item], parent: Node | None, first: int = 0) -> None:
    """Every tool output belongs to a call before it. Raises ``ApiError`` naming the item.

    Those before number ``first`` are the context of ``parent``. Looks at the new items and then up the tree, so that the usual answer to the last response
    costs nothing that grows with the history, nor with what the last response was given.
    """
    called: set[str] = set()
    unanswered: dict[str, int] = {}  # call_id of an output, to the first item that has it
    for index in range(first, len(items)):
        item = items[index]
        if isinstance(item, _CALLS):
            called.add(item.call_id)
        elif isinstance(item, _OUTPUTS) and item.call_id not in called:
            unanswered.setdefault(item.call_id, index)
    node = parent
    while node is not None and unanswered:  # once, however many outputs there are
        for item in reversed(node.items):  # an output usually answers one of the last calls
            if isinstance(item, _CALLS):
                unanswered.pop(item.call_id, None)
                if not unanswered:
                    return
        node = node.parent
    for call_id, index in unanswered.items():
        raise ApiError(
            f"no tool call with call_id {call_id[:200]!r} precedes input[{index}]",
            code="invalid_request",
            param=f"input[{index}].call_id",
        )


def not_found(response_id: str) -> ApiError:
    """The refusal for a parent that this server does not have."""
    return ApiError(
        f"Previous response with id {response_id[:200]!r} not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def no_response(response_id: str) -> ApiError:
    """The refusal for a response that is asked for by an id nobody has."""
    return ApiError(
        f"no stored response with id {response_id[:200]!r}",
        status=404,
        code="response_not_found",
        param="id",
    )


_usage = msgspec.json.Decoder(Usage)


def _links_without_row(record: Record) -> list[Record]:
    links: list[Record] = []
    link: Record | None = record
    while link is not None and not link.has_row:
        links.append(link)
        link = link.parent
    return links


def _row(record: Record, body: bytes | None) -> Row:
    node = record.node
    given, made = node.items[: record.num_input], node.items[record.num_input :]
    return Row(
        id=node.id,
        parent_id=node.parent.id if node.parent else None,
        input=encode_items(given),
        output=encode_items(made),
        usage=msgspec.json.encode(node.usage),
        body=body,
    )


def _revive(row: Row, parent: Record | None) -> Record:
    given = decode_input(row.input)
    node = Node(
        id=row.id,
        parent=parent.node if parent else None,
        items=given + decode_input(row.output),
        usage=_usage.decode(row.usage),
    )
    tools = context_tools(parent, given)
    return Record(node, parent, len(given), tools, has_row=True, num_bytes=_size(row))


def _size(row: Row) -> int:
    return len(row.input) + len(row.output) + len(row.body or b"")
