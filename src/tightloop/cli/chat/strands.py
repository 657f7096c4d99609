"""What runs side by side: one strand each for a message, a command, a patch, a call.

``take`` gives rows that will not change any more, each once; ``live`` those of now.
"""

from typing import Protocol

from tightloop.agent.events import CommandExecution
from tightloop.agent.terminal.command_view import CommandView
from tightloop.agent.terminal.markdown import MarkdownView
from tightloop.agent.terminal.patch_view import PatchView
from tightloop.agent.terminal.styled import EMPTY, Line
from tightloop.agent.terminal.wrapping import wrap
from tightloop.trace.clock import Clock


class Strand(Protocol):
    """One thing that is shown."""

    is_done: bool

    def take(self, width: int) -> list[Line]:
        """Rows for the scrollback."""

    def live(self, width: int, max_rows: int) -> list[Line]:
        """Rows for the live region."""


class Rows:
    """Rows that are known at once, wrapped."""

    is_done = True

    def __init__(self, rows: list[Line], indent: int = 0) -> None:
        self._rows = rows
        self._indent = indent

    def take(self, width: int) -> list[Line]:
        """See ``Strand``."""
        return [part for row in self._rows for part in wrap(row, width, self._indent)]

    def live(self, width: int, max_rows: int) -> list[Line]:
        """See ``Strand``."""
        return self.take(width)[:max_rows]


class Waiting:
    """A row of now, which becomes rows for good with ``complete``."""

    def __init__(self, row: Line) -> None:
        self.is_done = False
        self._row = row
        self._rows: list[Line] = []

    def complete(self, rows: list[Line]) -> None:
        """It ended, and came to this."""
        self._rows, self.is_done = rows, True

    def take(self, width: int) -> list[Line]:
        """See ``Strand``."""
        return [part for row in self._rows for part in wrap(row, width, 2)]

    def live(self, width: int, max_rows: int) -> list[Line]:
        """See ``Strand``."""
        return self.take(width)[:max_rows] if self.is_done else wrap(self._row, width, 2)[:max_rows]


class Spoken:
    """A message of the model, with a row of air before it."""

    def __init__(self) -> None:
        self.is_done = False
        self._view = MarkdownView()
        self._has_text = False
        self._has_air = False

    def feed(self, delta: str) -> None:
        """More of it."""
        self._has_text = self._has_text or bool(delta)
        self._view.feed(delta)

    def complete(self, text: str) -> None:
        """All of it, for one that did not come in pieces."""
        if not self._has_text:
            self.feed(text)
        self.end()

    def end(self) -> None:
        """Nothing follows."""
        if not self.is_done:
            self._view.finish()
            self.is_done = True

    def take(self, width: int) -> list[Line]:
        """See ``Strand``."""
        return self._with_air(self._view.take(width), is_shown=True)

    def live(self, width: int, max_rows: int) -> list[Line]:
        """See ``Strand``."""
        rows = self._with_air(self._view.live(width, max_rows), is_shown=False)
        return rows[max(0, len(rows) - max_rows) :]

    def _with_air(self, rows: list[Line], *, is_shown: bool) -> list[Line]:
        if self._has_air or not rows:
            return rows
        self._has_air = is_shown
        return [EMPTY, *rows]


class Command:
    """A command, while it runs and when it has ended."""

    def __init__(self, command: str, clock: Clock) -> None:
        self.is_done = False
        self._view = CommandView(command, clock)
        self._has_output = False

    def feed(self, output: str) -> None:
        """More output."""
        self._has_output = self._has_output or bool(output)
        self._view.feed(output)

    def complete(self, item: CommandExecution) -> None:
        """It ended so; output of one that did not come in pieces is taken from there."""
        if not self._has_output:
            self._view.feed(item.aggregated_output)
        self._view.finish(item.exit_code, how=item.how or "", status=item.status)
        self.is_done = True

    def end(self) -> None:
        """Nobody will say how it ended."""
        if not self.is_done:
            self._view.finish(None, status="failed")
            self.is_done = True

    def take(self, width: int) -> list[Line]:
        """See ``Strand``."""
        return self._view.take(width)

    def live(self, width: int, max_rows: int) -> list[Line]:
        """See ``Strand``."""
        return self._view.live(width, max_rows)


class Patch:
    """A patch as it is written."""

    def __init__(self) -> None:
        self.is_done = False
        self._view = PatchView()

    def feed(self, delta: str) -> None:
        """More of it."""
        self._view.feed(delta)

    def end(self) -> None:
        """Nothing follows."""
        if not self.is_done:
            self._view.finish()
            self.is_done = True

    def take(self, width: int) -> list[Line]:
        """See ``Strand``."""
        return self._view.take(width)

    def live(self, width: int, max_rows: int) -> list[Line]:
        """See ``Strand``."""
        return self._view.live(width, max_rows)
