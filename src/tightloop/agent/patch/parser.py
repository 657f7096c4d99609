"""The V4A envelope, line by line: text in any pieces in, events out, a ``Patch`` at the end.

::

    NOT_STARTED -> BETWEEN -> ADDING | UPDATING -> BETWEEN ... -> ENDED

Batch and streamed input share this one machine, so a cut can never change the result. Inside a
chunk a leading ``+``, ``-`` or space wins over every marker. The one exception needs a look
ahead: `` *** End Patch`` with a space before it ends the patch when it is the last line of the
text and is content otherwise; such a line is held back until the next line decides.

Leniencies (all seen in the wild): padded begin, end and file header lines; a here-document
around the text; the first chunk without ``@@``; empty lines standing for empty context lines;
empty lines between the lines of an added file; several ``@@`` lines narrowing in order.
"""

import re
from enum import IntEnum

from tightloop.agent.patch.failure import PatchError, bad_syntax
from tightloop.agent.patch.operations import (
    ADD,
    CONTEXT,
    REMOVE,
    AddFile,
    Chunk,
    ChunkClosed,
    ChunkGrew,
    ChunkLine,
    DeleteFile,
    FileClosed,
    FileSeen,
    Operation,
    Patch,
    PatchEnded,
    PatchEvent,
    UpdateFile,
)

BEGIN, END = "*** Begin Patch", "*** End Patch"
END_OF_FILE = "*** End of File"
ADD_FILE, DELETE_FILE, UPDATE_FILE = "*** Add File: ", "*** Delete File: ", "*** Update File: "
MOVE_TO = "*** Move to: "
ENVIRONMENT = "*** Environment ID:"
_HEREDOC = re.compile(r"""<<(['"]?)EOF\1$""")
_SURROGATE = re.compile("[\ud800-\udfff]")


class State(IntEnum):
    """Where in the grammar the next line stands."""

    NOT_STARTED = 0
    BETWEEN = 1
    ADDING = 2
    UPDATING = 3
    ENDED = 4


class PatchParser:
    """Feed it text, then ``finish`` it.

    ``feed`` never raises: after the first bad line ``failure`` is set and the rest is ignored.
    """

    def __init__(self) -> None:
        self.failure: PatchError | None = None
        self.environment_id: str | None = None
        self.operations: list[Operation] = []
        self._partial: list[str] = []
        self._held: list[str] = []
        self._num_lines = 0
        self._state = State.NOT_STARTED
        self._is_wrapped = False
        self._is_unwrapped = False
        self._events: list[PatchEvent] = []
        self._path = ""
        self._header_line = 0
        self._move_to: str | None = None
        self._added: list[str] = []
        self._num_blank = 0
        self._chunks: list[Chunk] = []
        self._lines: list[ChunkLine] | None = None
        self._anchors: list[str] = []
        self._num_soft = 0
        self._chunk_line = 0
        self._num_chars = 0
        self._opened_at = 0

    @property
    def state(self) -> State:
        """Where in the grammar the text so far ends, as far as whole lines were read."""
        return self._state

    @property
    def num_open_chars(self) -> int:
        """Characters read since the last header or ``@@`` line: of what is still open."""
        return self._num_chars - self._opened_at

    @property
    def is_ended(self) -> bool:
        """Whether the end marker was read; more text can still make that line content."""
        return self._state is State.ENDED

    def feed(self, text: str) -> list[PatchEvent]:
        """Take more text; what became known by it."""
        head, newline, rest = text.partition("\n")
        self._partial.append(head)  # joined once a line, or one long line would cost its square
        if newline:
            self._take("".join(self._partial))
            *lines, last = rest.split("\n")
            for line in lines:
                self._take(line)
            self._partial = [last]
        return self._drain()

    def finish(self) -> list[PatchEvent]:
        """The text is over: the last events. ``failure`` or ``patch()`` is the result."""
        last, self._partial = "".join(self._partial), []
        if last:
            self._take(last)
        if self.failure is None:
            try:
                self._settle_end()
            except PatchError as error:
                self.failure = error
        return self._drain()

    def patch(self) -> Patch:
        """The finished patch. Raises the ``PatchError`` of the first bad line."""
        if self.failure is not None:
            raise self.failure
        return Patch(tuple(self.operations), self.environment_id)

    def _drain(self) -> list[PatchEvent]:
        events, self._events = self._events, []
        return events

    def _take(self, raw: str) -> None:
        if self.failure is not None:
            return
        self._num_lines += 1
        self._num_chars += len(raw) + 1
        line = raw.removesuffix("\r")
        try:
            if _SURROGATE.search(line) or "\0" in line:
                raise self._bad("a line holds characters that no text file can hold")
            self._hold_or_read(line)
        except PatchError as error:
            self.failure = error

    def _hold_or_read(self, line: str) -> None:
        padded_end = self._state is State.UPDATING and line[:1].isspace() and line.strip() == END
        if self._held and not padded_end and self._can_follow_end(line):
            self._held.append(line)
            return
        held, self._held = self._held, []
        for number, earlier in enumerate(held):
            self._read(earlier, self._num_lines - len(held) + number)
        if padded_end:
            self._held = [line]
        else:
            self._read(line, self._num_lines)

    def _can_follow_end(self, line: str) -> bool:
        return not line.strip() or (self._is_wrapped and line.rstrip().endswith("EOF"))

    def _settle_end(self) -> None:
        if self._held:
            self._end()
            for line in self._held[1:]:
                self._read(line, self._num_lines)
        if self._state is State.NOT_STARTED:
            raise bad_syntax(f"the patch is empty; its first line must be {BEGIN!r}")
        if self._state is not State.ENDED:
            raise bad_syntax(f"the last line of the patch must be {END!r}", self._num_lines)
        if self._is_wrapped and not self._is_unwrapped:
            raise bad_syntax("the patch starts with '<<EOF' but no line 'EOF' ends it")

    def _read(self, line: str, number: int) -> None:
        if self._state is State.UPDATING:
            self._read_update(line, number)
        elif self._state is State.ADDING:
            self._read_added(line, number)
        elif self._state is State.BETWEEN:
            self._read_header(line, number)
        elif self._state is State.NOT_STARTED:
            self._read_start(line)
        elif self._is_wrapped and not self._is_unwrapped and line.rstrip().endswith("EOF"):
            self._is_unwrapped = True
        elif line.strip():
            raise bad_syntax(f"text after {END!r}: {line.strip()[:60]!r}", number)

    def _read_start(self, line: str) -> None:
        text = line.strip()
        if text == BEGIN:
            self._state = State.BETWEEN
        elif not self._is_wrapped and _HEREDOC.match(text):
            self._is_wrapped = True
        elif text:
            raise self._bad(f"the first line must be {BEGIN!r}, not {text[:60]!r}")

    def _read_header(self, line: str, number: int) -> None:
        text = line.strip()
        if text == END:
            self._end()
        elif text.startswith(ENVIRONMENT):
            self._read_environment(text, number)
        elif text.startswith(ADD_FILE):
            self._open(State.ADDING, "add", text.removeprefix(ADD_FILE), number)
        elif text.startswith(UPDATE_FILE):
            self._open(State.UPDATING, "update", text.removeprefix(UPDATE_FILE), number)
        elif text.startswith(DELETE_FILE):
            path = text.removeprefix(DELETE_FILE).strip()
            self._events.append(FileSeen("delete", path, number))
            self._close_file(DeleteFile(path, number))
        elif text:
            raise bad_syntax(
                f"{text[:60]!r} is not a file header; valid are '{ADD_FILE}PATH', "
                f"'{DELETE_FILE}PATH' and '{UPDATE_FILE}PATH'",
                number,
            )

    def _read_environment(self, text: str, number: int) -> None:
        name = text.removeprefix(ENVIRONMENT).strip()
        if not name or self.environment_id is not None or self.operations:
            raise bad_syntax("one environment id, not empty, may follow the first line", number)
        self.environment_id = name

    def _open(self, state: State, kind: str, path: str, number: int) -> None:
        self._state, self._path, self._header_line = state, path.strip(), number
        self._move_to, self._added, self._chunks, self._lines = None, [], [], None
        self._num_blank, self._anchors = 0, []
        self._opened_at = self._num_chars
        self._events.append(FileSeen(kind, self._path, number))

    def _close_file(self, operation: Operation) -> None:
        self._state = State.BETWEEN
        self.operations.append(operation)
        self._events.append(FileClosed(operation))

    def _end(self) -> None:
        if self._state is State.UPDATING:
            self._close_update()
        self._state = State.ENDED
        self._events.append(PatchEnded())

    def _read_added(self, line: str, number: int) -> None:
        if line.startswith("+"):
            self._added += [""] * self._num_blank
            self._num_blank = 0
            self._added.append(line[1:])
        elif not line.strip():
            self._num_blank += 1
        elif not line.lstrip().startswith("***"):
            raise bad_syntax(
                f"each line of an added file must start with '+', got {line[:60]!r}", number
            )
        else:
            self._close_file(AddFile(self._path, tuple(self._added), self._header_line))
            self._read_header(line, number)

    def _read_update(self, line: str, number: int) -> None:
        if self._lines is None and self._read_before_chunk(line, number):
            return
        if line == "" or line[0] in (CONTEXT, ADD, REMOVE):
            assert self._lines is not None
            read = ChunkLine(line[:1] or CONTEXT, line[1:])
            self._lines.append(read)
            self._events.append(
                ChunkGrew(read, tuple(self._anchors), len(self._chunks) + 1, self._chunk_line)
            )
            self._num_soft = 0 if line else self._num_soft + 1
        elif line.rstrip() == END_OF_FILE:
            if not self._lines:
                raise bad_syntax(f"{END_OF_FILE!r} follows no change line", number)
            self._close_chunk(is_end_of_file=True)
        elif line.rstrip() == "@@" or line.startswith("@@ "):
            if self._lines:
                self._close_chunk()
                self._open_chunk(number)
            if line[2:].strip():
                self._anchors.append(line[3:])
        elif line.startswith("*"):
            self._close_update()
            self._read_header(line, number)
        else:
            raise bad_syntax(
                f"a chunk line must start with '+', '-', ' ' or '@@', got {line[:60]!r}", number
            )

    def _read_before_chunk(self, line: str, number: int) -> bool:
        """Handle a line outside any chunk; False when it opened one and must still be read."""
        if not line.strip():
            return True
        if line.startswith(MOVE_TO) and not self._chunks and self._move_to is None:
            self._move_to = line.removeprefix(MOVE_TO).strip()
            return True
        if line.startswith("*"):
            self._close_update()
            self._read_header(line, number)
            return True
        if not line.startswith("@@") and self._chunks:
            raise bad_syntax(f"a later chunk must start with '@@', got {line[:60]!r}", number)
        self._open_chunk(number)
        return False

    def _open_chunk(self, number: int) -> None:
        self._lines, self._anchors, self._num_soft = [], [], 0
        self._chunk_line = number
        self._opened_at = self._num_chars

    def _close_chunk(self, *, is_end_of_file: bool = False) -> None:
        chunk = Chunk(
            tuple(self._lines or ()),
            tuple(self._anchors),
            is_end_of_file,
            self._num_soft,
            len(self._chunks) + 1,
            self._chunk_line,
        )
        self._chunks.append(chunk)
        self._lines = None
        self._events.append(ChunkClosed(chunk, self._path))

    def _close_update(self) -> None:
        if self._lines is not None:
            if not self._lines:
                raise bad_syntax("an '@@' line is followed by no change lines", self._chunk_line)
            self._close_chunk()
        if not self._chunks and self._move_to is None:
            raise bad_syntax(
                f"the update of {self._path!r} is empty", self._header_line, file=self._path
            )
        self._close_file(
            UpdateFile(self._path, tuple(self._chunks), self._move_to, self._header_line)
        )

    def _bad(self, message: str) -> PatchError:
        return bad_syntax(message, self._num_lines)


def parse_patch(text: str) -> Patch:
    """The patch that ``text`` spells. Raises ``PatchError`` (``bad_syntax``)."""
    parser = PatchParser()
    parser.feed(text)
    parser.finish()
    return parser.patch()
