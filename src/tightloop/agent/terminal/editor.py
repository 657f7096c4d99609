"""The editor at the bottom: keys in, text and rows out. No I/O.

Enter, Tab, Esc, Ctrl-C and Ctrl-D are left to the caller unless a menu of completions is open,
which takes the first three; Ctrl-D in a text deletes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

from tightloop.agent.terminal.history import History
from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.painter import Cursor
from tightloop.agent.terminal.styled import Line, Role, Span, line, one_line_safe, spans
from tightloop.agent.terminal.typed_text import TypedText
from tightloop.agent.terminal.width import cells, fitting
from tightloop.agent.terminal.wrapping import cut

MAX_MENU_ROWS = 6
_TAB = "    "
_RECALLING_KEYS = frozenset({"up", "down", "ctrl-p", "ctrl-n"})
_NEWLINE_KEYS = frozenset({"ctrl-j", "alt-enter", "shift-enter", "ctrl-enter"})


@dataclass(frozen=True, slots=True)
class Completion:
    """``text`` goes between ``start`` and the cursor.

    ``note`` stands beside it in the menu. ``ends``: with Enter it is also sent, like a command
    that needs no argument.
    """

    text: str
    start: int
    note: str = ""
    ends: bool = False


Complete = Callable[[str, int], Sequence[Completion]]
"""From text and cursor; called after each change of the text, so it must be quick."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Rows of the editor and the cursor among them."""

    lines: list[Line]
    cursor: Cursor


@dataclass(slots=True)
class _Menu:
    entries: Sequence[Completion] = ()
    selected: int = 0


@dataclass(slots=True)
class _VisualRow:
    """A row as it is laid out: ``start`` of its characters in the text, their columns."""

    start: int
    pieces: list[tuple[str, Role]] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    num_cells: int = 0


class Editor:
    """One input, with what was entered before it."""

    def __init__(
        self,
        history: History | None = None,
        complete: Complete | None = None,
        *,
        prompt: str = "> ",
        hint: str = "",
    ) -> None:
        """``hint`` is shown dimly while there is no text."""
        self.hint = hint
        self._typed = TypedText()
        self._history = history or History()
        self._complete = complete
        self._prompt = prompt
        self._menu = _Menu()
        self._back = 0
        self._draft = ""
        self._width = 80
        self._column: int | None = None
        self._top = 0
        self._actions = self._made_actions()

    @property
    def text(self) -> str:
        """All of it, pastes included."""
        return self._typed.text

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it, not even a space."""
        return not self._typed.raw

    @property
    def has_menu(self) -> bool:
        """Whether completions are offered: Tab, Enter and Esc then belong to them."""
        return bool(self._menu.entries)

    def set_text(self, text: str) -> None:
        """Another text, cursor at its end; Ctrl-_ brings the former one back."""
        self._typed.replace(text)
        self._back = 0
        self._close_menu()

    def clear(self) -> None:
        """Nothing in it."""
        self._typed.clear()
        self._back = 0
        self._close_menu()

    def take(self) -> str:
        """The text, which is in the history now and no longer here."""
        text = self.text
        self._history.add(text)
        self.clear()
        return text

    def press(self, key: Key) -> bool:
        """Whether the key was the editor's."""
        if key.name not in ("up", "down"):
            self._column = None
        if self._menu.entries and key.name in ("tab", "enter", "esc", "up", "down"):
            return self._press_in_menu(key.name)
        before = self._typed.raw
        if key.name == "text":
            self._typed.insert(key.text)
        elif key.name == "paste":
            self._typed.paste(key.text)
        elif key.name in _NEWLINE_KEYS:
            self._typed.insert("\n")
        elif key.name == "ctrl-d" and self.is_empty:
            return False
        elif key.name in self._actions:
            self._actions[key.name]()
        else:
            return False
        if self._typed.raw != before and key.name not in _RECALLING_KEYS:
            self._offer()
        else:
            self._close_menu()
        return True

    def layout(self, width: int, max_rows: int) -> Laid:
        """At most ``max_rows`` rows (at least one) around the cursor, and a menu below them."""
        self._width = width
        rows, cursor = self._rows(width)
        num_menu = min(len(self._menu.entries), MAX_MENU_ROWS, max(0, max_rows - 1))
        num_rows = max(1, min(len(rows), max_rows - num_menu))
        self._top = max(cursor.row - num_rows + 1, min(self._top, cursor.row, len(rows) - num_rows))
        seen = range(self._top, self._top + num_rows)
        lines = [self._drawn(index, rows[index]) for index in seen]
        if self.is_empty and self.hint:
            lines = [cut(lines[0] + line(self.hint, Role.DIM), width)]
        lines += self._menu_rows(width, num_menu)
        return Laid(lines, Cursor(cursor.row - self._top, min(cursor.column, max(0, width - 1))))

    # -- keys

    def _made_actions(self) -> dict[str, Callable[[], None]]:
        typed = self._typed
        move, delete = typed.move_to, typed.delete_to
        actions: dict[str, Callable[[], None]] = {
            "left": lambda: move(typed.left()),
            "right": lambda: move(typed.right()),
            "up": lambda: self._vertical(-1),
            "down": lambda: self._vertical(1),
            "home": lambda: move(typed.line_start()),
            "end": lambda: move(typed.line_end()),
            "ctrl-home": lambda: move(0),
            "ctrl-end": lambda: move(len(typed.raw)),
            "alt-b": lambda: move(typed.word_left()),
            "alt-f": lambda: move(typed.word_right()),
            "backspace": lambda: delete(typed.left()),
            "delete": lambda: delete(typed.right()),
            "ctrl-w": lambda: delete(typed.word_left(is_spaced=True), cuts=True),
            "alt-backspace": lambda: delete(typed.word_left(), cuts=True),
            "alt-d": lambda: delete(typed.word_right(), cuts=True),
            "ctrl-u": lambda: delete(typed.line_start(), cuts=True),
            "ctrl-k": self._cut_rest,
            "ctrl-y": typed.put_back,
            "ctrl-_": typed.undo,
            "ctrl-p": lambda: self._recall(1),
            "ctrl-n": lambda: self._recall(-1),
        }
        same = {
            "ctrl-b": "left",
            "ctrl-f": "right",
            "ctrl-a": "home",
            "ctrl-e": "end",
            "ctrl-left": "alt-b",
            "alt-left": "alt-b",
            "ctrl-right": "alt-f",
            "alt-right": "alt-f",
            "ctrl-d": "delete",
            "ctrl-delete": "alt-d",
            "alt-delete": "alt-d",
            "ctrl-backspace": "alt-backspace",
            "shift-backspace": "backspace",
        }
        return actions | {name: actions[other] for name, other in same.items()}

    def _cut_rest(self) -> None:
        end = self._typed.line_end()
        if end == self._typed.cursor:  # at the end of a line: the line break
            end = self._typed.right()
        self._typed.delete_to(end, cuts=True)

    def _vertical(self, step: int) -> None:
        """A row up or down; beyond the first and the last one through the history."""
        rows, cursor = self._rows(self._width)
        target = cursor.row + step
        if not 0 <= target < len(rows):
            self._recall(-step)
            return
        if self._column is None:
            self._column = cursor.column
        row = rows[target]
        at = sum(1 for column in row.columns if column < self._column)
        if target < len(rows) - 1 and rows[target + 1].start == row.start + at:
            at = max(0, at - 1)  # a wrapped row: its end is the start of the next one
        self._typed.move_to(row.start + at)

    def _recall(self, step: int) -> None:
        entries = self._history.entries
        back = self._back + step
        if not 0 <= back <= len(entries):
            return
        if self._back == 0:
            self._draft = self.text
        self._typed.replace(self._draft if back == 0 else entries[-back])
        self._back = back
        self._column = None

    # -- the menu

    def _offer(self) -> None:
        """After a change: which completions there are now."""
        found = self._complete(self._typed.raw, self._typed.cursor) if self._complete else ()
        is_done = len(found) == 1 and self._entered(found[0]) == found[0].text
        self._menu = _Menu(() if is_done else found)

    def _entered(self, completion: Completion) -> str:
        return self._typed.raw[completion.start : self._typed.cursor]

    def _press_in_menu(self, name: str) -> bool:
        menu = self._menu
        if name == "esc":
            self._close_menu()
            return True
        if name in ("up", "down"):
            step = 1 if name == "down" else -1
            menu.selected = (menu.selected + step) % len(menu.entries)
            return True
        chosen = menu.entries[menu.selected]
        is_complete = self._entered(chosen) == chosen.text
        self._typed.splice(chosen.start, chosen.text)
        self._close_menu()
        if name == "enter" and (chosen.ends or is_complete):
            return False
        self._offer()
        return True

    def _close_menu(self) -> None:
        self._menu = _Menu()

    def _menu_rows(self, width: int, num_rows: int) -> list[Line]:
        menu = self._menu
        first = max(0, min(menu.selected - num_rows + 1, len(menu.entries) - num_rows))
        shown = menu.entries[first : first + num_rows]
        broad = max([cells(one_line_safe(entry.text)) for entry in shown], default=0)
        margin = " " * len(self._prompt)
        rows = []
        for index, entry in enumerate(shown, first):
            text = one_line_safe(entry.text)
            role = Role.SELECTED if index == menu.selected else Role.PLAIN
            gap = " " * (broad - cells(text) + 2)
            row = spans(margin, (text, role))
            if entry.note:
                row += spans(gap, (entry.note, Role.DIM))
            rows.append(cut(row, width))
        return rows

    # -- rows

    def _drawn(self, index: int, row: _VisualRow) -> Line:
        margin = self._prompt if index == 0 else " " * len(self._prompt)
        grouped = groupby(row.pieces, key=lambda piece: piece[1])
        found = [Span("".join([text for text, _ in group]), role) for role, group in grouped]
        return Line((Span(margin, Role.ACCENT if index == 0 else Role.PLAIN), *found))

    def _rows(self, width: int) -> tuple[list[_VisualRow], Cursor]:
        """The text cut into rows, and where its cursor is. The last column is the cursor's."""
        margin = len(self._prompt)
        room = max(2, width - margin)
        rows = [_VisualRow(0)]
        at_cursor: Cursor | None = None
        for index, char in enumerate(self._typed.raw):
            row = rows[-1]
            piece, role = self._piece(char)
            piece = piece[: fitting(piece, room)]
            needed = 0 if char == "\n" else cells(piece)
            if row.num_cells + needed > room and row.num_cells:
                row = _VisualRow(index)
                rows.append(row)
            if index == self._typed.cursor:
                at_cursor = Cursor(len(rows) - 1, margin + row.num_cells)
            if char == "\n":
                rows.append(_VisualRow(index + 1))
                continue
            row.columns.append(margin + row.num_cells)
            row.pieces.append((piece, role))
            row.num_cells += needed
        if at_cursor is None:
            if rows[-1].num_cells >= room:
                rows.append(_VisualRow(len(self._typed.raw)))
            at_cursor = Cursor(len(rows) - 1, margin + rows[-1].num_cells)
        return rows, at_cursor

    def _piece(self, char: str) -> tuple[str, Role]:
        if char == "\t":
            return _TAB, Role.PLAIN
        pasted = self._typed.pasted(char)
        if pasted is None:
            return _shown(char), Role.PLAIN
        num_lines = pasted.count("\n") + 1
        size = f"{num_lines} lines" if num_lines > 1 else f"{len(pasted)} characters"
        return f"[pasted {size}]", Role.ACCENT


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    """A character as a terminal may have it; nothing for one without width of its own."""
    return char if char == "\n" else one_line_safe(char)
