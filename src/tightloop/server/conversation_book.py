"""Conversations by name: each is a moving end in the tree of responses.

The items of a conversation are those of the chain that ends at its ``head``. A response made in it
becomes the new head, so the next one has it as its parent: a turn costs what it adds, and finds the
warm prefix, exactly as with ``previous_response_id``. Items that are added by themselves are a node
of their own; taking an item out puts a new node in the place of everything from there on.

Whoever changes a conversation holds it first; a second one is refused (409, ``conversation_locked``)
rather than made to wait: official SDKs try a 409 again by themselves.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

import msgspec

from tightloop.engine.interface import Node
from tightloop.protocol.compaction import check_compactions
from tightloop.protocol.errors import ApiError, shorten
from tightloop.protocol.items import Item
from tightloop.server.conversations import (
    Conversations,
    Record,
    check_call_ids,
    context_tools,
    disown,
)
from tightloop.server.item_lists import ListedItem, listed, no_item, walk, with_id
from tightloop.server.store import ConversationRow, Head, Store
from tightloop.trace import clock

NUM_RECENT: Final = 1024
MAX_RECENT_BYTES: Final = 256 << 20
"""Of their items' JSON. With a disk it limits a cache; without one, older conversations are gone."""

RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True, eq=False)
class Conversation:
    """What is known of a conversation. ``num_bytes`` is the JSON size of its chain."""

    id: str
    created_at: int
    metadata: dict[str, str] = field(default_factory=dict)
    head: Record | None = None
    num_bytes: int = 0
    is_held: bool = False

    @property
    def entries(self) -> list[ListedItem]:
        """All its items, oldest first."""
        return list(self.walk(is_ascending=True))

    def walk(self, *, is_ascending: bool = False) -> Iterator[ListedItem]:
        """Its items, newest or oldest first, one at a time."""
        return walk(self.head.node if self.head else None, is_ascending=is_ascending)

    def wire(self) -> bytes:
        """JSON of the conversation object."""
        fields = {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at,
            "metadata": self.metadata,
        }
        return msgspec.json.encode(fields)


class ConversationBook:
    """All conversations; without a ``store`` the recent ones, as far as the two limits go."""

    def __init__(
        self,
        conversations: Conversations,
        store: Store | None = None,
        *,
        num_recent: int = NUM_RECENT,
        max_recent_bytes: int = MAX_RECENT_BYTES,
    ) -> None:
        self.responses = conversations
        self._store = store
        self._num_recent = num_recent
        self._max_recent_bytes = max_recent_bytes
        self._num_bytes = 0
        self._recent: OrderedDict[str, Conversation] = OrderedDict()
        # Between a row that was read and its place in memory it must not be deleted or read again.
        self._reading = asyncio.Lock()

    def recent(self) -> list[Conversation]:
        """Those in memory, the latest used last."""
        return list(self._recent.values())

    async def create(self, items: tuple[Item, ...], metadata: dict[str, str]) -> Conversation:
        """A new conversation, on disk. Raises ``ApiError`` for items that do not fit together."""
        record = _batch(items, None) if items else None
        made = Conversation(f"conv_{token_hex(16)}", clock.unix_s(), metadata)
        if self._store is not None:
            row = ConversationRow(made.id, made.created_at, msgspec.json.encode(metadata), None)
            await self._store.add_conversation(row)
        made.is_held = True
        self._recent[made.id] = made
        with Hold(self, made) as hold:
            if record is not None:
                await hold.append(record)
        return made

    async def get(self, conversation_id: str) -> Conversation:
        """The conversation. Raises ``ApiError`` 404, ``conversation_not_found``."""
        async with self._reading:
            return await self._get(conversation_id)

    async def set_metadata(self, conversation_id: str, metadata: dict[str, str]) -> Conversation:
        """Replace the metadata. Raises as ``get``."""
        async with self._reading:
            found = await self._get(conversation_id)
            before, found.metadata = found.metadata, metadata
            if self._store is not None:
                try:
                    await self._store.set_metadata(conversation_id, msgspec.json.encode(metadata))
                except Exception:
                    found.metadata = before
                    raise
            return found

    async def delete(self, conversation_id: str) -> None:
        """The conversation is gone; its responses stay. Raises as ``hold``."""
        async with self._reading:
            found = await self._get(conversation_id)
            if found.is_held:
                raise _locked(conversation_id)
            disown(found.head)
            self._forget(conversation_id)
            if self._store is not None:
                await self._store.delete_conversation(conversation_id)

    async def hold(self, conversation_id: str) -> "Hold":
        """The right to change the conversation, until released.

        Raises ``ApiError`` 404 as ``get``, or 409, ``conversation_locked``.
        """
        found = await self.get(conversation_id)
        if found.is_held:
            raise _locked(conversation_id)
        found.is_held = True
        return Hold(self, found)

    async def commit(
        self,
        conversation: Conversation,
        record: Record,
        body: bytes | None,
        events: Sequence[bytes] | None,
    ) -> None:
        """``record`` is the conversation's new head, on disk. Only for its holder."""
        before = conversation.head
        is_child = record.parent is before
        if not is_child:
            disown(before)  # what the conversation leaves behind may go with this commit
        # First, so that a caller who is cancelled leaves what the disk is going to say.
        conversation.head = record
        try:
            await self.responses.commit(record, body, events, ends=conversation.id)
        except Exception:
            conversation.head = before
            raise
        known = conversation.num_bytes if is_child else _num_bytes(record.parent)
        self._count(conversation, known + record.num_bytes)

    async def rewind(self, conversation: Conversation, base: Record | None) -> None:
        """An earlier node, or none, is the conversation's head again. Only for its holder."""
        before, conversation.head = conversation.head, base
        disown(before, base)
        if self._store is not None:
            head = Head(conversation.id, base.node.id if base is not None else None)
            try:
                await self._store.save([], head=head)
            except Exception:
                conversation.head = before
                raise
        self._count(conversation, _num_bytes(base))

    def _count(self, conversation: Conversation, num_bytes: int) -> None:
        if conversation.id in self._recent:
            self._num_bytes += num_bytes - conversation.num_bytes
        conversation.num_bytes = num_bytes

    def trim(self) -> None:
        """Forget the conversations that were not used for longest, as the limits say."""
        if self._fits():
            return
        idle = [found for found in self._recent.values() if not found.is_held]
        for found in idle[:-1]:  # the latest one stays however large it is
            self._forget(found.id)
            if self._fits():
                return

    def _fits(self) -> bool:
        num, size = len(self._recent), self._num_bytes
        return num <= self._num_recent and size <= self._max_recent_bytes

    async def _get(self, conversation_id: str) -> Conversation:
        found = self._recent.get(conversation_id)
        if found is not None:
            self._recent.move_to_end(conversation_id)
            return found
        row = await self._store.conversation(conversation_id) if self._store is not None else None
        if row is None:
            raise ApiError(
                f"no conversation with id {shorten(conversation_id, 200)!r}",
                status=404,
                code="conversation_not_found",
                param="conversation",
            )
        head = None
        if row.head_id is not None:
            head = await self.responses.load_context(row.head_id)
        metadata = msgspec.json.decode(row.metadata, type=dict[str, str])
        found = Conversation(row.id, row.created_at, metadata, head, _num_bytes(head))
        self._recent[found.id] = found
        self._num_bytes += found.num_bytes
        self.trim()
        return found

    def _forget(self, conversation_id: str) -> None:
        found = self._recent.pop(conversation_id, None)
        if found is not None:
            self._num_bytes -= found.num_bytes


class Hold:
    """The right to change one conversation. Release it, or use it with ``with``."""

    def __init__(self, book: ConversationBook, conversation: Conversation) -> None:
        self.conversation = conversation
        self._book = book
        self._is_released = False

    @property
    def head(self) -> Record | None:
        """The parent for what comes next; None while the conversation is empty."""
        return self.conversation.head

    async def append(
        self, record: Record, body: bytes | None = None, events: Sequence[bytes] | None = None
    ) -> None:
        """The node, a child of ``head``, is the new head, on disk. Raises ``StoreError``.

        ``body`` and ``events`` as in ``Conversations.commit``; without a body the response cannot
        be fetched, but its items are part of the conversation.
        """
        await self._book.commit(self.conversation, record, body, events)

    async def add(self, items: tuple[Item, ...]) -> list[ListedItem]:
        """The items stand at the end of the conversation. Raises ``ApiError`` as ``create``."""
        record = _batch(items, self.head)
        await self.append(record)
        return listed(record.node)

    async def remove(self, item_id: str) -> None:
        """The item is no longer part of the conversation. Raises ``ApiError`` 404.

        What came before its node stays as it is; the rest keeps its ids.
        """
        later: list[ListedItem] = []
        link = self.head
        while link is not None:
            own = listed(link.node)
            kept = [entry for entry in own if entry.id != item_id]
            later = kept + later
            if len(kept) < len(own):
                break
            link = link.parent
        if link is None:
            raise no_item(item_id, status=404, param="item_id")
        if later:
            await self.append(_node(tuple(with_id(entry) for entry in later), link.parent))
        else:
            await self._book.rewind(self.conversation, link.parent)

    def release(self) -> None:
        """Others may change the conversation. May be called twice."""
        if not self._is_released:
            self._is_released = True
            self.conversation.is_held = False
            self._book.trim()

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _batch(items: tuple[Item, ...], parent: Record | None) -> Record:
    """A node of items that no response made. Raises ``ApiError`` when they do not fit there."""
    check_call_ids(items, parent.node if parent else None)
    check_compactions(items)
    return _node(items, parent)


def _node(items: tuple[Item, ...], parent: Record | None) -> Record:
    node = Node(f"items_{token_hex(16)}", parent.node if parent else None, items)
    return Record(node, parent, len(items), context_tools(parent, items))


def _num_bytes(record: Record | None) -> int:
    num_bytes = 0
    while record is not None:
        num_bytes += record.num_bytes
        record = record.parent
    return num_bytes


def _locked(conversation_id: str) -> ApiError:
    return ApiError(
        f"something else is changing conversation {conversation_id!r}; try again in a moment",
        status=409,
        code="conversation_locked",
        param="conversation",
        retry_after_s=RETRY_AFTER_S,
    )
