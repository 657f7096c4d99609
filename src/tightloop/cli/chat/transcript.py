"""What the agent does, as it does it: events in, rows for the scrollback and for the live region out.

Things that run at the same time (a command, a patch that streams in, another command) are *strands*, in
the order of their beginning. Only the first of them puts rows into the scrollback, so that what is
there is never torn; the others show themselves in the live region until it is their turn. What is in
the scrollback is forgotten here.
"""

import json
from collections import deque

from tightloop.agent import events as said
from tightloop.agent.terminal.styled import EMPTY, Line, Role, line, lines_of, spans
from tightloop.cli.chat.strands import Command, Patch, Rows, Spoken, Strand, Waiting
from tightloop.trace.clock import Clock

LETTERS = {"add": "A", "update": "M", "delete": "D"}
MAX_REASON_ROWS = 9
MAX_ARGUMENTS_CHARS = 200


class Transcript:
    """One chat's. ``hear`` each event; a frame takes ``settled`` rows, then ``live`` ones."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._strands: deque[Strand] = deque()
        self._spoken: Spoken | None = None
        self._commands: dict[str, Command] = {}
        self._patches: dict[str, Patch] = {}
        self._calls: dict[str, Waiting] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is being shown or waits to be."""
        return not self._strands

    def hear(self, event: said.Event) -> None:
        """Take one event."""
        if isinstance(event, said.ItemStarted):
            self._started(event.item)
        elif isinstance(event, said.ItemUpdated):
            self._updated(event)
        elif isinstance(event, said.ItemCompleted):
            self._completed(event.item)
        elif isinstance(event, said.Raced):
            state = "" if event.state == "working" else event.state
            words = " ".join(word for word in (state, event.note) if word)
            self._rows([line(f"#{event.candidate} {words}", Role.DIM)])
        elif isinstance(event, said.TurnFailed):
            self.end()
            message = event.error.message
            text = message if message == "interrupted" else f"failed: {message}"
            self._rows([line(text, Role.ERROR)])
        elif isinstance(event, said.TurnCompleted):
            self.end()

    def end(self) -> None:
        """Nothing runs any more: what never got its end is closed as it is."""
        self._end_message()
        running: list[Command | Patch] = [*self._commands.values(), *self._patches.values()]
        for strand in running:
            strand.end()
        for call in self._calls.values():
            call.complete([])
        self._commands.clear()
        self._patches.clear()
        self._calls.clear()

    def settled(self, width: int) -> list[Line]:
        """Rows for the scrollback."""
        rows: list[Line] = []
        while self._strands:
            first = self._strands[0]
            rows += first.take(width)
            if not first.is_done:
                break
            self._strands.popleft()
        return rows

    def live(self, width: int, max_rows: int) -> list[Line]:
        """Rows for the live region: of the oldest strands, as many as there is room for."""
        rows: list[Line] = []
        for strand in self._strands:
            if len(rows) >= max_rows:
                break
            rows += strand.live(width, max_rows - len(rows))
        return rows[:max_rows]

    # -- events

    def _started(self, item: said.ThreadItem) -> None:
        self._end_message()
        if isinstance(item, said.CommandExecution):
            self._begin_command(item)
        elif isinstance(item, said.McpToolCall):
            self._calls[item.id] = call = Waiting(_call_row(item))
            self._strands.append(call)
        elif isinstance(item, said.TodoList):
            self._plan(item)

    def _updated(self, event: said.ItemUpdated) -> None:
        item = event.item
        if event.text_delta is not None:
            self._message().feed(event.text_delta)
        elif event.output_delta is not None:
            if item.id in self._commands:
                self._commands[item.id].feed(event.output_delta)
        elif event.patch_delta is not None:
            self._patch(item.id).feed(event.patch_delta)
        elif isinstance(item, said.TodoList):
            self._plan(item)

    def _completed(self, item: said.ThreadItem) -> None:
        if isinstance(item, said.AgentMessage):
            self._message().complete(item.text)
            self._spoken = None
        elif isinstance(item, said.CommandExecution):
            if item.id not in self._commands:
                self._begin_command(item)
            self._commands.pop(item.id).complete(item)
        elif isinstance(item, said.FileChange):
            self._changed(item)
        elif isinstance(item, said.ReasoningItem):
            self._rows([EMPTY, *lines_of(item.text, Role.DIM)])
        elif isinstance(item, said.McpToolCall):
            self._called(item)
        elif isinstance(item, said.ImageView):
            self._rows([spans(("looks at ", Role.DIM), item.path)])
        elif isinstance(item, said.ErrorItem):
            self._refused(item)

    def _changed(self, item: said.FileChange) -> None:
        patch = self._patches.pop(item.id, None)
        if patch is not None:
            patch.end()
        if item.status != "completed":
            self._rows(_reason(f"patch refused: {item.message or ''}", Role.ERROR))
        elif patch is None:
            self._rows([spans((f"{LETTERS[c.kind]} ", Role.ACCENT), c.path) for c in item.changes])

    def _refused(self, item: said.ErrorItem) -> None:
        patch = self._patches.pop(item.id, None)
        if patch is not None:
            patch.end()
        if item.message.startswith(said.CHECK):
            check = item.message.removeprefix(said.CHECK).strip()
            self._rows(_reason(f"check: {check}", Role.WARNING))
        else:
            self._rows(_reason(item.message, Role.WARNING))

    def _called(self, item: said.McpToolCall) -> None:
        call = self._calls.pop(item.id, None)
        if call is None:
            call = Waiting(_call_row(item))
            self._strands.append(call)
        error = [] if item.error is None else _reason(item.error.message, Role.ERROR)
        call.complete([_call_row(item), *[line("  ") + row for row in error]])

    def _plan(self, item: said.TodoList) -> None:
        marks = {True: ("[x] ", Role.GOOD), False: ("[ ] ", Role.DIM)}
        self._rows([EMPTY, *[spans(marks[one.completed], one.text) for one in item.items]], 4)

    # -- strands

    def _rows(self, rows: list[Line], indent: int = 2) -> None:
        self._end_message()
        self._strands.append(Rows(rows, indent))

    def _begin_command(self, item: said.CommandExecution) -> None:
        self._end_message()
        self._commands[item.id] = command = Command(item.command, self._clock)
        self._strands.append(command)

    def _patch(self, item_id: str) -> Patch:
        if item_id not in self._patches:
            self._end_message()
            self._patches[item_id] = patch = Patch()
            self._strands.append(patch)
        return self._patches[item_id]

    def _message(self) -> Spoken:
        if self._spoken is None:
            self._spoken = Spoken()
            self._strands.append(self._spoken)
        return self._spoken

    def _end_message(self) -> None:
        if self._spoken is not None:
            self._spoken.end()
            self._spoken = None


def _reason(text: str, role: Role) -> list[Line]:
    """The first rows of what a tool or a check has said."""
    rows = lines_of(text, role)
    more = len(rows) - MAX_REASON_ROWS
    return [
        *rows[:MAX_REASON_ROWS],
        *([line(f"... {more} more rows", Role.DIM)] if more > 0 else []),
    ]


def _call_row(item: said.McpToolCall) -> Line:
    arguments = json.dumps(item.arguments, ensure_ascii=False)[:MAX_ARGUMENTS_CHARS]
    role = Role.ERROR if item.status == "failed" else Role.STRONG
    return spans((f"{item.server}.{item.tool} ", role), (arguments, Role.DIM))
