"""What the agent says while it works: the event names and fields of ``codex exec --json``.

Order of one run::

    thread.started (turn.started (item.started | item.updated | item.completed)*
                    (turn.completed | turn.failed))+

Additions of ours are extra keys that a reader of the original format ignores: ``t`` (seconds
since the run began, on every line), ``output_delta``, ``text_delta`` and ``patch_delta`` on ``item.updated``, and
``tightloop`` on ``turn.completed``, and the events ``turn.steer``, ``turn.race`` and ``turn.plan``. Source: openai/codex, ``codex-rs/exec/src/exec_events.rs``.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from tightloop.trace.check_runs import CheckFigures
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


class ErrorBody(Struct, frozen=True):
    """The object under ``error`` of ``turn.failed`` and of a failed ``mcp_tool_call``."""

    message: str


class McpResult(Struct, frozen=True):
    """What a tool of an MCP server gave back: content blocks as the protocol writes them."""

    content: tuple[dict[str, Any], ...] = ()
    structured_content: Any = None


class McpToolCall(Struct, frozen=True, tag_field="type", tag="mcp_tool_call"):
    """A call of an MCP server's tool. ``status`` is in_progress, completed or failed."""

    id: str
    server: str
    tool: str
    arguments: Any = None
    result: McpResult | None = None
    error: ErrorBody | None = None
    status: str = "in_progress"


class Todo(Struct, frozen=True):
    """One step of a plan."""

    text: str
    completed: bool = False


class TodoList(Struct, frozen=True, tag_field="type", tag="todo_list"):
    """The model's plan: started when it is made, updated, completed when the turn ends."""

    id: str
    items: tuple[Todo, ...] = ()


class ImageView(Struct, frozen=True, tag_field="type", tag="image_view"):
    """The model looks at an image of the workspace, an addition of ours."""

    id: str
    path: str


ThreadItem = (
    CommandExecution
    | FileChange
    | AgentMessage
    | ReasoningItem
    | McpToolCall
    | TodoList
    | ImageView
    | ErrorItem
)


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


class ModelFigures(Struct, frozen=True):
    """What one of several models of a turn took. ``role`` is ``planner`` or ``executor``; ``wall_s``
    is the time in which a response of it was awaited, those of several candidates added up."""

    role: str
    model: str
    num_responses: int
    wall_s: float
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


class CandidateFigures(Struct, frozen=True):
    """One candidate of a race. ``outcome``: ``won``; ``green``, later than the winner; ``red``, its last
    word came and the test command fails; ``untested``, no test command was run; ``stopped`` by a limit;
    ``failed`` with its model, sandbox or connection; ``cancelled`` because another one won.

    ``cut_deltas`` are output events of a response that was cut off: about so many tokens more than
    ``output_tokens``, which nobody has counted. ``cpu_s`` is processor time of its commands and checks.
    """

    number: int
    outcome: str
    wall_s: float
    num_responses: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cut_deltas: int
    cpu_s: float
    note: str = ""

    @property
    def new_tokens(self) -> int:
        """What a model had to read or to write for it: all but what it found in a cache."""
        read = self.input_tokens - self.cached_input_tokens
        return read + self.output_tokens + self.cut_deltas


class RaceFigures(Struct, frozen=True):
    """What a race cost; ``mode`` is single, retry or race. ``winner`` is a candidate's number.

    ``green_s`` is from the user's message to the first confirmed pass of ``command``. Wasted is what
    candidates other than ``taken``, the one whose work was kept, have spent. Tokens are new ones.
    """

    mode: str
    num_wanted: int
    num_started: int
    num_cancelled: int
    winner: int | None
    taken: int | None
    command: str | None
    green_s: float | None
    used_tokens: int
    wasted_tokens: int
    used_cpu_s: float
    wasted_cpu_s: float
    candidates: tuple[CandidateFigures, ...] = ()


class TurnFigures(Struct, frozen=True, omit_defaults=True):
    """Where the turn's time went. Seconds; ``ledger`` is filled by whoever builds ledgers.

    ``ttft_s`` and ``overhead_s`` are one figure per round trip, in order; None where unknown.
    ``num_retries`` requests were made again or read on elsewhere, which took ``lost_s``.
    """

    num_round_trips: int
    wall_s: float
    ttft_s: tuple[float | None, ...] = ()
    overhead_s: tuple[float | None, ...] = ()
    ledger: dict[str, float] | None = None
    speculation: SpeculationFigures | None = None
    num_retries: int = 0
    lost_s: float = 0.0
    checks: CheckFigures | None = None
    race: RaceFigures | None = None
    models: tuple[ModelFigures, ...] = ()


class ThreadStarted(Struct, frozen=True, tag_field="type", tag="thread.started"):
    """Always first. ``tightloop`` names model, backend, isolation and workspace kind."""

    thread_id: str
    tightloop: dict[str, Any] | None = None


class TurnStarted(Struct, frozen=True, tag_field="type", tag="turn.started"):
    """A user message is being worked on. ``turn_id`` is an addition of ours."""

    turn_id: str | None = None


class Steered(Struct, frozen=True, tag_field="type", tag="turn.steer"):
    """What became of a message for the running turn, an addition of ours; see ``steering``.

    ``step`` is the request of the turn that carries it.
    """

    id: str
    state: str
    text: str
    step: int | None = None


class Raced(Struct, frozen=True, tag_field="type", tag="turn.race"):
    """What a candidate of a race is doing, an addition of ours. ``state``: started, working, green,
    won, or an outcome of ``CandidateFigures``. ``note`` is a line for a person.

    Its items are told once it has won, and those of the others never.
    """

    candidate: int
    state: str
    note: str = ""


class Retrying(Struct, frozen=True, tag_field="type", tag="turn.retry"):
    """A response could not be had and is asked for again in ``wait_s`` seconds, an addition of ours.

    ``attempt`` of ``max_attempts`` since the last response that ended; 0 when it goes on at once, over
    another connection, where it was.
    """

    reason: str
    wait_s: float
    attempt: int
    max_attempts: int


class Compacted(Struct, frozen=True, tag_field="type", tag="thread.compacted"):
    """The conversation was made shorter, an addition of ours. Tokens are partly estimated.

    ``reason`` is ``asked`` (by the user), ``window`` (it came near to the model's context window) or
    ``overflow`` (it no longer fitted).
    """

    reason: str
    tokens_before: int
    tokens_after: int
    num_items_before: int
    num_items_after: int


class Planned(Struct, frozen=True, tag_field="type", tag="turn.plan"):
    """A planner has been asked, an addition of ours: its ``number``-th plan of the turn, or why there
    is none. ``wall_s`` is how long that took."""

    model: str
    number: int
    text: str
    wall_s: float


class ItemStarted(Struct, frozen=True, tag_field="type", tag="item.started"):
    """Something that takes time has begun."""

    item: ThreadItem


class ItemUpdated(Struct, frozen=True, tag_field="type", tag="item.updated"):
    """More of a running item: text of a message, output of a command, or a patch as it is written.

    ``offset`` is how many characters came before in pieces of the same item.
    A patch has no ``item.started``; it is parsed and placed meanwhile, and is on disk with its end.
    """

    item: ThreadItem
    text_delta: str | None = None
    output_delta: str | None = None
    patch_delta: str | None = None
    offset: int | None = None


class ItemCompleted(Struct, frozen=True, tag_field="type", tag="item.completed"):
    """An item is in its final state; some kinds have no other event."""

    item: ThreadItem


class TurnCompleted(Struct, frozen=True, tag_field="type", tag="turn.completed"):
    """The model has spoken its last word of the turn."""

    usage: UsageBody
    tightloop: TurnFigures | None = None
    turn_id: str | None = None


class TurnFailed(Struct, frozen=True, tag_field="type", tag="turn.failed"):
    """The turn ended without a last word, or a race without a winner; ``tightloop`` is an addition of ours."""

    error: ErrorBody
    tightloop: TurnFigures | None = None
    turn_id: str | None = None


class ErrorEvent(Struct, frozen=True, tag_field="type", tag="error"):
    """The run cannot go on."""

    message: str


class InputAccepted(Struct, frozen=True, tag_field="type", tag="input.accepted"):
    """The receipt of a line on standard input, an addition of ours; see ``harness.inputs``.

    ``id`` is the line's own. ``turn_id`` is the turn it is about; ``steer_id`` names a steer in
    ``turn.steer``; ``position`` is how many messages are queued before this one.
    """

    op: str
    id: str | None = None
    turn_id: str | None = None
    steer_id: str | None = None
    position: int | None = None


class InputRefused(Struct, frozen=True, tag_field="type", tag="input.refused"):
    """A line on standard input had no effect; ``message`` says why."""

    op: str
    message: str
    id: str | None = None


Event = (
    ThreadStarted
    | TurnStarted
    | Steered
    | Retrying
    | Compacted
    | Raced
    | Planned
    | ItemStarted
    | ItemUpdated
    | ItemCompleted
    | TurnCompleted
    | TurnFailed
    | ErrorEvent
    | InputAccepted
    | InputRefused
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
        key: _without_none(value) if isinstance(value, dict) and key not in _FOREIGN else value
        for key, value in body.items()
        if value is not None or key == "exit_code"
    }


_FOREIGN = frozenset({"arguments", "structured_content"})
"""Keys of values that are not ours to change."""
