"""A file as lines with their own endings, changed run by run without touching the rest."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from tightloop.agent.patch.failure import Failure, PatchError

MAX_POSITIONS = 20
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
    """A text file taken apart. Bytes that no edit touches come out as they went in.

    Raises ``PatchError`` ``not_text`` for content with a NUL byte. Invalid UTF-8 is carried
    through untouched; a patch cannot match or change such a line.
    """

    def __init__(self, content: bytes) -> None:
        if b"\0" in content:
            raise PatchError(Failure("not_text", "the file is binary (it holds a NUL byte)"))
        text = content.decode("utf-8", "surrogateescape")
        self._content = content
        self.bom = "\ufeff" if text.startswith("\ufeff") else ""
        self.lines = text.removeprefix(self.bom).split("\n")
        self.is_terminated = self.lines[-1] == ""
        if self.is_terminated:
            self.lines.pop()
        self.endings: list[str] | None = None
        if "\r" in text and "\r\n" in text:  # one character is found far sooner than two
            self._split_endings()
        self._is_ascii = text.isascii()
        self._keys: dict[Tier, list[str]] = {Tier.EXACT: self.lines}

    @property
    def sha256(self) -> str:
        """Of the content, in hex; computed when asked for."""
        return hashlib.sha256(self._content).hexdigest()

    def _split_endings(self) -> None:
        num_terminated = len(self.lines) if self.is_terminated else len(self.lines) - 1
        self.endings = [
            "\r\n" if line.endswith("\r") else "\n" for line in self.lines[:num_terminated]
        ]
        for number in range(num_terminated):
            self.lines[number] = self.lines[number].removesuffix("\r")

    def keys(self, tier: Tier) -> list[str]:
        """All lines as ``match_key`` sees them, computed once."""
        if tier not in self._keys:
            if tier is Tier.UNICODE and self._is_ascii:  # nothing to fold
                return self.keys(Tier.TRIMMED)
            key = _KEYS[tier]
            self._keys[tier] = [key(line) for line in self.lines]
        return self._keys[tier]

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The content after all edits, which must not overlap.

        New lines take the first ending found in the file. An unterminated last line stays so
        only when it is still the last one.
        """
        ending = self.endings[0] if self.endings else "\n"
        pieces, at = [self.bom], 0
        for edit in sorted(edits, key=lambda edit: edit.start):  # stable: equal starts keep order
            kept = self._joined(at, edit.start)
            if kept and edit.new and not kept.endswith("\n"):
                kept += ending
            pieces.append(kept)
            pieces += [line + ending for line in edit.new]
            at = max(at, edit.start + edit.num_old)
        pieces.append(self._joined(at, len(self.lines)))
        return "".join(pieces).encode("utf-8", "surrogateescape")

    def _joined(self, start: int, end: int) -> str:
        """The lines from ``start`` up to ``end`` with their own endings."""
        if start >= end:
            return ""
        is_open = end == len(self.lines) and not self.is_terminated
        if self.endings is None:
            lines = self.lines[start:end]
            return "\n".join(lines if is_open else [*lines, ""])
        endings = [*self.endings, ""] if is_open else self.endings
        pairs = zip(self.lines[start:end], endings[start:end], strict=True)
        return "".join(line + ending for line, ending in pairs)


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
