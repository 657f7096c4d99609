"""What a program may say to a run while it goes on: one JSON object a line, each with a receipt.

::

    {"op": "queue", "text": "..."}                 a message for a turn of its own, after those before
    {"op": "steer", "text": "...", "now": false}   a message for the running turn
    {"op": "interrupt"}                            the running turn ends here
    {"op": "withdraw", "message": "steer_0"}       take back what has not gone out
    {"op": "end"}                                  no more will come; as the end of the input

Each may carry an ``id``, which its receipt repeats. ``steer`` and ``interrupt`` may name the turn that
they are meant for (``expected_turn``), and are refused when another one or none is running.
"""

import msgspec
from msgspec import Struct

MAX_LINE_BYTES = 4 << 20


class _Op(Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", kw_only=True):
    id: str | None = None


class Queue(_Op, frozen=True, tag="queue", kw_only=True):
    """A message for a turn of its own."""

    text: str


class SteerTurn(_Op, frozen=True, tag="steer", kw_only=True):
    """A message for the running turn; ``now``: the response that is being made ends for it."""

    text: str
    now: bool = False
    expected_turn: str | None = None


class Interrupt(_Op, frozen=True, tag="interrupt", kw_only=True):
    """The running turn ends. ``drop``: what waits to be sent is dropped, too."""

    drop: bool = False
    expected_turn: str | None = None


class Withdraw(_Op, frozen=True, tag="withdraw", kw_only=True):
    """A steer by its id, or a queued message by the ``id`` of its line, is taken back."""

    message: str


class End(_Op, frozen=True, tag="end", kw_only=True):
    """Nothing more will come."""


Op = Queue | SteerTurn | Interrupt | Withdraw | End


class BadLine(ValueError):
    """A line that is no operation. ``op`` and ``id`` as far as they could be read."""

    def __init__(self, message: str, op: str = "", line_id: str | None = None) -> None:
        super().__init__(message)
        self.op = op
        self.line_id = line_id


class _Peek(Struct):
    op: str = ""
    id: str | None = None


_decoder: "msgspec.json.Decoder[Op]" = msgspec.json.Decoder(Op)
_peek = msgspec.json.Decoder(_Peek)


def decode(line: bytes) -> Op:
    """The operation in a line. Raises BadLine saying what is wrong with it."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"the line is longer than {MAX_LINE_BYTES} bytes")
    try:
        op = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        try:
            seen = _peek.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            seen = _Peek()
        raise BadLine(str(error), seen.op, seen.id) from error
    if isinstance(op, Queue | SteerTurn) and not op.text.strip():
        raise BadLine("text is empty", name_of(op), op.id)
    return op


def name_of(op: Op) -> str:
    """Its name on the wire."""
    return str(type(op).__struct_config__.tag)
