"""One line of Markdown, perhaps unfinished, as spans; which of them can still change is known.

Code spans, strong and emphasised text with asterisks, links. Underscores are left as they are: in
the texts of a coding agent they are parts of names far more often than marks.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tightloop.agent.terminal.styled import Role, Span

_NEXT = re.compile(r"`+|\*\*|\*|\\[!-/:-@\[-`{-~]|\[")
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)?)\)")
_LINK_BEGUN = re.compile(r"\[[^\[\]]*(?:\](?:\([^()\s]*(?:\([^()\s]*(?:\)[^()\s]*)?)?)?)?$")
_MAX_LINK_CHARS = 300
_MAX_DEPTH = 4
_BEFORE_OPENING = frozenset(" \t([{\"'\u2014\u2013:;,*")
_AFTER_OPENING = frozenset("`\"'([_*<$")


@dataclass(slots=True)
class Inline:
    """``num_stable`` characters at the beginning of the text of ``spans`` can not change any more."""

    spans: list[Span] = field(default_factory=list)
    num_stable: int = 0


def inline(
    text: str, *, is_final: bool, literal_before: int = 0, base: Role = Role.PLAIN
) -> Inline:
    """The spans of ``text``.

    Unless ``is_final`` a mark without its counterpart is taken as open: what follows it is shown as
    if the counterpart came, and is not stable. Marks before ``literal_before`` whose counterpart
    was not there yet stay what they are.
    """
    scanner = _Scanner(text, is_final, literal_before)
    scanner.scan(0, len(text), base, 0)
    num_stable = scanner.num_chars if scanner.num_stable is None else scanner.num_stable
    return Inline(scanner.spans, num_stable)


class _Scanner:
    def __init__(self, text: str, is_final: bool, literal_before: int) -> None:
        self.spans: list[Span] = []
        self.num_chars = 0
        self.num_stable: int | None = None
        self._text = text
        self._is_final = is_final
        self._literal_before = literal_before
        self._missing: set[tuple[str, int]] = set()

    def scan(self, start: int, end: int, role: Role, depth: int) -> None:
        """Add the spans of a part of the text, all of them at least of this role."""
        at = start
        while match := _NEXT.search(self._text, at, end):
            self._add(self._text[at : match.start()], role)
            mark = match.group()
            if mark[0] == "\\":
                self._add(mark[1], role)
                at = match.end()
            elif mark[0] == "`":
                at = self._code(match, end, role)
            elif mark == "[":
                at = self._link(match.start(), end, role)
            elif depth < _MAX_DEPTH and self._may_open(match, end):
                at = self._emphasis(match, end, role, depth)
            else:
                self._add(mark, role)
                at = match.end()
        self._add(self._text[at:end], role)

    def _emphasis(self, match: "re.Match[str]", end: int, role: Role, depth: int) -> int:
        mark, after = match.group(), match.end()
        inside = Role.STRONG if mark == "**" or role is Role.STRONG else Role.EMPHASIS
        close = self._counterpart(match, end, self._closing)
        if close is None:
            self._add(mark, role)
            return after
        self.scan(after, min(close, end), inside, depth + 1)
        return min(close + len(mark), end)

    def _code(self, match: "re.Match[str]", end: int, role: Role) -> int:
        mark, after = match.group(), match.end()
        close = self._counterpart(match, end, self._closing_run)
        if close is None:
            self._add(mark, role)
            return after
        self._add(self._text[after : min(close, end)], Role.CODE)
        return min(close + len(mark), end)

    def _link(self, start: int, end: int, role: Role) -> int:
        match = _LINK.match(self._text, start, end)
        if match is not None and not start < self._literal_before <= match.end():
            label, target = match.groups()
            self._add(label or target, role)
            if label and target and target != label:
                self._add(f" ({target})", Role.DIM)
            return match.end()
        is_short = end - start <= _MAX_LINK_CHARS
        if self._is_undecided(start) and is_short and _LINK_BEGUN.match(self._text, start, end):
            self._open()
        self._add("[", role)
        return start + 1

    def _counterpart(
        self, match: "re.Match[str]", end: int, find: Callable[[str, int, int], int | None]
    ) -> int | None:
        """Where the mark that belongs to this one is: at ``end`` if it may still come."""
        mark, start = match.group(), match.start()
        close = None
        if (mark, end) not in self._missing:
            close = find(mark, match.end(), end)
            if close is None:
                self._missing.add((mark, end))
        is_whole = end == len(self._text)
        if close is not None and start < self._literal_before <= close:
            return None
        if close is None and is_whole and self._is_undecided(start):
            self._open()
            return end
        if close is not None and close + len(mark) == len(self._text) and not self._is_final:
            self._open()  # a letter after it would make it none
        return close

    def _closing(self, mark: str, after: int, end: int) -> int | None:
        """After text, before no letter, and not part of a longer row of asterisks."""
        text, at = self._text, after
        while (at := text.find(mark, at, end)) >= 0:
            run = at + len(mark)
            while run < end and text[run] == "*":
                run += 1
            ends_well = not text[run : run + 1].isalnum() or run >= end
            fits = run - at == len(mark) or (mark == "**" and run - at == 3)
            if at > after and not text[at - 1].isspace() and ends_well and fits:
                return run - len(mark)
            at = run
        return None

    def _closing_run(self, mark: str, after: int, end: int) -> int | None:
        """Exactly as many backticks."""
        text, at = self._text, after
        while (at := text.find(mark, at, end)) >= 0:
            run = at + len(mark)
            while run < end and text[run] == "`":
                run += 1
            if run - at == len(mark):
                return at
            at = run
        return None

    def _may_open(self, match: "re.Match[str]", end: int) -> bool:
        """Before text and after none: ``2 * 3``, ``src/*.py`` and ``a**b`` open nothing."""
        start, after = match.span()
        if start and self._text[start - 1] not in _BEFORE_OPENING:
            return False
        follows = self._text[after : after + 1] if after < end else ""
        return not follows or follows.isalnum() or follows in _AFTER_OPENING

    def _is_undecided(self, start: int) -> bool:
        return not self._is_final and start >= self._literal_before

    def _open(self) -> None:
        """From here on everything depends on what comes."""
        if self.num_stable is None:
            self.num_stable = self.num_chars

    def _add(self, text: str, role: Role) -> None:
        if text:
            span = Span(text, role)
            self.spans.append(span)
            self.num_chars += len(span.text)
