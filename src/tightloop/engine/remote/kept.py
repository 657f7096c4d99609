"""What was worded of a conversation, kept so that a turn words its new items only.

A transcript belongs to a node of the conversation tree. Nodes are never held on to: they are known by
their ids, which no two share, and hold more than what is needed here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, Self, TypeVar

from tightloop.engine.interface import GenerationRequest, Node
from tightloop.protocol.items import Item

MAX_BYTES: Final = 128 << 20
"""Of all conversations together: 200,000 tokens of history are about 0.8 MB."""


class Wording(Protocol):
    """What can be kept: immutable, made of its parent and new items."""

    @property
    def num_bytes(self) -> int:
        """Memory of this step alone."""

    def extended(self, items: Sequence[Item]) -> Self | None:
        """The wording with ``items`` after it, None when earlier words would change."""


W = TypeVar("W", bound=Wording)


@dataclass(slots=True)
class _Tree:
    """One conversation with its forks; given up as a whole, since steps share their ancestors."""

    node_ids: list[str] = field(default_factory=list)
    num_bytes: int = 0


@dataclass(slots=True)
class _Entry(Generic[W]):
    """``words`` of the node's first ``num_items`` items, of which ``last`` is the last one."""

    words: W
    tree: _Tree
    parent_id: str | None
    num_items: int
    last: Item | None


class Transcripts(Generic[W]):
    """Transcripts by node, the conversations used least recently given up first."""

    def __init__(self, empty: W, max_bytes: int = MAX_BYTES) -> None:
        self._empty = empty
        self._max_bytes = max_bytes
        self._entries: dict[str, _Entry[W]] = {}
        self._trees: OrderedDict[int, _Tree] = OrderedDict()
        self.num_bytes = 0
        """Memory of what is kept."""

    def of(self, request: GenerationRequest) -> W:
        """The words of the whole context of ``request``; only what is new is worded.

        Raises what ``Wording.extended`` raises; then nothing more is kept than before.
        """
        base = self._node(request.parent) if request.parent else None
        words = self._extended(base, request.items)
        if words is None:
            words = self._whole(request.parent, request.items)
        self._keep(request.response_id, request.parent, request.items, words, base)
        return words

    def _extended(self, base: _Entry[W] | None, items: Sequence[Item]) -> W | None:
        words = base.words if base else self._empty
        return words.extended(items) if items or base is None else words

    def _whole(self, parent: Node | None, items: Sequence[Item]) -> W:
        words = self._empty.extended([*(parent.context() if parent else ()), *items])
        assert words is not None, "there is nothing earlier to change"
        return words

    def _node(self, node: Node) -> _Entry[W]:
        """The entry of a node, with those of its ancestors that were missing."""
        missing: list[Node] = []
        above: Node | None = node
        entry: _Entry[W] | None = None
        while above is not None:
            entry = self._complete(above)
            if entry is not None:
                break
            missing.append(above)
            above = above.parent
        for child in reversed(missing):
            words = self._extended(entry, child.items)
            if words is None:
                words = self._whole(child.parent, child.items)
            entry = self._keep(child.id, child.parent, child.items, words, entry)
        assert entry is not None
        if id(entry.tree) in self._trees:
            self._trees.move_to_end(id(entry.tree))
        return entry

    def _complete(self, node: Node) -> _Entry[W] | None:
        """The entry of exactly this node, finished if it was begun with its request; else None."""
        entry = self._entries.get(node.id)
        parent_id = node.parent.id if node.parent else None
        num_items = entry.num_items if entry else 0
        if entry is None or entry.parent_id != parent_id or num_items > len(node.items):
            return None
        if num_items and node.items[num_items - 1] is not entry.last:
            return None
        if num_items == len(node.items):
            return entry
        words = self._extended(entry, node.items[num_items:])
        if words is None:
            return None
        return self._keep(node.id, node.parent, node.items, words, entry)

    def _keep(
        self,
        node_id: str,
        parent: Node | None,
        items: Sequence[Item],
        words: W,
        base: _Entry[W] | None,
    ) -> _Entry[W]:
        tree = base.tree if base else _Tree()
        last = items[-1] if items else None
        entry = _Entry(words, tree, parent.id if parent else None, len(items), last)
        if base is None:
            self._trees[id(tree)] = tree
        elif id(tree) not in self._trees:
            return entry  # given up while it was worked on: what is below it is not kept either
        if node_id not in self._entries or self._entries[node_id].tree is not tree:
            tree.node_ids.append(node_id)
        self._entries[node_id] = entry
        tree.num_bytes += words.num_bytes
        self.num_bytes += words.num_bytes
        while self.num_bytes > self._max_bytes:
            self._give_up(*self._trees.popitem(last=False))
        return entry

    def _give_up(self, _key: int, tree: _Tree) -> None:
        self.num_bytes -= tree.num_bytes
        for node_id in tree.node_ids:
            entry = self._entries.get(node_id)  # None: it went over to a tree that was given up
            if entry is not None and entry.tree is tree:
                del self._entries[node_id]
