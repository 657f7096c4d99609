"""Words of the chat's own in the scrollback: messages of the user, what was left unapplied."""

from collections.abc import Sequence

from tightloop.agent.terminal.styled import EMPTY, Line, Role, line, lines_of, spans
from tightloop.cli.chat.durations import counted

MARK = "> "


def message_lines(text: str) -> tuple[Line, ...]:
    """A message that begins a turn, with a row of air above."""
    return (EMPTY, *_marked(text))


def delivered_lines(text: str, step: int | None) -> tuple[Line, ...]:
    """A message that the model has got within a turn."""
    return (*_marked(text), line(f"  seen at step {step}" if step else "  seen", Role.DIM))


def left_lines(pending: Sequence[str]) -> list[Line]:
    """Of a conversation that goes on: what of its work the user's files do not hold."""
    if not pending:
        return []
    left = f"{counted(len(pending), 'file')} of before not applied: /apply, /diff or /undo"
    return [line(left, Role.WARNING)]


def _marked(text: str) -> list[Line]:
    rows = lines_of(text, Role.STRONG)
    indents = [MARK, *[" " * len(MARK)] * (len(rows) - 1)]
    return [spans((indent, Role.ACCENT)) + row for indent, row in zip(indents, rows, strict=True)]
