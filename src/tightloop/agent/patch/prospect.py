"""Whether a chunk that is still arriving can have a place, line by line.

Only the certain end is said: a chunk is given up when no place in the file begins like it, by the
loosest tier, and no place begins like its outcome either (it could have been applied before). What
anchors, ambiguity and the end-of-file mark make of it is judged when the chunk is closed.
"""

from collections.abc import Sequence

from tightloop.agent.patch.operations import ADD, REMOVE, ChunkLine
from tightloop.agent.patch.raw_lines import Trail
from tightloop.agent.patch.text import FileText, Tier, match_key


class Prospect:
    """One chunk of one file; ``start`` is the line (0-based) after the chunks before it."""

    def __init__(self, text: FileText, start: int) -> None:
        self._text = text
        self._start = start
        self._old = _Beginning(text, start, (Tier.EXACT, Tier.UNICODE))
        self._outcome: list[str] = []
        self._new: _Beginning | None = None
        self._has_old = False

    def add(self, line: ChunkLine) -> bool:
        """Take the next line; False once the chunk has no place however it goes on."""
        if line.mark != ADD:
            self._has_old = True
            self._old.add(line.text)
        if line.mark != REMOVE:
            self._outcome.append(line.text)
        if not self._has_old or self._old.is_somewhere:
            return True
        return self._is_applied_somewhere()

    def _is_applied_somewhere(self) -> bool:
        """Looked for only when there is no other hope: it costs a pass over the file."""
        if self._new is None:
            self._new = _Beginning(self._text, self._start, (Tier.EXACT, Tier.TRAILING))
        for line in self._outcome:
            self._new.add(line)
        self._outcome.clear()
        return self._new.is_somewhere


class _Beginning:
    """Where in the file some lines stand that are read one by one.

    Empty lines wait for the line after them: at the end of a chunk they need not match.
    """

    def __init__(self, text: FileText, start: int, tiers: Sequence[Tier]) -> None:
        self._text = text
        self._start = start
        self._tiers = list(tiers)
        self._lines: list[str] = []
        self._waiting: list[str] = []
        self._places: list[int] | None = None  # None: anywhere, or where the trail leads
        raw = text.raw if tiers[0] is Tier.EXACT else None
        self._trail = None if raw is None else Trail(raw, start)

    @property
    def is_somewhere(self) -> bool:
        """Whether there is such a place."""
        return self._places is None or bool(self._places)

    def add(self, line: str) -> None:
        """The lines go on."""
        self._waiting.append(line)
        if line == "" or not self.is_somewhere:
            return
        num_known = len(self._lines)
        self._lines += self._waiting
        self._waiting = []
        if self._trail is not None:
            if self._trail.goes_on(self._lines[num_known:]):
                return
            self._trail, self._places = None, []
        elif self._places is None:
            self._places = self._search(self._tiers[0])
        else:
            self._places = self._among(self._places, self._tiers[0], num_known)
        while not self._places and len(self._tiers) > 1:
            del self._tiers[0]
            self._places = self._search(self._tiers[0])

    def _among(self, places: list[int], tier: Tier, num_known: int) -> list[int]:
        """Those of ``places`` where the lines after the first ``num_known`` stand too."""
        keys = self._text.keys(tier)
        more = [match_key(tier, line) for line in self._lines[num_known:]]
        end = num_known + len(more)
        return [place for place in places if keys[place + num_known : place + end] == more]

    def _search(self, tier: Tier) -> list[int]:
        keys = self._text.keys(tier)
        first = match_key(tier, self._lines[0])
        found: list[int] = []
        at = self._start - 1
        try:
            while True:
                at = keys.index(first, at + 1)
                found.append(at)
        except ValueError:
            return self._among(found, tier, 1)
