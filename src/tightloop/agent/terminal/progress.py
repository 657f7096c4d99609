"""The agent's progress as short lines: commands, patches, messages. Nothing is redrawn."""

from typing import TextIO

from tightloop.agent.events import (
    CHECK,
    AgentMessage,
    CommandExecution,
    Compacted,
    ErrorItem,
    Event,
    FileChange,
    ImageView,
    ItemCompleted,
    ItemStarted,
    ItemUpdated,
    McpToolCall,
    Planned,
    Raced,
    Retrying,
    TodoList,
    TurnFailed,
)
from tightloop.agent.terminal.printable import printable
from tightloop.trace.clock import Clock, MonotonicClock

MAX_CHARS = 160
NUM_FAILURE_LINES = 4
_LETTERS = {"add": "A", "update": "M", "delete": "D"}


class ProgressPrinter:
    """A ``Listener`` that writes to a text stream, by custom stderr."""

    def __init__(self, stream: TextIO, clock: Clock | None = None) -> None:
        self._stream = stream
        self._clock = clock or MonotonicClock()
        self._started_ns: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Print what is worth a line."""
        if isinstance(event, ItemStarted):
            self._started_ns[event.item.id] = self._clock.now_ns()
            if isinstance(event.item, CommandExecution):
                self._line(f"$ {_one_line(event.item.command)}")
            elif isinstance(event.item, McpToolCall):
                self._line(f"{_one_line(event.item.server)}: {_one_line(event.item.tool)}")
            elif isinstance(event.item, TodoList):
                self._plan(event.item)
        elif isinstance(event, ItemUpdated) and isinstance(event.item, TodoList):
            self._plan(event.item)
        elif isinstance(event, ItemCompleted):
            self._completed(event)
        elif isinstance(event, Retrying):
            how = f"again in {event.wait_s:.1f} s" if event.wait_s else "going on"
            self._line(f"{how}: {_one_line(event.reason)}")
        elif isinstance(event, Compacted):
            kilo = f"{event.tokens_before / 1e3:.0f}k to {event.tokens_after / 1e3:.0f}k"
            self._line(f"compacted the conversation: about {kilo} tokens ({event.reason})")
        elif isinstance(event, Raced):
            self._raced(event)
        elif isinstance(event, Planned):
            self._line(f"plan {event.number} by {_one_line(event.model)}, {event.wall_s:.1f} s:")
            self._line(printable(event.text))
        elif isinstance(event, TurnFailed):
            self._line(f"failed: {_one_line(event.error.message)}")

    def _raced(self, event: Raced) -> None:
        """What was begun is told by how it ended; all of the winner's follows when it has won."""
        if event.state == "working" and not event.note.startswith("$ "):
            self._line(f"#{event.candidate} {_one_line(event.note)}")
        elif event.state not in ("working", "started"):
            note = f": {_one_line(event.note)}" if event.note else ""
            self._line(f"#{event.candidate} {event.state}{note}")

    def _completed(self, event: ItemCompleted) -> None:
        item = event.item
        if isinstance(item, CommandExecution):
            self._command(item)
        elif isinstance(item, FileChange) and item.status == "completed":
            files = ", ".join(f"{_LETTERS[c.kind]} {_one_line(c.path)}" for c in item.changes)
            self._line(f"patch: {files}")
        elif isinstance(item, FileChange):
            self._line(f"patch refused: {_one_line(item.message or '')}")
        elif isinstance(item, ErrorItem) and item.message.startswith(CHECK):
            self._line(f"check: {_one_line(item.message.removeprefix(CHECK))}")
        elif isinstance(item, ErrorItem):
            self._line(f"refused: {_one_line(item.message)}")
        elif isinstance(item, AgentMessage):
            self._line(printable(item.text))
        elif isinstance(item, McpToolCall):
            self._line(f"  {_one_line(_outcome(item))}")
        elif isinstance(item, ImageView):
            self._line(f"looked at {_one_line(item.path)}")

    def _plan(self, item: TodoList) -> None:
        for todo in item.items:
            self._line(f"  [{'x' if todo.completed else ' '}] {_one_line(todo.text)}")

    def _command(self, item: CommandExecution) -> None:
        start_ns = self._started_ns.pop(item.id, self._clock.now_ns())
        seconds = (self._clock.now_ns() - start_ns) / 1e9
        lines = [line for line in printable(item.aggregated_output).splitlines() if line.strip()]
        if item.status == "declined":
            self._line(f"  {_one_line(' '.join(lines))}")
            return
        code = "no exit" if item.exit_code is None else f"exit {item.exit_code}"
        last = f", {_one_line(lines[-1])}" if lines else ""
        how = f", {item.how}" if item.how else ""
        self._line(f"  {code}, {seconds:.2f} s{how}{last}")
        if item.status == "failed":
            for line in lines[-NUM_FAILURE_LINES:-1]:
                self._line(f"  | {_one_line(line)}")

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def _outcome(item: McpToolCall) -> str:
    """How a call ended: why not, or that it did."""
    if item.error is not None:
        return item.error.message
    if item.status != "failed":
        return "done"
    texts = (block.get("text") for block in item.result.content) if item.result is not None else ()
    return next((str(text) for text in texts if text), "failed")


def _one_line(text: str) -> str:
    first, _, rest = printable(text).strip().partition("\n")
    shortened = first[: MAX_CHARS - 4]
    return shortened + (" ..." if rest or len(first) > len(shortened) else "")
