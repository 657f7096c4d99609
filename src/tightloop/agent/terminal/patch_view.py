"""A patch in the V4A envelope while it is written: files, then lines taken out and put in.

It reads lines only, so it shows whatever comes; whether a patch is right is for others to say.
"""

from tightloop.agent.patch.parser import ADD_FILE, BEGIN, DELETE_FILE, END, MOVE_TO, UPDATE_FILE
from tightloop.agent.terminal.printable import printable, printable_so_far
from tightloop.agent.terminal.styled import EMPTY, Line, Role, line, spans
from tightloop.agent.terminal.wrapping import cut

MARGIN = "  "
MAX_FILE_ROWS = 60
"""Rows of one file in the scrollback; of more the last few are shown, and how many were not."""
NUM_LAST_ROWS = 6
_TAB_CELLS = 4
_KINDS = {ADD_FILE: "A", UPDATE_FILE: "M", DELETE_FILE: "D"}
_HIDDEN = (BEGIN, END, "*** End of File", "*** Environment ID:")


class PatchView:
    """One patch. ``feed`` it as it comes; ``take`` gives each row once, ``live`` the others."""

    def __init__(self) -> None:
        self.num_files = 0
        self.num_added = 0
        self.num_removed = 0
        self._open: list[str] = []
        self._rows: list[Line] = []
        self._num_file_rows = 0
        self._kept: list[Line] = []

    @property
    def summary(self) -> Line:
        """How much it changes, so far."""
        files = "1 file" if self.num_files == 1 else f"{self.num_files} files"
        return spans(
            (f"{files}  ", Role.DIM),
            (f"+{self.num_added}", Role.ADDED),
            (" ", Role.DIM),
            (f"-{self.num_removed}", Role.REMOVED),
        )

    def feed(self, delta: str) -> None:
        """More of the patch."""
        head, newline, rest = delta.partition("\n")
        self._open.append(head)
        if not newline:
            return
        self._read("".join(self._open))
        *whole, last = rest.split("\n")
        for raw in whole:
            self._read(raw)
        self._open = [last]

    def finish(self) -> None:
        """Nothing follows: the next ``take`` gives the rest."""
        last = "".join(self._open)
        self._open = []
        if last:
            self._read(last)
        self._end_file()

    def take(self, width: int) -> list[Line]:
        """The rows that became complete, each as wide as the terminal at most."""
        rows, self._rows = self._rows, []
        return [cut(row, width) for row in rows]

    def live(self, width: int, max_rows: int = 1 << 30) -> list[Line]:
        """What is held back of a long file, and the line that is being written."""
        rows = list(self._kept)
        if self._left_out and rows:
            rows.insert(0, _left_out_row(self._left_out))
        last = "".join(self._open)
        self._open = [last]
        if last and not last.startswith("*"):
            rows.append(self._styled(printable_so_far(last)))
        return [cut(row, width) for row in rows[max(0, len(rows) - max_rows) :]]

    @property
    def _left_out(self) -> int:
        return max(0, self._num_file_rows - MAX_FILE_ROWS - len(self._kept))

    def _read(self, raw: str) -> None:
        raw = printable(raw.removesuffix("\r"))
        text = raw.strip()
        for marker, letter in _KINDS.items():
            if raw.startswith(marker):
                self._begin_file(letter, raw.removeprefix(marker).strip())
                return
        if raw.startswith(MOVE_TO):
            self._rows.append(spans((f"{MARGIN}to ", Role.DIM), raw.removeprefix(MOVE_TO).strip()))
        elif text.startswith(_HIDDEN) and raw[:1] not in ("+", "-"):
            return
        elif self.num_files:
            self._add(raw)

    def _begin_file(self, letter: str, path: str) -> None:
        self._end_file()
        if self.num_files:
            self._rows.append(EMPTY)
        self.num_files += 1
        self._rows.append(spans((f"{letter} ", Role.ACCENT), (path, Role.STRONG)))

    def _end_file(self) -> None:
        if self._left_out:
            self._rows.append(_left_out_row(self._left_out))
        self._rows += self._kept
        self._kept, self._num_file_rows = [], 0

    def _add(self, raw: str) -> None:
        self.num_added += raw.startswith("+")
        self.num_removed += raw.startswith("-")
        self._num_file_rows += 1
        row = self._styled(raw)
        if self._num_file_rows <= MAX_FILE_ROWS:
            self._rows.append(row)
        else:
            self._kept = [*self._kept[-(NUM_LAST_ROWS - 1) :], row]

    def _styled(self, raw: str) -> Line:
        mark = raw[:1]
        if raw.startswith("@@"):
            return line(MARGIN + raw, Role.DIM)
        text = f"{MARGIN}{mark or ' '} {raw[1:].expandtabs(_TAB_CELLS)}".rstrip()
        if mark == "+":
            return line(text, Role.ADDED)
        return line(text, Role.REMOVED if mark == "-" else Role.PLAIN)


def _left_out_row(number: int) -> Line:
    return line(f"{MARGIN}\u2026 {number} more row{'s' if number > 1 else ''}", Role.DIM)
