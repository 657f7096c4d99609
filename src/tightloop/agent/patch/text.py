"""A file as lines with their own endings, changed run by run without touching the rest."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import islice

from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.agent.patch.raw_lines import RawLines, as_bytes

MAX_POSITIONS = 20
_BOM = b"\xef\xbb\xbf"
_LF = 0x0A
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_SINGLE = "\u2018\u2019\u201a\u201b"
_DOUBLE = "\u201c\u201d\u201e\u201f"
_SPACES = "\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2002, 0x200B)))
_FOLD = str.maketrans(
    {char: to for chars, to in ((_DASHES, "-"), (_SINGLE, "'"), (_DOUBLE, '"'), (_SPACES, " "))
     for char in chars}
)  # fmt: skip


class Tier(IntEnum):
    """How alike lines must be to match; each tier is tried over the whole range before the next."""

    EXACT = 0
    TRAILING = 1
    TRIMMED = 2
    UNICODE = 3


_KEYS: dict[Tier, Callable[[str], str]] = {
    Tier.EXACT: lambda line: line,
    Tier.TRAILING: str.rstrip,
    Tier.TRIMMED: str.strip,
    Tier.UNICODE: lambda line: line.translate(_FOLD).strip(),
}


def match_key(tier: Tier, line: str) -> str:
    """What two lines must have in common to match in ``tier``."""
    return _KEYS[tier](line)


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``num_old`` lines from ``start`` (0-based) by ``new``."""

    start: int
    num_old: int
    new: tuple[str, ...]


class FileText:
    """A text file as lines. Bytes that no edit touches come out as they went in.

    Raises ``PatchError`` ``not_text`` for content with a NUL byte. Invalid UTF-8 is carried
    through untouched; a patch cannot match or change such a line. Exact lines are looked for in the
    undivided content; it is taken apart when a looser tier or an answer needs that.
    """

    def __init__(self, content: bytes) -> None:
        if b"\0" in content:
            raise PatchError(Failure("not_text", "the file is binary (it holds a NUL byte)"))
        self._content = content
        self._begin = len(_BOM) if content.startswith(_BOM) else 0
        # One byte is found far sooner than two.
        self._has_crlf = b"\r" in content and b"\r\n" in content
        self._raw = RawLines(content, self._begin)
        self._keys: dict[Tier, list[str]] = {}

    @property
    def sha256(self) -> str:
        """Of the content, in hex; computed when asked for."""
        return hashlib.sha256(self._content).hexdigest()

    @cached_property
    def lines(self) -> list[str]:
        """All lines without their endings."""
        lines = self._content[self._begin :].decode("utf-8", "surrogateescape").split("\n")
        last = lines.pop()
        if self._has_crlf:
            lines = [line.removesuffix("\r") for line in lines]
        return [*lines, last] if last else lines

    @cached_property
    def num_lines(self) -> int:
        """How many there are."""
        num_ends = self._content.count(b"\n")
        is_open = len(self._content) > self._begin and not self._content.endswith(b"\n")
        return num_ends + is_open

    @property
    def raw(self) -> RawLines | None:
        """The lines as bytes, where equal bytes are equal lines: not with ends of two characters."""
        return None if self._has_crlf else self._raw

    def keys(self, tier: Tier) -> list[str]:
        """All lines as ``match_key`` sees them, computed once."""
        if tier is Tier.EXACT:
            return self.lines
        if tier not in self._keys:
            if tier is Tier.UNICODE and self._content.isascii():  # nothing to fold
                return self.keys(Tier.TRIMMED)
            key = _KEYS[tier]
            self._keys[tier] = [key(line) for line in self.lines]
        return self._keys[tier]

    def positions(self, tier: Tier, pattern: Sequence[str], start: int) -> list[int]:
        """Up to ``MAX_POSITIONS`` lines at or after ``start`` where the keys of ``pattern`` stand."""
        if tier is not Tier.EXACT or self.raw is None:
            return positions(self.keys(tier), pattern, start)
        wanted = as_bytes(pattern)
        places = iter(()) if wanted is None else self.raw.places(wanted, start)
        return list(islice(places, MAX_POSITIONS))

    def stand_at(self, tier: Tier, pattern: Sequence[str], line: int) -> bool:
        """Whether the keys of ``pattern`` stand right at ``line``."""
        if tier is not Tier.EXACT or self.raw is None:
            return self.keys(tier)[line : line + len(pattern)] == list(pattern)
        wanted = as_bytes(pattern)
        return wanted is not None and self.raw.stands_at(wanted, self.raw.offset(line))

    def first(self, tier: Tier, key: str, start: int) -> int | None:
        """The first line at or after ``start`` with this key."""
        if tier is not Tier.EXACT or self.raw is None:
            try:
                return self.keys(tier).index(key, start)
            except ValueError:
                return None
        wanted = as_bytes([key])
        return None if wanted is None else next(self.raw.places(wanted, start), None)

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The content after all edits, which must not overlap.

        New lines take the first ending found in the file. An unterminated last line stays so
        only when it is still the last one.
        """
        ending = self._first_ending()
        pieces: list[bytes | memoryview] = [self._content[: self._begin]]
        at = 0
        for edit in sorted(edits, key=lambda edit: edit.start):  # stable: equal starts keep order
            kept = self._raw.between(at, edit.start)
            pieces.append(kept)
            if kept and edit.new and kept[-1] != _LF:
                pieces.append(ending.encode())
            new = "".join([line + ending for line in edit.new])
            pieces.append(new.encode("utf-8", "surrogateescape"))
            at = max(at, edit.start + edit.num_old)
        pieces.append(memoryview(self._content)[self._raw.offset(at) :])
        return b"".join(pieces)

    def _first_ending(self) -> str:
        end = self._content.find(b"\n", self._begin)
        return "\r\n" if end > self._begin and self._content.startswith(b"\r", end - 1) else "\n"


def positions(keys: Sequence[str], pattern: Sequence[str], start: int) -> list[int]:
    """Up to ``MAX_POSITIONS`` places at or after ``start`` where ``pattern`` stands."""
    found: list[int] = []
    first, count, at = pattern[0], len(pattern), start
    while len(found) < MAX_POSITIONS:
        try:
            at = keys.index(first, at, max(len(keys) - count + 1, 0))
        except ValueError:
            break
        if keys[at : at + count] == pattern:
            found.append(at)
        at += 1
    return found
