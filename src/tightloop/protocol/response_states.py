"""The states of a response being streamed: rules as a table, with the theory on top.

Theory. A response is in one of the states below, and at most one output item is open: its state
is the item's kind. Each signal (a delta, an end, a heartbeat) looks up one row of
``TRANSITIONS``, which says what becomes of the open item and what the next state is. A signal
without a row is the caller's mistake. ``response_stream`` raises ``LocalProtocolError`` for it
and, if it was a delta, goes to BROKEN, where only a failure can follow. Nothing outside this
table decides about order; the rest only writes the events that a row implies:

- ``Fate.KEEP``: the signal's text goes into the open item, as one delta event;
- ``Fate.COMPLETE``: the item gets its ``done`` events and is part of the output;
- ``Fate.INCOMPLETE``: likewise with status ``incomplete``. The wire allows that for the last item
  only, and only in a response that ends ``incomplete``; the table has it in no other row;
- ``Fate.DROP``: the item never gets a ``done`` event and is not part of the output. Clients start
  a tool at ``output_item.done``, so a call that was cancelled half-way must never get one. A call
  cut by the token limit does get one (as OpenAI's servers do it), with status ``incomplete`` and
  without ``arguments.done``; a client must look at the status before it starts the tool.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, auto
from typing import Any, Final, NamedTuple

from tightloop.protocol.deltas import (
    ContextCompacted,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)


class State(IntEnum):
    """Where a response is."""

    NEW = auto()
    PREWARM = auto()  # generate: false; nothing may be put out
    IDLE = auto()  # between items
    REASONING = auto()
    MESSAGE = auto()
    CALL = auto()
    BROKEN = auto()  # a delta was refused: only a failure can follow
    ENDED = auto()


class Signal(IntEnum):
    """What can happen to a response."""

    START = auto()
    START_PREWARM = auto()
    REASONING = auto()
    TEXT = auto()
    CALL_STARTED = auto()
    CALL_DELTA = auto()
    CALL_DONE = auto()
    COMPACTED = auto()  # an item that comes whole
    HEARTBEAT = auto()
    END = auto()  # the model stopped by itself
    CUT = auto()  # the token limit
    CANCEL = auto()  # someone asked
    INTERRUPT = auto()  # someone asked, and wants whole items only
    FAIL = auto()


class Fate(Enum):
    """What becomes of the open item."""

    NONE = "none"  # no item is open
    KEEP = "keep"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    DROP = "drop"


class Step(NamedTuple):
    """One row of the table."""

    state: State
    fate: Fate = Fate.NONE


TRANSITIONS: Final[Mapping[State, Mapping[Signal, Step]]] = {
    State.NEW: {
        Signal.START: Step(State.IDLE),
        Signal.START_PREWARM: Step(State.PREWARM),
    },
    State.PREWARM: {
        Signal.HEARTBEAT: Step(State.PREWARM),
        Signal.END: Step(State.ENDED),
        Signal.CANCEL: Step(State.ENDED),
        Signal.INTERRUPT: Step(State.ENDED),
        Signal.FAIL: Step(State.ENDED),
    },
    State.IDLE: {
        Signal.REASONING: Step(State.REASONING),
        Signal.TEXT: Step(State.MESSAGE),
        Signal.CALL_STARTED: Step(State.CALL),
        Signal.COMPACTED: Step(State.IDLE),
        Signal.HEARTBEAT: Step(State.IDLE),
        Signal.END: Step(State.ENDED),
        Signal.CUT: Step(State.ENDED),
        Signal.CANCEL: Step(State.ENDED),
        Signal.INTERRUPT: Step(State.ENDED),
        Signal.FAIL: Step(State.ENDED),
    },
    State.REASONING: {
        Signal.REASONING: Step(State.REASONING, Fate.KEEP),
        Signal.TEXT: Step(State.MESSAGE, Fate.COMPLETE),
        Signal.CALL_STARTED: Step(State.CALL, Fate.COMPLETE),
        Signal.COMPACTED: Step(State.IDLE, Fate.COMPLETE),
        Signal.HEARTBEAT: Step(State.REASONING, Fate.KEEP),
        Signal.END: Step(State.ENDED, Fate.COMPLETE),
        Signal.CUT: Step(State.ENDED, Fate.INCOMPLETE),
        Signal.CANCEL: Step(State.ENDED, Fate.INCOMPLETE),
        Signal.INTERRUPT: Step(State.ENDED, Fate.DROP),
        Signal.FAIL: Step(State.ENDED, Fate.DROP),
    },
    State.MESSAGE: {
        Signal.TEXT: Step(State.MESSAGE, Fate.KEEP),
        Signal.REASONING: Step(State.REASONING, Fate.COMPLETE),
        Signal.CALL_STARTED: Step(State.CALL, Fate.COMPLETE),
        Signal.COMPACTED: Step(State.IDLE, Fate.COMPLETE),
        Signal.HEARTBEAT: Step(State.MESSAGE, Fate.KEEP),
        Signal.END: Step(State.ENDED, Fate.COMPLETE),
        Signal.CUT: Step(State.ENDED, Fate.INCOMPLETE),
        Signal.CANCEL: Step(State.ENDED, Fate.INCOMPLETE),
        Signal.INTERRUPT: Step(State.ENDED, Fate.DROP),
        Signal.FAIL: Step(State.ENDED, Fate.DROP),
    },
    State.CALL: {
        Signal.CALL_DELTA: Step(State.CALL, Fate.KEEP),
        Signal.CALL_DONE: Step(State.IDLE, Fate.COMPLETE),
        Signal.HEARTBEAT: Step(State.CALL, Fate.KEEP),
        Signal.CUT: Step(State.ENDED, Fate.INCOMPLETE),
        Signal.CANCEL: Step(State.ENDED, Fate.DROP),
        Signal.INTERRUPT: Step(State.ENDED, Fate.DROP),
        Signal.FAIL: Step(State.ENDED, Fate.DROP),
    },
    State.BROKEN: {
        Signal.FAIL: Step(State.ENDED, Fate.DROP),
    },
    State.ENDED: {},
}

SIGNAL_OF: Final[Mapping[type[Any], Signal]] = {
    ReasoningDelta: Signal.REASONING,
    TextDelta: Signal.TEXT,
    ToolCallStarted: Signal.CALL_STARTED,
    ToolCallDelta: Signal.CALL_DELTA,
    ToolCallDone: Signal.CALL_DONE,
    ContextCompacted: Signal.COMPACTED,
}
"""The signal that a delta is. ``Finished`` is none: its reason says which end it is."""
