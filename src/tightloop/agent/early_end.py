"""Ending a response before its time, because a call in it can no longer succeed.

A patch of 4 kB that fails at its first chunk costs a thousand tokens more and then a round trip;
ended at once it costs the round trip. Where the server can end a response and go on from there
(``Session.end_early``), what it said stays where it is, also in the engine's memory, and only the
half call, which servers drop, goes out as input, made well-formed. Elsewhere the response is
dropped, and all that it said goes out again.
"""

from collections.abc import Sequence

from tightloop.agent.dispatch import Call
from tightloop.agent.portable import portable
from tightloop.agent.tools.interface import Hopeless
from tightloop.client.session import Session
from tightloop.protocol.items import Item

MAX_IN_A_ROW = 2
"""Responses ended early one after the other; a model whose patches always fail may then finish."""


class EarlyEnd:
    """Decides for one conversation; reused for all its responses.

    ``kept`` are items of a response that was ended early which its server has not kept: they have
    to go out with the next request.
    """

    def __init__(self, session: Session, min_tokens: float | None) -> None:
        self.kept: list[Item] = []
        self._session = session
        self._min_tokens = min_tokens
        self._done: list[Item] = []
        self._is_ending = False
        self._num_in_a_row = 0

    def begin(self) -> None:
        """Another response is asked for."""
        self.kept, self._done, self._is_ending = [], [], False

    def note(self, item: Item) -> None:
        """The response has completed an item."""
        self._done.append(item)

    def consider(self, hopeless: Hopeless | None) -> bool:
        """A call cannot succeed; None: nothing of the kind.

        True: drop the response now. False: read on, to its regular end or to the early one.
        """
        if hopeless is None or self._is_ending or self._min_tokens is None:
            return False
        if hopeless.num_more_tokens < self._min_tokens or self._num_in_a_row >= MAX_IN_A_ROW:
            return False
        self._is_ending = True
        return not self._session.end_early()

    def settle(self, cut: Sequence[Call], *, is_dropped: bool) -> None:
        """The response is over; ``cut`` are the calls given up in it."""
        self._num_in_a_row = self._num_in_a_row + 1 if self._is_ending else 0
        if is_dropped:
            self.kept = [*portable(self._done), *cut]
        elif self._is_ending and self._session.last is not None:
            known = {getattr(item, "call_id", None) for item in self._session.last.output_items}
            self.kept = [call for call in cut if call.call_id not in known]
