"""Which of the waiting responses goes on next when few can share the machine.

Interactive ones before background ones, but for every ninth place that both wait for; then a session
that has the fewest responses running, so that one with many forks starves nobody; then the session
that had its turn longest ago; then order of arrival.

What goes on from a response that is still being made, which only a prewarm can be, waits for it: both would
read the same conversation at once, and neither would find what the other has read.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.run import Run

MAX_OVERTAKES: Final = 8
"""Interactive responses that may go on before background ones which wait; then one of those does. Under
a load that never ends they get a ninth of the places, instead of none."""


def session_of(request: GenerationRequest) -> str:
    """What requests of one session have in common: the client's cache key, or the root response.

    A conversation without a key is one session with all its forks.
    """
    if request.cache_key is not None:
        return request.cache_key
    if request.parent is None:
        return request.response_id
    node = request.parent
    while node.parent is not None:
        node = node.parent
    return node.id


class Admission:
    """The waiting room before ``max_running`` places.

    Background responses leave one place free for interactive ones, where there are two or more. Open
    requests count as background: nobody waits for what they read early.
    """

    def __init__(self, max_running: int) -> None:
        self.waiting: list[Run] = []
        self._max_running = max_running
        self._max_background = max(1, max_running - 1)
        self._turns: dict[str, int] = {}
        self._num_turns = 0
        self._num_overtakes = 0

    def admit(self, running: Sequence[Run]) -> list[Run]:
        """Who goes on now beside ``running``; no longer waiting."""
        admitted: list[Run] = []
        if not self.waiting:
            return admitted
        num_background = sum(_is_patient(run) for run in running)
        held = Counter(_session(run) for run in running)
        ready = self._ready(running)
        while ready and len(running) + len(admitted) < self._max_running:
            is_due = self._num_overtakes >= MAX_OVERTAKES and num_background < self._max_background
            # min keeps the first of equals: the one that came first
            run = min(ready, key=partial(self._rank, held, is_due))
            if _is_patient(run):
                if num_background >= self._max_background:
                    break  # then only background ones wait
                num_background += 1
            ready.remove(run)
            self.waiting.remove(run)
            self._count_overtake(run)
            admitted.append(run)
            held[_session(run)] += 1
            self._num_turns += 1
            self._turns[_session(run)] = self._num_turns
        if not self.waiting:  # nobody has to be fair to anybody
            self._turns.clear()
        return admitted

    def _ready(self, running: Sequence[Run]) -> list[Run]:
        unfinished = {run.request.response_id for run in (*running, *self.waiting)}
        return [
            run
            for run in self.waiting
            if run.request.parent is None or run.request.parent.id not in unfinished
        ]

    def _rank(self, held: Counter[str], is_due: bool, run: Run) -> tuple[int, int, int]:
        session = _session(run)
        kind = 0 if is_due and run.request.is_background else 1 + _is_patient(run)
        return kind, held[session], self._turns.get(session, 0)

    def _count_overtake(self, run: Run) -> None:
        """``run`` goes on; background ones that wait longer for it are counted up."""
        if run.request.is_background or not any(r.request.is_background for r in self.waiting):
            self._num_overtakes = 0
        else:
            self._num_overtakes += 1

    def take_cancelled(self) -> list[Run]:
        """Those that nobody waits for any more; they are not waiting now."""
        cancelled = [run for run in self.waiting if run.is_cancelled]
        for run in cancelled:
            self.waiting.remove(run)
        return cancelled


def _is_patient(run: Run) -> bool:
    return run.request.is_background or run.request.is_open


def _session(run: Run) -> str:
    # Found once, and only when somebody waits: it is a walk to the conversation's root.
    if run.session is None:
        run.session = session_of(run.request)
    return run.session
