"""What a model needs to repair a chunk that has no place: the closest lines, bounded in size."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from tightloop.agent.patch.failure import Divergence, Failure, PatchError
from tightloop.agent.patch.operations import Chunk
from tightloop.agent.patch.text import FileText, Tier, match_key

NUM_NEARBY = 6
MAX_CLOSEST_LINES = 5000
_LAST_TIER = Tier.UNICODE.name.lower()


class Repair:
    """Makes the failures of one file."""

    def __init__(self, text: FileText, path: str) -> None:
        self._text = text
        self._path = path

    def ambiguous(self, chunk: Chunk, starts: Sequence[int]) -> PatchError:
        """The chunk fits at several places and no anchor decides."""
        lines = tuple(start + 1 for start in starts)
        return self._error(
            chunk,
            "ambiguous",
            f"the chunk fits at lines {', '.join(map(str, lines))}",
            candidates=lines,
            hint="Put an '@@ LINE' above the chunk, e.g. the function's first line, "
            "or give more context lines.",
        )

    def no_anchor(self, chunk: Chunk, anchor: str, start: int) -> PatchError:
        """No line at or after ``start`` (0-based) matches the ``@@`` text."""
        close = self._closest(anchor, start) if anchor.strip() else None
        facts: dict[str, object] = {}
        closest = ""
        if close is not None:
            facts = {"candidates": (close + 1,), "nearby": self._nearby(close)}
            closest = f"; closest is line {close + 1}: {self._shown(close)!r}"
        return self._error(
            chunk,
            "context_not_found",
            f"no line '@@ {anchor}' at or after line {start + 1}{closest}",
            tier_tried=_LAST_TIER,
            hint="An '@@' line must repeat one line of the file.",
            **facts,
        )

    def no_place(self, chunk: Chunk, start: int) -> PatchError:
        """The chunk's old lines are not at or after ``start`` (0-based)."""
        old = chunk.old
        earlier = self._text.positions(Tier.TRIMMED, [line.strip() for line in old], 0)
        if earlier:
            return self._error(
                chunk,
                "context_not_found",
                f"the lines stand at line {earlier[0] + 1}, before line {start + 1}, "
                "where the search began",
                tier_tried=_LAST_TIER,
                candidates=tuple(number + 1 for number in earlier),
                hint="Chunks must follow file order, and lie after their '@@' line.",
            )
        return self._error(
            chunk,
            "context_not_found",
            "the chunk's context and '-' lines are not in the file",
            tier_tried=_LAST_TIER,
            hint="Write the lines as they are in the file now, and send the whole patch again.",
            **self._closest_place([match_key(Tier.UNICODE, line) for line in old], old, start),
        )

    def _closest_place(
        self, wanted: list[str], old: Sequence[str], start: int
    ) -> dict[str, object]:
        best = self._best_start(wanted, start)
        if best is None:
            return {}
        keys = self._text.keys(Tier.UNICODE)
        window = zip(keys[best:], wanted, strict=False)
        facts: dict[str, object] = {
            "best_line": best + 1,
            "num_matched": sum(have == want for have, want in window),
            "num_expected": len(old),
            "nearby": self._nearby(best),
        }
        for number, (want, line) in enumerate(zip(wanted, old, strict=True), best):
            if number >= len(keys) or keys[number] != want:
                actual = self._shown(number) if number < len(keys) else None
                facts["first_diverging"] = Divergence(number + 1, line, actual)
                facts["nearby"] = self._nearby(number)
                break
        return facts

    def _best_start(self, wanted: Sequence[str], start: int) -> int | None:
        """The start at which most lines agree (0-based), preferring those after ``start``."""
        offsets: dict[str, list[int]] = {}
        for offset, line in enumerate(wanted):
            if line:
                offsets.setdefault(line, []).append(offset)
        votes: Counter[int] = Counter()
        for number, line in enumerate(self._text.keys(Tier.UNICODE)):
            for offset in offsets.get(line, ()):
                if number >= offset:
                    votes[number - offset] += 1
        if votes:
            return min(votes, key=lambda number: (-votes[number], number < start, number))
        for offset, line in enumerate(wanted):
            close = self._closest(line, start) if line else None
            if close is not None:
                return max(close - offset, 0)
        return None

    def _closest(self, line: str, start: int) -> int | None:
        keys = self._text.keys(Tier.UNICODE)[start : start + MAX_CLOSEST_LINES]
        close = get_close_matches(match_key(Tier.UNICODE, line), keys, n=1, cutoff=0.6)
        return start + keys.index(close[0]) if close else None

    def _nearby(self, centre: int) -> tuple[tuple[int, str], ...]:
        first = max(centre - NUM_NEARBY, 0)
        last = min(centre + NUM_NEARBY + 1, len(self._text.lines))
        return tuple((number + 1, self._shown(number)) for number in range(first, last))

    def _shown(self, number: int) -> str:
        return self._text.lines[number].encode("utf-8", "replace").decode()[:400]

    def _error(self, chunk: Chunk, error: str, message: str, **facts: object) -> PatchError:
        failure = Failure(
            error,
            message,
            file=self._path,
            chunk=chunk.number,
            patch_line=chunk.patch_line,
            sha256=self._text.sha256,
        )
        return PatchError(failure).at(**facts)
