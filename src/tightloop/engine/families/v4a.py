"""Writes small V4A patches, and reads back the ones it wrote.

A chunk's anchor is the whole line of the function's ``def``; the lines of a chunk lie below it,
because appliers search onwards from the anchor. Context grows until the first place where an
applier would find the chunk is the right one.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

CONTEXT_LINES = 3
_BEGIN, _END = "*** Begin Patch", "*** End Patch"
_UPDATE = "*** Update File: "


@dataclass(frozen=True, slots=True)
class _Chunk:
    start: int  # index of its first old line in the current text
    lines: tuple[str, ...]  # with their marks

    @property
    def old(self) -> list[str]:
        return [line[1:] for line in self.lines if line[0] in " -"]


def write_patch(path: str, current: str, target: str, *, def_line: int) -> str:
    """The patch that turns ``current`` into ``target``, both texts of the file at ``path``.

    ``def_line`` is the 0-based line of the function's ``def``: the anchor of the first chunk.
    Raises ValueError when the texts are equal.
    """
    old, new = current.splitlines(), target.splitlines()
    if old == new:
        raise ValueError(f"nothing to change in {path}")
    for context in (CONTEXT_LINES, 8, 20, len(old)):
        chunks = _chunks(old, new, context)
        first_change = chunks[0].start + _leading(chunks[0])
        is_anchored = def_line < first_change
        if is_anchored:
            chunks = [_below(chunks[0], def_line), *chunks[1:]]
        if _is_found(old, chunks, old[def_line] if is_anchored else None):
            break
        if _is_found(old, _chunks(old, new, context), None):
            chunks, is_anchored = _chunks(old, new, context), False
            break
    lines = [_BEGIN, _UPDATE + path]
    for number, chunk in enumerate(chunks):
        lines.append(f"@@ {old[def_line]}" if is_anchored and number == 0 else "@@")
        lines.extend(chunk.lines)
    return "\n".join([*lines, _END]) + "\n"


def _chunks(old: Sequence[str], new: Sequence[str], context: int) -> list[_Chunk]:
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    chunks = []
    for group in matcher.get_grouped_opcodes(context):
        lines: list[str] = []
        for tag, old_start, old_end, new_start, new_end in group:
            if tag == "equal":
                lines.extend(" " + line for line in old[old_start:old_end])
                continue
            lines.extend("-" + line for line in old[old_start:old_end])
            lines.extend("+" + line for line in new[new_start:new_end])
        chunks.append(_Chunk(group[0][1], tuple(lines)))
    return chunks


def _leading(chunk: _Chunk) -> int:
    """Number of context lines before the first change."""
    return next(n for n, line in enumerate(chunk.lines) if line[0] != " ")


def _below(chunk: _Chunk, line: int) -> _Chunk:
    """The chunk without context at or above ``line``."""
    surplus = max(0, line + 1 - chunk.start)
    return _Chunk(chunk.start + surplus, chunk.lines[surplus:])


def _is_found(old: Sequence[str], chunks: Sequence[_Chunk], anchor: str | None) -> bool:
    """Whether a first-match applier puts every chunk where it belongs."""
    cursor = 0
    if anchor is not None:
        cursor = old.index(anchor) + 1
    for chunk in chunks:
        size = len(chunk.old)
        places = range(cursor, len(old) - size + 1)
        found = next((n for n in places if list(old[n : n + size]) == chunk.old), None)
        if found != chunk.start:
            return False
        cursor = found + size
    return True


def patched_path(patch: str) -> str | None:
    """The file that a patch of one update changes."""
    for line in patch.splitlines():
        if line.startswith(_UPDATE):
            return line.removeprefix(_UPDATE).strip()
    return None


def reapply(patch: str, text: str) -> str | None:
    """``text`` after a patch that ``write_patch`` made; None when it does not fit."""
    lines, out = text.splitlines(), list[str]()
    cursor = 0
    chunks: list[tuple[str, list[str]]] = []
    for line in patch.splitlines():
        if line.startswith("@@"):
            chunks.append((line[3:], []))
        elif chunks and not line.startswith("***"):
            chunks[-1][1].append(line or " ")
    for anchor, body in chunks:
        start = cursor
        if anchor:
            if anchor not in lines[cursor:]:
                return None
            start = lines.index(anchor, cursor) + 1
        old = [line[1:] for line in body if line[0] in " -"]
        places = range(start, len(lines) - len(old) + 1)
        found = next((n for n in places if lines[n : n + len(old)] == old), None)
        if found is None:
            return None
        out += lines[cursor:found] + [line[1:] for line in body if line[0] in " +"]
        cursor = found + len(old)
    joined = "\n".join(out + lines[cursor:])
    return joined + "\n" if text.endswith("\n") else joined
