"""Prompt lookup: an answer that repeats what was said before goes on as it did then.

Source: Saxena, "Prompt Lookup Decoding" (2023); here with a cursor that stays while it is right.
"""

from collections.abc import Sequence
from typing import Final

from tightloop.engine.drafts.ngram_index import LONGEST_MATCH, NgramIndex
from tightloop.engine.drafts.source import NOTHING

SHORTEST_MATCH: Final = 2


class PromptLookup:
    """A source over ``history``: the prompt, as far as it is indexed yet, and the answer so far.

    ``accept`` appends to the answer, which the index gets once the whole prompt is in it.
    """

    def __init__(self, history: NgramIndex, prompt: Sequence[int]) -> None:
        """``history`` holds a beginning of ``prompt``, perhaps an empty one."""
        self.expected = NOTHING
        self.run = 0
        self._history = history
        self._prompt = prompt
        self._answer: list[int] = []
        self._next = 0
        self._num_prompt = len(prompt)

    @property
    def is_ready(self) -> bool:
        """Whether all of the prompt is indexed."""
        return len(self._history) >= self._num_prompt

    def index_more(self, num: int) -> None:
        """At most ``num`` more tokens of the prompt are indexed."""
        start = len(self._history)
        self._history.extend(self._prompt[start : min(start + num, self._num_prompt)])
        if self.is_ready:
            self._history.extend(self._answer)

    def accept(self, token: int) -> None:
        """See ``DraftSource``."""
        self._answer.append(token)
        if not self.is_ready:
            return
        history = self._history
        history.append(token)
        tokens = history.tokens
        if token == self.expected:
            self._next += 1
            self.run += 1
        else:
            place, run = history.latest(tokens[-LONGEST_MATCH:])
            if run < SHORTEST_MATCH:
                self.expected, self.run = NOTHING, 0
                return
            self._next, self.run = place, run
        self.expected = tokens[self._next]

    def propose(self, num: int) -> Sequence[int]:
        """See ``DraftSource``."""
        if self.expected == NOTHING:
            return ()
        found = self._history.tokens[self._next : self._next + num]
        # What has just been said once more, and again, will be said again: a line of dashes.
        return (found * (num // len(found) + 1))[:num]
