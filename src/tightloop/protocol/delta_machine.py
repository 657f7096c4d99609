"""What the streams of all dialects share: the order of deltas, and the item that is open.

``response_states`` decides which order is legal; a dialect writes the events that a row of it
implies. The way of a token is ``feed``: a look at the open item, one escape, one event.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from tightloop.protocol.deltas import (
    ContextCompacted,
    Delta,
    ReasoningDelta,
    TextDelta,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import LocalProtocolError
from tightloop.protocol.items import Item
from tightloop.protocol.response_states import SIGNAL_OF, TRANSITIONS, Fate, Signal, State

_encode = msgspec.json.Encoder().encode
_TEXTS: Final = (TextDelta, ReasoningDelta)


class Open(Protocol):
    """What is being said. ``pieces`` are the texts of its deltas so far."""

    pieces: list[str]

    @property
    def delta_type(self) -> type[Any]:
        """The kind of delta that goes on with it."""


T = TypeVar("T", bound=Open)


class DeltaMachine(ABC, Generic[T]):
    """Base of the outgoing streams. No I/O, no clock."""

    def __init__(self, response_id: str) -> None:
        self.response_id = response_id
        self.usage: Usage | None = None
        self.status = "queued"
        self._state = State.NEW
        self._open: T | None = None
        self._items: list[Item] = []
        self._num_calls = 0
        self._unsent: list[bytes] = []

    # ------------------------------------------------------------------ what can be asked

    @property
    def output_items(self) -> tuple[Item, ...]:
        """The items closed so far; after the end, the whole output."""
        return tuple(self._items)

    @property
    def num_calls(self) -> int:
        """Tool calls put out so far, an open one included."""
        return self._num_calls

    @property
    def is_started(self) -> bool:
        """Whether ``start`` was called."""
        return self._state is not State.NEW

    @property
    def is_finished(self) -> bool:
        """Whether the last event was made."""
        return self._state is State.ENDED

    # ------------------------------------------------------------------ what can be done

    def feed(self, deltas: Iterable[Delta]) -> list[bytes]:
        """The events for one batch of deltas, one for each non-empty delta.

        Raises ``LocalProtocolError`` for a delta out of order, and for ``Finished``, which goes
        to ``finish``. The events of the deltas before it are then not lost: ``fail``, the one
        call that is legal afterwards, returns them first.
        """
        events: list[bytes] = []
        try:
            for delta in deltas:
                item = self._open
                # The hot path is the rows whose fate is KEEP: text for the item that is open.
                if item is None or type(delta) is not item.delta_type:
                    item = self._apply(delta, events)
                    if item is None:
                        continue
                text = delta.text  # type: ignore[union-attr]
                if text:
                    event = self._delta_event(item, _encode(text))
                    item.pieces.append(text)
                    if event is not None:
                        events.append(event)
        except UnicodeEncodeError as error:
            self._break(events)
            raise LocalProtocolError(f"a delta holds half a character: {error}") from error
        except LocalProtocolError:
            self._break(events)
            raise
        return events

    # ------------------------------------------------------------------ what a dialect writes

    @abstractmethod
    def _delta_event(self, item: T, escaped: bytes) -> bytes | None:
        """The event for more text (a JSON string) of the open item; None for what is not shown."""

    @abstractmethod
    def _open_item(
        self, delta: TextDelta | ReasoningDelta | ToolCallStarted, events: list[bytes]
    ) -> T:
        """The item that ``delta`` begins, and its first events."""

    @abstractmethod
    def _close_item(self, item: T, fate: Fate, events: list[bytes]) -> None:
        """The item becomes part of the output, complete or cut; its last events."""

    @abstractmethod
    def _compact(self, delta: ContextCompacted, events: list[bytes]) -> None:
        """An item that comes whole becomes part of the output; its events."""

    # ------------------------------------------------------------------ the machine

    def _step(self, signal: Signal, events: list[bytes]) -> None:
        """Take the row for ``signal``: end the open item as it says, and change state."""
        step = TRANSITIONS[self._state].get(signal)
        if step is None:
            raise LocalProtocolError(
                f"{signal.name} is not allowed in state {self._state.name} "
                f"of response {self.response_id}"
            )
        item = self._open
        if item is not None and step.fate is not Fate.KEEP:
            self._open = None
            if step.fate is not Fate.DROP:
                self._close_item(item, step.fate, events)
        self._state = step.state

    def _apply(self, delta: Delta, events: list[bytes]) -> T | None:
        """Any delta that does not simply continue the open item.

        Returns the item just opened if the delta's text is to go into it.
        """
        signal = SIGNAL_OF.get(type(delta))
        if signal is None:
            raise LocalProtocolError(f"{type(delta).__name__} cannot be fed; see finish()")
        is_empty = isinstance(delta, _TEXTS) and not delta.text
        if is_empty and signal in TRANSITIONS[self._state]:
            return None  # an empty delta opens no item
        self._step(signal, events)
        if isinstance(delta, ToolCallStarted):
            self._num_calls += 1
            self._open = self._open_item(delta, events)
            return None
        if isinstance(delta, _TEXTS):
            self._open = self._open_item(delta, events)
        elif isinstance(delta, ContextCompacted):
            self._compact(delta, events)
        return self._open

    def _break(self, events: list[bytes]) -> None:
        """After a refused delta: keep what was made before it for ``fail``."""
        if State.NEW < self._state < State.BROKEN:
            self._unsent += events
            self._state = State.BROKEN
            self._open = None  # it will be dropped, and no text may go into it meanwhile

    def _end(self, signal: Signal, status: str, usage: Usage | None) -> list[bytes]:
        """Take the row that ends the response; what was unsent, and the open item's last events."""
        events = self._unsent.copy()
        self._step(signal, events)
        self._unsent.clear()
        self.status = status
        self.usage = usage
        return events
