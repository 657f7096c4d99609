"""What every source of drafts offers. No source can change an answer: drafts are only checked."""

from collections.abc import Sequence
from typing import Final, Protocol

NOTHING: Final = -1
"""No token."""

NUM_LEVELS: Final = 6
"""How far a source can be trusted: 0 has just found its place, 5 was right 16 times and more."""


class DraftSource(Protocol):
    """Follows one answer and says how it may go on.

    ``accept`` is called with every token of the answer, in order; ``expected`` and ``run`` tell
    what holds after the last one. Constant time a token, but for a bounded search when lost.
    """

    expected: int
    """The token that comes next if the source is right, ``NOTHING`` when it has lost its place."""
    run: int
    """Number of tokens before, in a row, that agree with the source's place."""

    def accept(self, token: int) -> None:
        """The answer went on with ``token``."""

    def propose(self, num: int) -> Sequence[int]:
        """At most ``num`` tokens that may come next, the first one ``expected``."""


def level_of(run: int) -> int:
    """The level of trust after ``run`` tokens in agreement."""
    return min(run.bit_length(), NUM_LEVELS - 1)
