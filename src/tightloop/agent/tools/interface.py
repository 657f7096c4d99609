"""What a tool is: a name, a definition for the wire, and a way to run one call.

A tool never raises for what the model wrote: wrong arguments give a result with ``is_ok`` False
and a short text that says how to do better. Each tool is one file beside this one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tightloop.agent.events import ThreadItem
from tightloop.agent.patch.apply import StreamEvent
from tightloop.protocol.items import Part
from tightloop.sandbox.interface import Sandbox
from tightloop.trace.clock import Clock, MonotonicClock
from tightloop.trace.spans import Span


def _ignore(_text: str) -> None:
    """No one listens to a command's output."""


def _ignore_patch(_event: StreamEvent) -> None:
    """No one follows patches."""


def _ignore_paths(_paths: tuple[str, ...]) -> None:
    """No one wants to know what was changed."""


def _ignore_text(_piece: str, _keep: int) -> None:
    """No one wants to know a result early."""


def _as_it_is(text: str) -> str:
    """Nothing is a secret."""
    return text


def _no_remark(_arguments: str, _told: dict[str, int]) -> str:
    """Nothing is to be added to a call's output."""
    return ""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Where a call runs. ``item_id`` names it in events; ``on_output`` gets output as it comes.

    ``on_text`` gets the beginning of the result's text as it becomes known: a piece, and how many
    characters of what it got before still stand. What it got must be how the text begins.

    ``on_patch`` gets what becomes known of a patch while it streams, see ``patch.apply``: the first
    is a file's name, which is when its tests can be got ready. Paths are relative to the workspace.

    ``on_patch_text`` gets the text of that patch, piece by piece, for whoever watches.

    ``on_changed`` gets the paths that a patch has changed, once all of it is on disk.

    ``remark`` gives what is to be added to the output of a call with these arguments, such as rules that
    hold where it went; the dict is the conversation's own memory of what it was told.

    ``redact`` makes secrets unreadable in what a call comes to; output of commands is so already.

    ``shown_at`` is where the model and its commands see the workspace, if that is not ``workspace``: in a
    fork it is the path of the workspace that the fork was made of.

    ``gate`` decides whether a call may run; None lets all of them.
    """

    workspace: Path
    sandbox: Sandbox
    clock: Clock = field(default_factory=MonotonicClock)
    item_id: str = "item_0"
    on_output: Callable[[str], None] = _ignore
    on_text: Callable[[str, int], None] = _ignore_text
    on_patch: Callable[[StreamEvent], None] = _ignore_patch
    on_patch_text: Callable[[str], None] = _ignore
    on_changed: Callable[[tuple[str, ...]], None] = _ignore_paths
    redact: Callable[[str], str] = _as_it_is
    remark: Callable[[str, dict[str, int]], str] = _no_remark
    shown_at: Path | None = None
    gate: "Gate | None" = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to. ``text`` goes to the model, ``item`` is the event's final state.

    ``parts`` is the whole output when it holds more than text (images), else empty. With
    ``is_ongoing`` the item goes on after the call (None: as it was announced), and whoever made it
    completes it.
    """

    text: str
    is_ok: bool
    spans: tuple[Span, ...] = ()
    item: ThreadItem | None = None
    parts: tuple[Part, ...] = ()
    is_ongoing: bool = False


@dataclass(frozen=True, slots=True)
class Hopeless:
    """A call that cannot succeed any more, known while its arguments still arrive.

    ``arguments`` are those so far, closed so that they can stand in a conversation; ``result`` is
    what the call comes to; ``num_more_tokens`` is how many more it is expected to take.
    """

    arguments: str
    result: ToolResult
    num_more_tokens: float


class Tool(Protocol):
    """One ability of the agent."""

    name: str
    is_ordered: bool
    """Whether its calls must keep their order among all ordered calls, as anything that can
    write must. Other calls of one response run at the same time."""

    def definition(self) -> dict[str, Any]:
        """The entry of the request's ``tools``; the same bytes for a whole session."""

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        """The item to show while the call runs; None when only its end is shown."""

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Run one call. Cancelling ends what was started."""


@runtime_checkable
class OutsideTool(Tool, Protocol):
    """A tool that acts outside the sandbox, with the user's own rights or on another machine."""

    leaves_sandbox: bool
    """Whether a person should be asked; False when the user trusts it."""

    def describe(self, arguments: str) -> str:
        """The call on one line, for the question."""


class Gate(Protocol):
    """Who decides whether calls run; ``approval.gate.Gate`` is one."""

    waited_s: float
    """How long questions to a person were open, all together."""

    def is_open_for(self, tool: Tool) -> bool:
        """Whether no call of this tool can be stopped, so that none needs to be asked about."""

    async def admit(self, tool: Tool, arguments: str, context: ToolContext) -> str | None:
        """Why a call may not run, in words for the model; None when it may."""

    def finished(
        self, tool: Tool, arguments: str, result: ToolResult, context: ToolContext
    ) -> None:
        """A call has ended; must be quick."""


class PreparedCall(Protocol):
    """A call whose arguments are still arriving. ``run`` or ``close`` ends it."""

    def feed(self, delta: str) -> None:
        """More of the arguments. Must have no effect that can be seen."""

    def hopeless(self) -> Hopeless | None:
        """Whether the call can no longer succeed, judged by the world as it is now.

        Asked after each piece, so it must be cheap while nothing speaks against the call.
        """

    async def run(self, arguments: str) -> ToolResult:
        """The arguments are complete."""

    def close(self) -> None:
        """The call will not come. May be called twice."""


@runtime_checkable
class StreamingTool(Tool, Protocol):
    """A tool that can use its arguments before they are complete."""

    def prepare(self, context: ToolContext, *, is_custom: bool) -> PreparedCall:
        """A call has begun; ``is_custom`` tells free text from JSON arguments."""
