"""What the agent says while it works: the event names and fields of ``codex exec --json``.

Order of one run::

    thread.started (turn.started (item.started | item.updated | item.completed)*
                    (turn.completed | turn.failed))+

Additions of ours are extra keys that a reader of the original format ignores: ``t`` (seconds
since the run began, on every line), ``output_delta`` and ``text_delta`` on ``item.updated``, and
``tightloop`` on ``turn.completed``, and the event ``turn.steer``. Source: openai/codex, ``codex-rs/exec/src/exec_events.rs``.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from tightloop.trace.speculation import Speculation


class CommandExecution(Struct, frozen=True, tag_field="type", tag="command_execution"):
    """A command. ``status`` is in_progress, completed, failed or declined.

    ``how`` says which path ran it (``spawn``, ``warm-pytest-l1``), an addition of ours; `` ahead``
    behind it means that it ran before it was asked for, in a copy of the workspace.
    """

    id: str
    command: str
    aggregated_output: str = ""
    exit_code: int | None = None
    status: str = "in_progress"
    how: str | None = None


class ChangedPath(Struct, frozen=True):
    """One file of a change; ``kind`` is add, delete or update."""

    path: str
    kind: str


class FileChange(Struct, frozen=True, tag_field="type", tag="file_change"):
    """A patch; ``status`` is completed or failed. ``message`` (ours) is what the model was told."""

    id: str
    changes: tuple[ChangedPath, ...] = ()
    status: str = "completed"
    message: str | None = None


class AgentMessage(Struct, frozen=True, tag_field="type", tag="agent_message"):
    """Text of the model for the user."""

    id: str
    text: str


class ReasoningItem(Struct, frozen=True, tag_field="type", tag="reasoning"):
    """The model's summary of its reasoning."""

    id: str
    text: str


CHECK = "[check by tightloop, not by the user]"
"""How the message of an ``ErrorItem`` begins that tells the model of a fresh run."""


class ErrorItem(Struct, frozen=True, tag_field="type", tag="error"):
    """Something went wrong without ending the turn."""

    id: str
    message: str


ThreadItem = CommandExecution | FileChange | AgentMessage | ReasoningItem | ErrorItem


class ErrorBody(Struct, frozen=True):
    """The object under ``error`` of ``turn.failed``."""

    message: str


class UsageBody(Struct, frozen=True):
    """Tokens of all responses of a turn together."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0


class SpeculationFigures(Struct, frozen=True):
    """What ran ahead of the model in a turn; defined in ``trace.speculation``. Milliseconds."""

    used: int
    wasted: int
    used_cpu_ms: float
    wasted_cpu_ms: float
    saved_ms: float

    @staticmethod
    def of(figures: Speculation) -> "SpeculationFigures":
        """The same in milliseconds."""
        return SpeculationFigures(
            figures.num_used,
            figures.num_wasted,
            round(figures.used_cpu_s * 1e3, 3),
            round(figures.wasted_cpu_s * 1e3, 3),
            round(figures.saved_s * 1e3, 3),
        )


class TurnFigures(Struct, frozen=True, omit_defaults=True):
    """Where the turn's time went. Seconds; ``ledger`` is filled by whoever builds ledgers.

    ``ttft_s`` and ``overhead_s`` are one figure per round trip, in order; None where unknown.
    """

    num_round_trips: int
    wall_s: float
    ttft_s: tuple[float | None, ...] = ()
    overhead_s: tuple[float | None, ...] = ()
    ledger: dict[str, float] | None = None
    speculation: SpeculationFigures | None = None


class ThreadStarted(Struct, frozen=True, tag_field="type", tag="thread.started"):
    """Always first. ``tightloop`` names model, backend, isolation and workspace kind."""

    thread_id: str
    tightloop: dict[str, Any] | None = None


class TurnStarted(Struct, frozen=True, tag_field="type", tag="turn.started"):
    """A user message is being worked on."""


class Steered(Struct, frozen=True, tag_field="type", tag="turn.steer"):
    """What became of a message for the running turn, an addition of ours; see ``steering``.

    ``step`` is the request of the turn that carries it.
    """

    id: str
    state: str
    text: str
    step: int | None = None


class ItemStarted(Struct, frozen=True, tag_field="type", tag="item.started"):
    """Something that takes time has begun."""

    item: ThreadItem


class ItemUpdated(Struct, frozen=True, tag_field="type", tag="item.updated"):
    """More of a running item: text of a message, or output of a command."""

    item: ThreadItem
    text_delta: str | None = None
    output_delta: str | None = None


class ItemCompleted(Struct, frozen=True, tag_field="type", tag="item.completed"):
    """An item is in its final state; some kinds have no other event."""

    item: ThreadItem


class TurnCompleted(Struct, frozen=True, tag_field="type", tag="turn.completed"):
    """The model has spoken its last word of the turn."""

    usage: UsageBody
    tightloop: TurnFigures | None = None


class TurnFailed(Struct, frozen=True, tag_field="type", tag="turn.failed"):
    """The turn ended without a last word."""

    error: ErrorBody


class ErrorEvent(Struct, frozen=True, tag_field="type", tag="error"):
    """The run cannot go on."""

    message: str


Event = (
    ThreadStarted
    | TurnStarted
    | Steered
    | ItemStarted
    | ItemUpdated
    | ItemCompleted
    | TurnCompleted
    | TurnFailed
    | ErrorEvent
)

Listener = Callable[[Event], None]
"""Called on the event loop with each event, in order; must be quick and must not raise."""


def as_json(event: Event, seconds: float | None = None) -> bytes:
    """One line of ``--json`` without its newline; fields without a value are left out."""
    body = _without_none(msgspec.to_builtins(event))
    if seconds is not None:
        body["t"] = round(seconds, 6)
    return msgspec.json.encode(body)


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    """``exit_code`` stays: readers of the original format expect null while a command runs."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in body.items()
        if value is not None or key == "exit_code"
    }
