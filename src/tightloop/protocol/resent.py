"""Request bodies that begin as an earlier one did: what both hold is compared, not decoded again.

A client that keeps the conversation itself sends a body whose list of items or messages begins with the
bytes of the one before, and adds a few. ``Resent`` keeps the latest bodies with what they were decoded to.
A new body that begins alike is shortened: its known elements make way for one mark, and the rest goes
through the same decoder with the same checks. Comparing bytes is twenty times as fast as decoding them.

Why this cannot be fooled: up to the end of an element the new body is, byte for byte, one that was decoded
before, so a parser is in the same state there and has seen the same. Where the list is found by looking
for its name could be wrong (the name may stand elsewhere, too); then the mark, which nobody outside can
know, is not the first element of the decoded list, and the body is decoded whole. So it is whenever the
short one is refused: errors name the element at its own number.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

import msgspec
from msgspec import Raw

from tightloop.protocol.items import Item

MIN_BYTES: Final = 8 << 10
"""Shorter bodies are decoded faster than looked up."""

MAX_BODIES: Final = 64
MAX_BYTES: Final = 32 << 20
"""Of the bodies kept; what they were decoded to takes about as much again."""

GLANCE_BYTES: Final = 1024
"""Compared before a body is taken apart: most that begin differently do so here."""

BLOCK_BYTES: Final = 64 << 10
NUM_LOOSE: Final = 8
"""The latest elements are compared one by one: a client may write these anew. Older ones in blocks."""

_BLANK: Final = b" \t\r\n"
_OPENING: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[")
_BETWEEN: Final = re.compile(rb"[ \t\r\n,]*")


@dataclass(frozen=True, slots=True)
class Shortened:
    """A body without the elements that were decoded before.

    ``text`` has the mark in their place. ``items`` are what they were decoded to, and ``ends`` how many
    items there were after each of them.
    """

    text: bytes
    items: tuple[Item, ...]
    ends: tuple[int, ...]
    source: "_Kept"
    num_blocks: int

    @property
    def num_elements(self) -> int:
        """How many elements of the list are missing in ``text``."""
        return len(self.ends)


@dataclass(slots=True, eq=False)
class _Kept:
    """A body that was decoded: ``blocks`` are its bytes so far, each with the elements up to its end.

    ``text`` is the part that was not taken apart yet; None when nothing is left of it.
    """

    scope: str
    items: tuple[Item, ...]
    ends: tuple[int, ...]
    text: bytes | None
    head: bytes = b""
    blocks: tuple[tuple[bytes, int], ...] = ()
    num_bytes: int = 0


class Resent:
    """The latest bodies of one server. ``field`` names the list in them, such as ``messages``.

    Bodies are only compared within a ``scope``, so that the time an answer takes tells a client nothing
    about others.
    """

    def __init__(
        self, field: str, *, max_bodies: int = MAX_BODIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._name = f'"{field}"'.encode()
        self._max_bodies = max_bodies
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        element = msgspec.defstruct(
            "_Elements", [("elements", list[Raw])], rename={"elements": field}
        )
        self._elements: msgspec.json.Decoder[Any] = msgspec.json.Decoder(element)
        self.role = token_hex(16)
        self.mark = b'{"role":"%b"}' % self.role.encode()

    @property
    def num_bytes(self) -> int:
        """Bytes of the bodies kept."""
        return self._num_bytes

    def shorten(self, body: bytes, scope: str = "") -> Shortened | None:
        """``body`` without what is known of it; None where that would not be worth it."""
        if len(body) < MIN_BYTES:
            return None
        best: _Kept | None = None
        num_blocks, end = 0, 0
        for kept in reversed(self._kept.values()):
            if kept.scope != scope or not self._is_ready(kept, body):
                continue
            number, place = _shared(kept, body)
            if place > end and number:
                best, num_blocks, end = kept, number, place
                if number == len(kept.blocks):
                    break
        if best is None or end - len(best.head) < MIN_BYTES // 2:
            return None
        self._kept.move_to_end(id(best))
        ends = best.ends[: best.blocks[num_blocks - 1][1]]
        text = b"".join((best.head, self.mark, body[end:]))
        return Shortened(text, best.items[: ends[-1]], ends, best, num_blocks)

    def rest(self, raw: bytes | Raw) -> bytes | None:
        """The JSON of a list without the mark that it begins with; None if it does not."""
        data = bytes(raw)
        if not data.startswith(self.mark, 1):
            return None
        after = data[1 + len(self.mark) :].lstrip(_BLANK)
        return b"[" + (after[1:] if after.startswith(b",") else after)

    def keep(
        self,
        body: bytes,
        items: Sequence[Item],
        ends: Sequence[int],
        scope: str = "",
        short: Shortened | None = None,
    ) -> None:
        """Remember what ``body`` was decoded to.

        ``ends`` are the numbers of items after each element; ``short`` is what it was decoded from.
        """
        if len(body) < MIN_BYTES:
            return
        kept = _Kept(scope, tuple(items), tuple(ends), body, num_bytes=len(body))
        if short is not None:
            before = short.source
            kept.head, kept.blocks = before.head, before.blocks[: short.num_blocks]
            kept.text = short.text
            num_missing = len(before.blocks) - short.num_blocks
            if num_missing <= min(2, short.num_blocks // 2):  # it goes on, and is no fork
                self._drop(id(before))
        self._kept[id(kept)] = kept
        self._num_bytes += kept.num_bytes
        while len(self._kept) > self._max_bodies or self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: int) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_bytes -= kept.num_bytes

    def _is_ready(self, kept: _Kept, body: bytes) -> bool:
        """Whether the kept body can be compared with this one, which it is taken apart for."""
        text = kept.text
        if text is None:
            return bool(kept.blocks)
        start = len(kept.head) if kept.head else self._start(text)
        if start < 0 or not body.startswith(_begin(kept, text, start)):
            return False
        kept.text = None
        kept.head = kept.head or text[:start]
        self._take_apart(kept, text, start)
        return bool(kept.blocks)

    def _start(self, text: bytes) -> int:
        """Where the elements of the list begin, by the looks of it; -1 if there is no list."""
        place = text.find(self._name)
        found = _OPENING.match(text, place + len(self._name)) if place >= 0 else None
        return -1 if found is None else found.end()

    def _take_apart(self, kept: _Kept, text: bytes, start: int) -> None:
        """Add a block for each element of ``text``, as far as they are found where they must be."""
        try:
            raws = self._elements.decode(text).elements
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            kept.blocks = ()
            return
        number = kept.blocks[-1][1] if kept.blocks else 0
        if number:
            start += len(self.mark)
            raws = raws[1:]
        blocks = list(kept.blocks)
        for raw in raws[: len(kept.ends) - number]:
            element = bytes(raw)
            between = _BETWEEN.match(text, start)
            place = start if between is None else between.end()
            end = place + len(element)
            if not element.endswith(b"}") or not text.startswith(element, place):
                break
            number += 1
            blocks.append((text[start:end], number))
            start = end
        kept.blocks = tuple(_merged(blocks))
        size = len(kept.head) + sum(len(data) for data, _ in blocks)
        kept.num_bytes, before = size, kept.num_bytes
        self._num_bytes += kept.num_bytes - before


def _begin(kept: _Kept, text: bytes, start: int) -> bytes:
    """The first bytes of the kept body."""
    if not kept.blocks:
        return text[: start + GLANCE_BYTES]
    return (kept.head + kept.blocks[0][0])[: start + GLANCE_BYTES]


def _shared(kept: _Kept, body: bytes) -> tuple[int, int]:
    """How many of the kept blocks ``body`` begins with, and where they end."""
    if not body.startswith(kept.head):
        return 0, 0
    number, place = 0, len(kept.head)
    for data, _ in kept.blocks:
        if not body.startswith(data, place):
            break
        place += len(data)
        number += 1
    return number, place


def _merged(blocks: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """The same bytes in fewer blocks, but for the latest ones."""
    size = len(blocks) - NUM_LOOSE
    if size < NUM_LOOSE:
        return blocks
    merged: list[tuple[bytes, int]] = []
    pieces: list[bytes] = []  # joined once: there may be a million
    num_bytes = 0
    for data, number in blocks[:size]:
        pieces.append(data)
        num_bytes += len(data)
        if num_bytes >= BLOCK_BYTES:
            merged.append((b"".join(pieces), number))
            pieces, num_bytes = [], 0
    if pieces:
        merged.append((b"".join(pieces), blocks[size - 1][1]))
    return merged + blocks[size:]
