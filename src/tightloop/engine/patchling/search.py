"""Ranked repairs of one function: the "diverge once" search.

The prompt ends where the repaired function begins. The buggy function itself is fed as the draft of
its repair, in one pass that gives the probabilities of every place where the repair could leave the
draft. Each place and token is a divergence. Most candidates are divergences whose line is known, because it
undoes a declared edit; for the others the model decodes the rest of the line greedily. Candidates come
best first: one is handed out as soon as no unfinished divergence can beat it.
"""

import ast
import heapq
import re
import tokenize
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.interface import TokenModel
from tightloop.engine.patchling import layout
from tightloop.engine.patchling.edits import parse_function, undoes_declared
from tightloop.engine.patchling.inverse import proposals
from tightloop.engine.patchling.report import TestReport

MAX_LINE_TOKENS = 64
FIRST_PLAIN = len(layout.SPECIAL_TOKENS)
HOPELESS = -16.0
"""Log-probability of a completion below which it is given up."""
ALTERNATIVES_PER_PLACE = 6
MAX_DIVERGENCES = 160


class FunctionTooLong(ValueError):
    """The function (with its report) does not fit the model's context or line markers."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How candidates are scored; tuned on training-side functions."""

    completion_weight: float = 0.25
    undeclared_penalty: float = 8.0
    hit_bonus: float = 1.0
    """For lines that a traceback of the report names."""
    undefined_penalty: float = 8.0
    """For a repair that leaves a name which the report says is not defined."""


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """One proposed repair. Lines are 0-based in the function's text; all others keep their bytes.

    Ordered by place and text, so that candidates of equal score have a fixed order.
    """

    first_line: int
    old_lines: tuple[str, ...]
    new_lines: tuple[str, ...]
    function_source: str
    score: float
    num_decoded_tokens: int


@dataclass(frozen=True, slots=True)
class _Divergence:
    """Leaving the draft at `place` with `token`; `rest` ends the line, None lets the model end it."""

    place: int
    token: int
    score: float
    rest: tuple[int, ...] | None = None


class CandidateSearch:
    """Ranked candidates of one function, made as they are asked for.

    Order: `next` any number of times, then `close`. Uses one sequence of the backend, and a second
    one while a candidate is completed. Raises FunctionTooLong from the constructor.
    """

    def __init__(
        self,
        backend: TokenModel,
        function_source: str,
        report: TestReport | None = None,
        *,
        ranking: Ranking | None = None,
    ) -> None:
        self.backend = backend
        self.source = function_source
        self.report = report
        self.ranking = ranking or Ranking()
        self.view = layout.view_function(function_source)
        self.num_decoded_tokens = 0
        self.prompt, self.draft, self.owners = self._layout()
        self._tree = _dump(function_source)
        self._seen = {self._tree}
        self._ready: list[tuple[float, int, Candidate]] = []
        self._sequence: int | None = backend.open()
        try:
            logits = self._verify(self._sequence)
        except BaseException:
            self.close()
            raise
        self._waiting = self._divergences(logits)

    def _layout(self) -> tuple[list[int], list[int], list[int]]:
        """Prompt tokens, draft tokens, and for each draft token the shown line it belongs to.

        A line's marker belongs to the line before it: leaving the draft there extends that line.
        """

        def encode(text: str) -> list[int]:
            return self.backend.tokenize(text, special=False)

        if not self.view.lines or len(self.view.lines) > layout.MAX_LINES:
            raise FunctionTooLong(f"{len(self.view.lines)} lines of code")
        lines = [encode(line.text) for line in self.view.lines]
        prompt = layout.prompt_tokens(
            self.report, lines, layout.hit_lines(self.view, self.report), encode
        )
        draft: list[int] = []
        owners: list[int] = []
        for index, line in enumerate(lines):
            draft += [layout.line_token(index), *line]
            owners += [index - 1, *([index] * len(line))]
        draft.append(layout.EOS)
        owners.append(len(lines) - 1)
        room = self.backend.context_window - MAX_LINE_TOKENS
        if len(prompt) + len(draft) > room:
            raise FunctionTooLong(f"{len(prompt) + len(draft)} tokens, room for {room}")
        return prompt, draft, owners

    def _verify(self, sequence: int) -> NDArray[np.float32]:
        """Logits that predict each draft token."""
        first = self.backend.evaluate(sequence, self.prompt)
        if len(self.draft) == 1:
            return first[None]
        rest = self.backend.evaluate(sequence, self.draft[:-1], all_logits=True)
        return np.concatenate([first[None], rest])

    def _divergences(self, logits: NDArray[np.float32]) -> list[_Divergence]:
        """Every promising way to leave the draft, best first."""
        draft = np.array(self.draft)
        scores = logits - logits[np.arange(len(draft)), draft][:, None]
        ends = [self._line_end(place) for place in range(len(draft))]
        found: list[_Divergence] = []
        for place in range(1, len(draft)):
            row = scores[place]
            row[draft[place]] = -np.inf  # staying is no way to leave
            end_score = row[ends[place]]
            row[:FIRST_PLAIN] = -np.inf
            row[ends[place]] = end_score
            for token in np.argpartition(-row, ALTERNATIVES_PER_PLACE)[:ALTERNATIVES_PER_PLACE]:
                score = float(row[token])
                if score > -np.inf:
                    found.append(_Divergence(place, int(token), score))
        found.sort(key=lambda divergence: -divergence.score)
        found = [*found[:MAX_DIVERGENCES], *self._declared(scores, ends)]
        extras = self._extras()
        found = [replace(one, score=one.score + extras[self.owners[one.place]]) for one in found]
        return sorted(found, key=lambda divergence: divergence.score)

    def _extras(self) -> list[float]:
        """What the report adds to the score of every divergence of a line."""
        hits = layout.hit_lines(self.view, self.report)
        extras = [self.ranking.hit_bonus * (n in hits) for n in range(len(self.view.lines))]
        for name in self.report.undefined if self.report else ():
            uses = re.compile(rf"\b{name}\b")
            for index, line in enumerate(self.view.lines):
                if not uses.search(line.text):
                    extras[index] -= self.ranking.undefined_penalty
        return extras

    def _declared(self, scores: NDArray[np.float32], ends: list[int]) -> list[_Divergence]:
        """The repairs that undo a declared edit, as divergences with a known rest of the line."""
        starts = [n for n, token in enumerate(self.draft[:-1]) if token < FIRST_PLAIN]
        found: list[_Divergence] = []
        for edit in proposals(self.source):
            index = self.view.index_of(edit.line)
            if index is None:
                continue
            new = self.backend.tokenize(self.view.edited(index, edit), special=False)
            place = starts[index] + 1
            old = self.draft[place : starts[index + 1] if index + 1 < len(starts) else -1]
            same = 0
            while same < min(len(old), len(new)) and old[same] == new[same]:
                same += 1
            place += same
            token = new[same] if same < len(new) else ends[place]
            score = float(scores[place, token])
            if score > -np.inf:
                found.append(_Divergence(place, token, score, tuple(new[same + 1 :])))
        return found

    def _line_end(self, place: int) -> int:
        """The marker that would end the line at a draft position."""
        owner = self.owners[place]
        is_last = owner >= len(self.view.lines) - 1
        return layout.EOS if is_last else layout.line_token(owner + 1)

    def advance(self) -> bool:
        """Complete one divergence; False once `next` has nothing left to evaluate."""
        if not self._waiting or (self._ready and -self._ready[0][0] >= self._waiting[-1].score):
            return False
        candidate = self._complete(self._waiting.pop())
        if candidate is not None:
            heapq.heappush(self._ready, (-candidate.score, 0, candidate))
        return True

    def next(self) -> Candidate | None:
        """The best candidate not handed out yet, or None when there are no more."""
        while self.advance():
            pass
        return heapq.heappop(self._ready)[2] if self._ready else None

    def close(self) -> None:
        """Give the sequence back. May be called twice."""
        if self._sequence is not None:
            self.backend.close(self._sequence)
            self._sequence = None

    def _complete(self, divergence: _Divergence) -> Candidate | None:
        """Decode the rest of the line; None when the result is no new valid function."""
        place, index = divergence.place, self.owners[divergence.place]
        start = place
        while start and self.draft[start - 1] != layout.line_token(index):
            start -= 1
        ending = self._decode_line(divergence)
        if ending is None:
            return None
        tokens, score = ending
        line = b"".join(map(self.backend.token_bytes, [*self.draft[start:place], *tokens]))
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return None
        return self._candidate(index, text, divergence.score, score, len(tokens))

    def _decode_line(self, divergence: _Divergence) -> tuple[list[int], float] | None:
        """Tokens of the rest of the line, and the log-probability of all but the first.

        None when the line gets too long or too unlikely.
        """
        if divergence.token < FIRST_PLAIN:
            return [], 0.0
        if self._sequence is None:
            return None
        sequence = self.backend.fork(self._sequence, len(self.prompt) + divergence.place)
        try:
            if divergence.rest is None:
                return self._free_ending(sequence, divergence.token)
            tokens = [divergence.token, *divergence.rest]
            logits = self.backend.evaluate(sequence, tokens, all_logits=True)
        finally:
            self.backend.close(sequence)
        end = self._line_end(divergence.place)
        wanted = np.array([*divergence.rest, end])
        peaks = logits.max(-1, keepdims=True)
        totals = peaks[:, 0] + np.log(np.exp(logits - peaks).sum(-1))
        return tokens, float((logits[np.arange(len(wanted)), wanted] - totals).sum())

    def _free_ending(self, sequence: int, token: int) -> tuple[list[int], float] | None:
        tokens, score = [token], 0.0
        while len(tokens) < MAX_LINE_TOKENS and score > HOPELESS:
            logits = self.backend.evaluate(sequence, tokens[-1:])
            self.num_decoded_tokens += 1
            token = int(logits.argmax())
            score -= float(np.log(np.exp(logits - logits[token]).sum()))
            if token < FIRST_PLAIN:
                return tokens, score
            tokens.append(token)
        return None

    def _candidate(
        self, index: int, text: str, divergence: float, completion: float, num_decoded: int
    ) -> Candidate | None:
        number = self.view.lines[index].line
        old = self.view.original[number]
        new = self.view.restore(index, text)
        fixed = "\n".join([*self.view.original[:number], new, *self.view.original[number + 1 :]])
        tree = _dump(fixed)
        if tree is None or tree in self._seen:
            return None
        self._seen.add(tree)
        score = divergence + self.ranking.completion_weight * completion
        if not undoes_declared(fixed, number, old):
            score -= self.ranking.undeclared_penalty
        for name in self.report.undefined if self.report else ():
            if re.search(rf"\b{name}\b", old) and re.search(rf"\b{name}\b", new):
                score -= self.ranking.undefined_penalty
        return Candidate(number, (old,), (new,), fixed, score, num_decoded)


def _dump(source: str) -> str | None:
    """The syntax tree as text, equal for texts that mean the same; None when it does not parse."""
    try:
        return ast.dump(parse_function(source)[0])
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):
        return None
