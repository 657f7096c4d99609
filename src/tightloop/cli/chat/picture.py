"""The live region: a function of what is going on now.

From the top: what streams in, messages that wait, the question, the editor, what goes on, the
status line. What is above the editor gives way when the terminal is small.
"""

from dataclasses import dataclass
from typing import Protocol

from tightloop.agent.terminal.painter import Cursor, Size
from tightloop.agent.terminal.styled import EMPTY, Line, Role, line, spans
from tightloop.agent.terminal.wrapping import cut, wrap
from tightloop.cli.chat.controller import Controller, Phase
from tightloop.cli.chat.durations import duration
from tightloop.cli.chat.mailbox import Mailbox
from tightloop.cli.chat.questions import Question
from tightloop.cli.chat.status import Gauges, activity_line, status_lines

LOW_ROWS = 16
"""Below this height the status line has one row, and nothing has air."""
MAX_MESSAGES = 4


class Laid(Protocol):
    """The editor's rows, and where the cursor is in them."""

    @property
    def lines(self) -> "list[Line]": ...
    @property
    def cursor(self) -> Cursor: ...


class Layout(Protocol):
    """The editor."""

    def layout(self, width: int, max_rows: int) -> Laid: ...


class Streams(Protocol):
    """``transcript.Transcript``."""

    def live(self, width: int, max_rows: int) -> list[Line]: ...


@dataclass(frozen=True, slots=True)
class Moment:
    """What the machine does not know: how long the present thing takes, and at which step it is."""

    seconds: float = 0.0
    step: str = ""


def picture(
    controller: Controller,
    editor: Layout,
    streams: Streams,
    gauges: Gauges,
    moment: Moment,
    size: Size,
) -> tuple[list[Line], Cursor]:
    """All rows, never more than the terminal has less one, and the cursor in them."""
    width, rows = size.columns, max(1, size.rows - 1)
    is_low = size.rows < LOW_ROWS
    laid = editor.layout(width, max(1, rows // 3))
    below = _below(controller, gauges, moment, width, is_low)
    room = rows - len(laid.lines)
    below = below[: max(0, room)]
    room -= len(below)
    asked = _question(controller.question, width, max(1, room // 2))[: max(0, room)]
    room -= len(asked)
    waiting = _waiting(controller.mailbox, controller.phase, width)[: max(0, room)]
    room -= len(waiting)
    above = streams.live(width, room) if room > 0 else []
    air = [EMPTY] if above and not is_low and room > len(above) else []
    rows_above = [*above, *air, *waiting, *asked]
    cursor = Cursor(len(rows_above) + laid.cursor.row, laid.cursor.column)
    return [*rows_above, *laid.lines, *below], cursor


def _below(
    controller: Controller, gauges: Gauges, moment: Moment, width: int, is_low: bool
) -> list[Line]:
    words, hint = _activity(controller, moment)
    found = activity_line(words, controller.hint or hint)
    activity = [cut(found, width)] if found.spans else []
    return [*activity, *status_lines(gauges.pieces(), width, 1 if is_low else 2)]


def _activity(controller: Controller, moment: Moment) -> tuple[str, str]:
    shown = duration(moment.seconds) if moment.seconds >= 1 else ""
    phase = controller.phase
    if phase is Phase.OPENING:
        return f"opening {moment.step} {shown}".rstrip().replace("  ", " "), ""
    if phase is Phase.RUNNING:
        return f"working {shown}".rstrip(), "Esc interrupts, Enter steers, Tab queues"
    if phase is Phase.STOPPING:
        return "stopping", "Esc takes waiting messages back" if controller.mailbox.waiting else ""
    if phase is Phase.WORKING:
        command = controller.commands.get(controller.job)
        hint = "Esc interrupts" if command is not None and command.is_long else ""
        return f"/{controller.job} {shown}".rstrip(), hint
    if phase is Phase.CLOSING:
        return "closing", ""
    if controller.mailbox.waiting:
        return "", "Enter sends the next, Esc takes all back"
    return "", ""


def _waiting(mailbox: Mailbox, phase: Phase, width: int) -> list[Line]:
    rows = [("will be seen at the next step", message.text) for message in mailbox.steering]
    held = "held" if mailbox.is_held else "queued"
    if phase is Phase.OPENING:
        held = "sent when open"
    rows += [(held, message.text) for message in mailbox.waiting]
    shown = rows if len(rows) <= MAX_MESSAGES else rows[: MAX_MESSAGES - 1]
    lines = [cut(spans((f"{what}: ", Role.DIM), text), width) for what, text in shown]
    if len(shown) < len(rows):
        lines.append(line(f"and {len(rows) - len(shown)} more", Role.DIM))
    return lines


def _question(question: Question | None, width: int, max_rows: int) -> list[Line]:
    if question is None:
        return []
    rows = wrap(line(question.text, Role.WARNING), width, 2)
    details = [row for detail in question.details for row in wrap(line(detail), width - 2, 2)]
    answers = wrap(line(question.answers, Role.STRONG), width, 2)
    room = max(0, max_rows - len(rows) - len(answers))
    if len(details) > room:
        left_out = len(details) - max(0, room - 1)
        details = [*details[: max(0, room - 1)], line(f"... {left_out} more rows", Role.DIM)][:room]
    indented = [spans("  ") + row for row in details]
    return [*rows, *indented, *answers]
