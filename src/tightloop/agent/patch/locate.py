"""Where a chunk belongs in a file: four tiers of likeness, anchors, ambiguity, repair data.

Unlike the first-match rule that is common elsewhere, an ambiguous place is refused unless an
anchor decides it, and only ``-``/``+`` runs are replaced: context bytes stay the file's own,
whatever tier matched. Source of the tiers: the behaviour of Codex's patch tool.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tightloop.agent.patch.operations import ADD, CONTEXT, Chunk, ChunkGrew, ChunkLine
from tightloop.agent.patch.prospect import Prospect
from tightloop.agent.patch.repair import Repair
from tightloop.agent.patch.text import Edit, FileText, Tier, match_key


@dataclass(frozen=True, slots=True)
class LocatePolicy:
    """``first_match`` takes the first of several places; ``codex`` also reproduces where Codex
    puts pure additions (end of file) and where it searches after an anchor. For replays."""

    first_match: bool = False
    codex: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """A chunk's place. ``line`` counts from 1; ``num_matches`` is how many places were alike."""

    edits: tuple[Edit, ...]
    line: int
    tier: Tier
    num_matches: int = 1
    is_already_applied: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    starts: tuple[int, ...]
    tier: Tier
    num_old: int


class Locator:
    """Places the chunks of one file in order; a later chunk must lie after the earlier ones."""

    def __init__(self, text: FileText, path: str, policy: LocatePolicy | None = None) -> None:
        self._text = text
        self._policy = policy or LocatePolicy()
        self._repair = Repair(text, path)
        self._cursor = 0
        self._prospect: Prospect | None = None
        self._lines: list[ChunkLine] = []

    def grow(self, event: ChunkGrew) -> None:
        """A line of the next chunk. Raises ``PatchError`` when the chunk can have no place."""
        if self._prospect is None:
            self._prospect, self._lines = Prospect(self._text, self._cursor), []
            self._find_anchor(Chunk((), event.anchors, False, 0, event.number, event.patch_line))
        self._lines.append(event.line)
        if not self._prospect.add(event.line):
            lines = tuple(self._lines)
            chunk = Chunk(lines, event.anchors, False, 0, event.number, event.patch_line)
            raise self._repair.no_place(chunk, self._cursor)

    def place(self, chunk: Chunk) -> Placement:
        """The next chunk's place. Raises ``PatchError`` with repair data when it has none."""
        self._prospect = None
        start, anchor = self._find_anchor(chunk)
        old = chunk.old
        if not old:
            return self._place_addition(chunk, anchor)
        found = self._find_old(chunk, old, start, anchor)
        if found is None:
            applied = self._place_applied(chunk, start, anchor)
            if applied is None:
                raise self._repair.no_place(chunk, start)
            return applied
        is_vague = anchor is None and len(found.starts) > 1
        if is_vague and not (self._policy.first_match or self._policy.codex):
            raise self._repair.ambiguous(chunk, found.starts)
        first = found.starts[0]
        self._cursor = first + found.num_old
        return Placement(
            _runs(chunk, first, found.num_old), first + 1, found.tier, len(found.starts)
        )

    def _find_anchor(self, chunk: Chunk) -> tuple[int, int | None]:
        """Where to search from, and the last anchor's line; None without a named anchor."""
        start, anchor = self._cursor, None
        for text in chunk.anchors:
            anchor = self._anchor_line(text, start)
            if anchor is None:
                raise self._repair.no_anchor(chunk, text, start)
            start = anchor + 1
        return start, anchor

    def _anchor_line(self, text: str, start: int) -> int | None:
        for tier in Tier:
            line = self._text.first(tier, match_key(tier, text), start)
            if line is not None:
                return line
        return None if self._policy.codex else self._anchor_prefix(text, start)

    def _anchor_prefix(self, text: str, start: int) -> int | None:
        """The one line that begins with ``text`` at a word's end: ``def f`` for ``def f(x):``."""
        wanted = text.strip()
        lines = self._text.keys(Tier.TRIMMED)
        hits = [
            number
            for number in range(start, len(lines))
            if lines[number].startswith(wanted) and not _continues_word(lines[number], len(wanted))
        ]
        return hits[0] if len(hits) == 1 else None

    def _place_addition(self, chunk: Chunk, anchor: int | None) -> Placement:
        new = tuple(chunk.new)
        at_end = anchor is None or self._policy.codex or chunk.is_end_of_file
        if at_end:
            start = self._text.num_lines
            if start and self._text.stand_at(Tier.EXACT, [""], start - 1):
                start -= 1
        else:
            assert anchor is not None
            start = self._cursor = anchor + 1
        return Placement((Edit(start, 0, new),), start + 1, Tier.EXACT)

    def _find_old(
        self, chunk: Chunk, old: list[str], start: int, anchor: int | None
    ) -> _Found | None:
        lengths = [len(old) - drop for drop in range(self._num_droppable(chunk, old) + 1)]
        for length in lengths:
            if length == 0:
                break
            pattern = old[:length]
            found = self._find_at_end(pattern) if chunk.is_end_of_file else None
            if found is None and anchor is not None and not self._policy.codex:
                # A chunk that repeats its anchor as context belongs to that very line.
                found = self._find_at(pattern, anchor)
            if found is None and not (chunk.is_end_of_file and self._policy.codex):
                found = self._find(pattern, start)
            if found is not None:
                return found
        return None

    def _num_droppable(self, chunk: Chunk, old: list[str]) -> int:
        """How many empty lines at the end may be only separators."""
        if chunk.num_soft_tail:
            return chunk.num_soft_tail
        return 1 if old[-1] == "" and chunk.lines[-1].mark == CONTEXT else 0

    def _find(self, pattern: Sequence[str], start: int) -> _Found | None:
        for tier in Tier:
            keys = [match_key(tier, line) for line in pattern]
            starts = self._text.positions(tier, keys, start)
            if starts:
                return _Found(tuple(starts), tier, len(pattern))
        return None

    def _find_at(self, pattern: Sequence[str], start: int) -> _Found | None:
        for tier in Tier:
            keys = [match_key(tier, line) for line in pattern]
            if self._text.stand_at(tier, keys, start):
                return _Found((start,), tier, len(pattern))
        return None

    def _find_at_end(self, pattern: Sequence[str]) -> _Found | None:
        start = self._text.num_lines - len(pattern)
        return self._find_at(pattern, start) if start >= self._cursor else None

    def _place_applied(self, chunk: Chunk, start: int, anchor: int | None) -> Placement | None:
        """The place where the chunk's outcome already stands, if it is the only one."""
        new = chunk.new
        while new and new[-1] == "" and len(new) > 1:
            new = new[:-1]
        if not any(line.strip() for line in new):
            return None
        begin = start if anchor is None else anchor
        for tier in (Tier.EXACT, Tier.TRAILING):
            keys = [match_key(tier, line) for line in new]
            starts = self._text.positions(tier, keys, begin)
            if len(starts) == 1:
                self._cursor = starts[0] + len(new)
                return Placement((), starts[0] + 1, tier, 1, is_already_applied=True)
        return None


def _runs(chunk: Chunk, start: int, num_old: int) -> tuple[Edit, ...]:
    """The chunk's runs of changed lines; separators beyond ``num_old`` old lines are left out."""
    edits: list[Edit] = []
    at, run_start, num_removed = start, start, 0
    added: list[str] = []
    for line in chunk.lines:
        if line.mark == ADD:
            added.append(line.text)
            continue
        if at - start >= num_old:
            break
        if line.mark == CONTEXT:
            if num_removed or added:
                edits.append(Edit(run_start, num_removed, tuple(added)))
            at += 1
            run_start, num_removed, added = at, 0, []
        else:
            at += 1
            num_removed += 1
    if num_removed or added:
        edits.append(Edit(run_start, num_removed, tuple(added)))
    return tuple(edits)


def _continues_word(line: str, end: int) -> bool:
    return end < len(line) and (line[end].isalnum() or line[end] == "_")
