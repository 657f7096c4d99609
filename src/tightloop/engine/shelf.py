"""What is kept between responses: in the context, or saved outside it when it had to make way.

Warm state is filed under response ids. When it takes too much, what was used longest ago makes way:
copied to memory if there is room, else forgotten. Saved state that its conversation goes on from is
restored, which takes a fraction of the time of reading it again. Losing either costs time only.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tightloop.engine.cell_count import CellCount
from tightloop.engine.interface import EngineError

SAVED_BYTES: Final = 256 << 20
"""Memory for saved state unless said otherwise."""

MIN_SAVED_TOKENS: Final = 64
"""Fewer are read again in about the time that restoring takes."""

MAX_SAVED: Final = 256
"""Saved states at most: each is compared with every new prompt."""

_NO_ROOM: Final = ("server_is_overloaded", "context_length_exceeded")


class WarmState(Protocol):
    """Something that holds sequences while nobody is using it."""

    @property
    def sequences(self) -> Sequence[int]:
        """Every sequence held in the context."""

    def release(self) -> None:
        """Close every sequence held."""

    def freeze(self) -> int:
        """Copy what is held to memory, and close the sequences; the bytes that takes.

        0 when this kind of state is not worth it, or cannot be: then nothing has changed.
        """

    def thaw(self) -> None:
        """Hold what was frozen again. ``EngineError`` without room: it is still frozen then."""


@dataclass(frozen=True, slots=True)
class WarmStats:
    """What is kept now, and how often what has happened since the start.

    ``bytes_warm`` is memory of the context that only kept state uses, tokens shared by forks counted
    once. ``num_evicted`` counts states that had to leave the context, ``num_saved`` those of them
    that were copied to memory, ``num_restored`` those that came back.
    """

    num_warm: int = 0
    bytes_warm: int = 0
    num_frozen: int = 0
    bytes_saved: int = 0
    num_evicted: int = 0
    num_saved: int = 0
    num_restored: int = 0


class Shelf:
    """Filed state, most recently used last.

    ``num_bytes`` limits what it takes in the context (None: as much as the context has room for),
    ``saved_bytes`` what is saved outside it.
    """

    def __init__(
        self,
        cells: CellCount,
        num_tokens: Callable[[int], int],
        bytes_per_token: int,
        *,
        num_bytes: int | None = None,
        saved_bytes: int = SAVED_BYTES,
    ) -> None:
        self._cells = cells
        self._num_tokens = num_tokens
        self._bytes_per_token = bytes_per_token
        self._num_bytes = num_bytes
        self._saved_bytes = saved_bytes
        self._warm: OrderedDict[str, WarmState] = OrderedDict()
        self._frozen: OrderedDict[str, tuple[WarmState, int]] = OrderedDict()
        self._continued: set[str] = set()
        self._bytes_saved = 0
        self._num_evicted = self._num_saved = self._num_restored = 0

    def stats(self) -> WarmStats:
        """Any thread may ask; the figures may then be of slightly different moments."""
        return WarmStats(
            num_warm=len(self._warm),
            bytes_warm=self._bytes_warm(),
            num_frozen=len(self._frozen),
            bytes_saved=self._bytes_saved,
            num_evicted=self._num_evicted,
            num_saved=self._num_saved,
            num_restored=self._num_restored,
        )

    def file(self, key: str, state: WarmState) -> None:
        """``state`` is kept under ``key`` as the most recently used; one filed there before goes.

        If there is too much in the context then, what was used longest ago makes way.
        """
        self.drop(key)
        self._warm[key] = state
        self._keep_to_limit(0)

    def peek(self, key: str) -> WarmState | None:
        """What is filed under ``key``, warm or frozen, left there."""
        frozen = self._frozen.get(key)
        return frozen[0] if frozen is not None else self._warm.get(key)

    def take(self, key: str) -> WarmState | None:
        """What is filed under ``key``, now the caller's: it cannot be evicted any more.

        None also when it was frozen and there is no room for it.
        """
        if key in self._frozen and not self.thaw(self._frozen[key][0]):
            return None
        self._continued.discard(key)
        return self._warm.pop(key, None)

    def demote(self, key: str) -> None:
        """What is filed under ``key`` is the first to go, and not worth saving.

        Its continuation, which holds what it holds, is filed elsewhere.
        """
        self._forget_frozen(key)
        if key in self._warm:
            self._warm.move_to_end(key, last=False)
            self._continued.add(key)

    def drop(self, key: str) -> None:
        """Nothing is filed under ``key``."""
        self._forget_frozen(key)
        state = self.take(key)
        if state is not None:
            state.release()

    def drop_all(self) -> None:
        """Nothing is filed."""
        for key in [*self._warm, *self._frozen]:
            self.drop(key)

    def keep_newest(self, num: int) -> None:
        """At most ``num`` states stay warm; the least recently used go."""
        while len(self._warm) > num:
            self.evict()

    def newest_first(self) -> list[tuple[str, WarmState]]:
        """Everything filed: what is warm, then what is frozen, each most recently used first."""
        frozen = [(key, state) for key, (state, _) in reversed(self._frozen.items())]
        return [*reversed(self._warm.items()), *frozen]

    def evict(self, keep: int | None = None) -> bool:
        """The warm state unused for longest leaves the context; False when there is none.

        State that holds the sequence ``keep`` stays.
        """
        key = next(
            (
                key
                for key, state in self._warm.items()
                if keep is None or keep not in state.sequences
            ),
            None,
        )
        if key is None:
            return False
        state = self._warm[key]
        self._num_evicted += 1
        del self._warm[key]
        is_continued = key in self._continued
        self._continued.discard(key)
        if is_continued or not self._freeze(key, state):
            state.release()
        return True

    def _freeze(self, key: str, state: WarmState) -> bool:
        num_tokens = sum(map(self._num_tokens, state.sequences))
        expected = num_tokens * self._bytes_per_token
        if num_tokens < MIN_SAVED_TOKENS or expected > self._saved_bytes:
            return False
        try:
            size = state.freeze()
        except EngineError:
            return False
        if not size:
            return False
        self._frozen[key] = state, size
        self._bytes_saved += size
        self._num_saved += 1
        while self._bytes_saved > self._saved_bytes or len(self._frozen) > MAX_SAVED:
            self._forget_frozen(next(iter(self._frozen)))
        return True

    def _forget_frozen(self, key: str) -> None:
        _, size = self._frozen.pop(key, (None, 0))
        self._bytes_saved -= size

    def thaw(self, state: WarmState) -> bool:
        """Whether filed ``state`` is in the context now; restored as the most recently used.

        Others make way. False when there is no room all the same: then it is forgotten.
        """
        found = next((key for key, (one, _) in self._frozen.items() if one is state), None)
        if found is None:
            return True
        self._forget_frozen(found)  # so that what makes way cannot push it out
        while True:
            try:
                state.thaw()
            except EngineError as error:
                if error.code not in _NO_ROOM or not self.evict():
                    return False
            else:
                break
        self._warm[found] = state
        self._num_restored += 1
        self._keep_to_limit(1)
        return True

    def _keep_to_limit(self, num_spared: int) -> None:
        """The oldest make way until the limit is kept, or only ``num_spared`` are left."""
        if self._num_bytes is not None:
            while len(self._warm) > num_spared and self._bytes_warm() > self._num_bytes:
                self.evict()

    def _bytes_warm(self) -> int:
        return self._bytes_per_token * sum(
            self._own_tokens(number)
            for state in list(self._warm.values())
            for number in state.sequences
        )

    def _own_tokens(self, sequence: int) -> int:
        try:
            return self._cells.own(sequence)
        except EngineError:  # closed meanwhile, by the thread that it belongs to
            return 0
