"""Conversations that clients send whole with every request, and where their last turn ended.

A request without a parent is looked up here: if its input begins with what another request held and what
was answered to it, the engine is told so (``GenerationRequest.parent``) and reads the rest only. Nothing
else changes for the client: its response has no ``previous_response_id``, its record holds the whole
input, and a response that was found here may be deleted meanwhile.

Only what one client itself has sent in full is ever found (``scope``, its key), and every item is
compared, so nothing can leak. What a stranger could learn from the time a request takes, that somebody
has sent its beginning before, is as far as the scope: not shared between keys. The room is shared: who
sends much may push out the turns of others, which costs them time.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Final, NamedTuple

from tightloop.engine.interface import Node
from tightloop.protocol.item_chain import answers, are_same, chain, link, without_reasoning
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
)
from tightloop.protocol.tools import Tool

MAX_KNOWN: Final = 4096
"""Ends of turns remembered; a few of them for each conversation under way."""

MAX_KNOWN_BYTES: Final = 128 << 20
"""Of all that their items hold. Measured: real memory is the same with items of 8 kB, 1.6 times with 60 bytes."""

MAX_TRIES: Final = 16
"""Ends with the right hash that are compared. A client that forgets early reasoning of a conversation of a
thousand turns has the hash of all of them right, and is like none."""

ITEM_BYTES: Final = 256
"""An item without its text."""


class Path(NamedTuple):
    """How far a list of items has come: its hash (``item_chain``) and its length.

    ``num_bytes`` is what its items hold, about.
    """

    chain: int
    num_items: int = 0
    num_bytes: int = 0

    def then(self, items: Sequence[Item]) -> "Path":
        """The path after more items."""
        chain, num_bytes = self.chain, self.num_bytes
        for item in items:
            chain = link(chain, item)
            num_bytes += _num_bytes(item)
        return Path(chain, self.num_items + len(items), num_bytes)


@dataclass(slots=True, eq=False)
class Known:
    """The end of a turn. ``node`` is what an engine knows it as; ``tools`` came as items.

    ``num_given`` of the node's items came with the request. ``resent`` is the answer as the client will
    send it again, without reasoning. ``end`` is the path to its end, so spelt. ``num_tokens`` is what its
    prompt had at most when it was counted, with the ``setup`` that stood around it (``fitting.setup_of``).
    ``num_answer_bytes`` are in the answer as it was made.
    """

    node: Node
    num_given: int
    num_before: int
    resent: tuple[Item, ...]
    end: Path
    scope: str
    tools: tuple[Tool, ...]
    setup: bytes | None = None
    num_tokens: int | None = None
    num_answer_bytes: int = 0
    cost: int = 0
    above: "Known | None" = None


@dataclass(frozen=True, slots=True)
class Match:
    """``node`` and the first ``num_items`` of the request's input are the same to an engine."""

    node: Node
    num_items: int
    known: Known


class KnownHistories:
    """The ends of the latest turns, those used longest ago the first to go."""

    def __init__(self, *, max_known: int = MAX_KNOWN, max_bytes: int = MAX_KNOWN_BYTES) -> None:
        self._max_known = max_known
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._ends: OrderedDict[int, Known] = OrderedDict()
        self._by_id: dict[str, Known] = {}
        self._by_item: dict[
            int, Known
        ] = {}  # by id() of the last item given, which they keep alive

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def num_bytes(self) -> int:
        """About what is kept alive here; where conversations fork, what they share counts twice."""
        return self._num_bytes

    def match(self, items: Sequence[Item], scope: str) -> tuple[Match | None, Path]:
        """The longest known beginning of ``items`` that leaves something to read, and their path."""
        match = self._same_objects(items, scope)
        if match is not None:
            self._ends.move_to_end(match.known.end.chain)
            return match, _longer(match, items)
        chain, num_bytes = start(scope).chain, 0
        hashes: list[int | None] = []
        for item in items:
            before, chain = chain, link(chain, item)
            hashes.append(None if chain == before else chain)
            num_bytes += _num_bytes(item)
        path = Path(chain, len(items), num_bytes)
        if not self._ends:
            return None, path
        ends, num_tries = self._ends, 0
        for size in range(len(items) - 1, 0, -1):
            found = hashes[size - 1]
            if found is None or found not in ends:
                continue
            match = _matched(ends[found], items, size, scope)
            if match is not None:
                ends.move_to_end(found)
                return match, path
            num_tries += 1
            if num_tries == MAX_TRIES:
                break
        return None, path

    def _same_objects(self, items: Sequence[Item], scope: str) -> Match | None:
        """The match where a decoder has given the very items of the request before."""
        for place in range(len(items) - 1, -1, -1):
            known = self._by_item.get(id(items[place]))
            if known is not None and place + 1 == known.num_before + known.num_given:
                size = place + 1 + _num_answer(items[place + 1 :], len(known.resent))
                return _matched(known, items, size, scope) if size < len(items) else None
        return None

    def add(self, known: Known) -> None:
        """Remember the end of a turn, in the place of one that looked the same."""
        key = known.end.chain
        if key in self._ends:
            self._drop(key)
        self._ends[key] = known
        self._by_id[known.node.id] = known
        if known.num_given:
            self._by_item[id(known.node.items[known.num_given - 1])] = known
        self._charge(known, known.end.num_bytes)
        above = known.above
        if above is not None and self._ends.get(above.end.chain) is above:
            # What it holds, this one holds too, but for an answer that came back in other words.
            is_shared = known.node.parent is above.node
            self._charge(above, 0 if is_shared else above.num_answer_bytes)
        while len(self._ends) > self._max_known or (
            len(self._ends) > 1 and self._num_bytes > self._max_bytes
        ):
            self._drop(next(iter(self._ends)))

    def forget(self, response_id: str) -> None:
        """This response is found no more."""
        known = self._by_id.get(response_id)
        if known is not None:
            self._drop(known.end.chain)

    def _drop(self, key: int) -> None:
        known = self._ends.pop(key)
        del self._by_id[known.node.id]
        last = id(known.node.items[known.num_given - 1]) if known.num_given else 0
        if self._by_item.get(last) is known:
            del self._by_item[last]
        self._charge(known, 0)
        above, known.above = known.above, None
        if above is not None and self._ends.get(above.end.chain) is above:
            self._charge(above, above.end.num_bytes)

    def _charge(self, known: Known, cost: int) -> None:
        self._num_bytes += cost - known.cost
        known.cost = cost


def start(scope: str) -> Path:
    """The path of an empty list of this client."""
    return Path(hash(("", scope)))


def known_end(
    node: Node,
    num_given: int,
    before: Path,
    resent: Sequence[Item],
    *,
    scope: str,
    tools: tuple[Tool, ...],
    setup: bytes | None = None,
    num_tokens: int | None = None,
    above: Known | None = None,
) -> Known:
    """The end of a turn whose whole input has the path ``before``.

    ``resent`` is its answer as the client will send it again.
    """
    said = without_reasoning(resent)
    num_above = before.num_items - num_given
    num_made = sum(map(_num_bytes, node.items[num_given:]))
    end = Path(chain(before.chain, said), num_above + len(node.items), before.num_bytes + num_made)
    return Known(
        node,
        num_given,
        num_above,
        said,
        end,
        scope,
        tools,
        setup,
        num_tokens,
        num_made,
        above=above,
    )


def _longer(match: Match, items: Sequence[Item]) -> Path:
    """The path of ``items``, which go on from the match."""
    known = match.known
    num_asked = known.end.num_bytes - known.num_answer_bytes
    said = items[known.num_before + known.num_given :]  # an answer counts as it is held from now on
    new = items[match.num_items :]
    return Path(chain(known.end.chain, new), len(items), num_asked + sum(map(_num_bytes, said)))


def _matched(known: Known, items: Sequence[Item], size: int, scope: str) -> Match | None:
    """The match if the first ``size`` items really are what ``known`` holds."""
    num_input = known.num_before + known.num_given
    if known.scope != scope or not num_input <= size:
        return None
    node = known.node
    given, answer = node.items[: known.num_given], tuple(items[num_input:size])
    above = node.parent.context() if node.parent is not None else []
    if not answers(answer, known.resent) or not are_same([*above, *given], list(items[:num_input])):
        return None
    if answer != node.items[known.num_given :]:
        # What the model is to read is what the client says now: without reasoning, spelt anew. Where
        # it only lacks ids, the next comparison with it is one of equal items.
        node = Node(node.id, node.parent, given + answer, node.usage)
    return Match(node, size, known)


def _num_answer(items: Sequence[Item], num_said: int) -> int:
    """How many of the items are ``num_said`` and the reasoning in front of each of them."""
    size = 0
    for number, item in enumerate(items, 1):
        if num_said == 0:
            break
        if type(item) is not Reasoning:
            num_said -= 1
            size = number
    return size


def _num_bytes(item: Item) -> int:
    """About what it keeps in memory."""
    kind = type(item)
    if kind is FunctionCallOutput or kind is CustomToolCallOutput:
        return ITEM_BYTES + _size(item.output) + _parts_size(item.parts)  # type: ignore[union-attr]
    if kind is FunctionCall:
        return ITEM_BYTES + _size(item.arguments)  # type: ignore[union-attr]
    if kind is CustomToolCall:
        return ITEM_BYTES + _size(item.input)  # type: ignore[union-attr]
    if isinstance(item, Message):
        return ITEM_BYTES + _parts_size(item.content)
    if isinstance(item, Reasoning):
        texts = (*item.summary, *item.content, item.encrypted_content or "")
        return ITEM_BYTES + sum(map(_size, texts))
    if isinstance(item, Compaction):
        return ITEM_BYTES + _size(item.encrypted_content)
    return ITEM_BYTES + (len(item.raw) if isinstance(item, OpaqueItem) else 0)


def _parts_size(parts: Sequence[Part]) -> int:
    """Each part after the first counts as an item: a list of empty ones is not for nothing."""
    sizes = [len(part.raw) if isinstance(part, OpaquePart) else _size(part.text) for part in parts]
    return sum(sizes) + ITEM_BYTES * max(0, len(sizes) - 1)


def _size(text: str) -> int:
    """Bytes of a text; one character in another script may take four, and so do all beside it."""
    return len(text) if text.isascii() else getsizeof(text)
