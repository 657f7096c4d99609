import unicodedata
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.terminal.emulator import Emulator
from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.painter import Cursor, Painter
from tightloop.agent.terminal.styled import Line, Role, Span, line
from tightloop.agent.terminal.wrapping import chop, cut

COLOURS = Capabilities(can_redraw=True, has_attributes=True, has_colour=True)
REFLOWING = Capabilities(can_redraw=True, has_attributes=True, has_colour=True, reflows=True)


@dataclass
class Bench:
    """A painter and the terminal that it paints."""

    capabilities: Capabilities = COLOURS
    columns: int = 80
    rows: int = 24
    num_bytes: int = 0
    emulator: Emulator = field(init=False)
    painter: Painter = field(init=False)

    def __post_init__(self) -> None:
        self.emulator = Emulator(self.columns, self.rows, reflows=self.capabilities.reflows)
        self.painter = Painter(self.capabilities, self.emulator.size)

    def frame(self, appended: list[Line], live: list[Line], cursor: Cursor | None = None) -> bytes:
        data = self.painter.frame(appended, live, cursor, self.emulator.size).encode()
        self.emulator.feed(data)
        return data


def test_appended_rows_stay_and_live_rows_are_replaced() -> None:
    """What was appended is above what is live, and the live region is only its last state."""
    bench = Bench()
    bench.frame([line("one")], [line("wait"), line("> ")], Cursor(1, 2))
    assert bench.emulator.rows() == ["one", "wait", ">"]
    assert bench.emulator.cursor == (2, 2)
    bench.frame([line("two"), line("three")], [line("> x")], Cursor(0, 3))
    assert bench.emulator.rows() == ["one", "two", "three", "> x"]
    assert bench.emulator.cursor == (3, 3)


def test_nothing_is_written_when_nothing_changes() -> None:
    """A frame like the one before costs nothing."""
    bench = Bench()
    live = [line("working"), line("> hello")]
    assert bench.frame([line("one")], live, Cursor(1, 4))
    assert bench.frame([], live, Cursor(1, 4)) == b""
    assert bench.frame([], list(live), Cursor(1, 4)) == b""


def test_only_changed_rows_are_written() -> None:
    """Of a live region of eight rows, only the one that changed is sent."""
    bench = Bench()
    live = [line(f"row {number} " + "x" * 60) for number in range(8)]
    bench.frame([], live, Cursor(7, 0))
    live[3] = line("changed")
    data = bench.frame([], live, Cursor(7, 0))
    assert b"changed" in data
    assert b"xxx" not in data
    assert len(data) < 80


def test_a_row_that_becomes_scrollback_unchanged_is_not_written_again() -> None:
    """The first live row is finished: nothing but the cursor moves."""
    bench = Bench()
    bench.frame([], [line("a long row of text"), line("> ")], Cursor(1, 2))
    data = bench.frame([line("a long row of text")], [line("> ")], Cursor(0, 2))
    assert b"long" not in data
    assert bench.emulator.rows() == ["a long row of text", ">"]
    bench.frame([], [line("next"), line("> ")], Cursor(1, 2))
    assert bench.emulator.rows() == ["a long row of text", "next", ">"]


def test_the_screen_is_never_cleared() -> None:
    """No frame clears the screen, homes the cursor, or uses the alternate screen."""
    bench = Bench(rows=6)
    for number in range(40):
        data = bench.frame([line(f"line {number}")] * (number % 3), [line("> ")] * (number % 5))
        for forbidden in (b"\x1b[2J", b"\x1b[H", b"\x1b[3J", b"\x1b[?1049", b"\x1b[?47"):
            assert forbidden not in data


def test_what_was_on_the_screen_before_stays() -> None:
    """The program starts below what the shell had written."""
    bench = Bench()
    bench.emulator.feed(b"$ make\r\nok\r\n$ tightloop\r\n")
    bench.frame([line("hello")], [line("> ")], Cursor(0, 2))
    bench.emulator.feed(bench.painter.leave().encode())
    assert bench.emulator.rows() == ["$ make", "ok", "$ tightloop", "hello"]
    assert bench.emulator.cursor == (4, 0)
    assert bench.emulator.wraps
    assert bench.emulator.is_cursor_shown


def test_wide_rows() -> None:
    """Appended rows are cut into several, live rows are cut off; no row takes up two of the screen."""
    bench = Bench(columns=10)
    bench.frame([line("0123456789abcdef")], [line("日本語日本語"), line("> ")], Cursor(1, 2))
    assert bench.emulator.rows() == ["0123456789", "abcdef", "日本語日\u2026", ">"]


def test_a_full_row_keeps_its_last_character() -> None:
    """Rewriting a row as wide as the terminal erases nothing of it."""
    bench = Bench(columns=10)
    bench.frame([], [line("aaaaaaaaaa"), line("> ")])
    bench.frame([], [line("bbbbbbbbbb"), line("> ")])
    assert bench.emulator.rows() == ["bbbbbbbbbb", ">"]


def test_more_live_rows_than_the_terminal_has() -> None:
    """Those around the cursor are shown, and later frames still find the region."""
    bench = Bench(rows=4)
    bench.frame([], [line(f"live {number}") for number in range(9)], Cursor(8, 0))
    assert bench.emulator.rows() == ["live 5", "live 6", "live 7", "live 8"]
    bench.frame([], [line(f"live {number}") for number in range(9)], Cursor(2, 0))
    assert bench.emulator.rows() == ["live 2", "live 3", "live 4", "live 5"]
    bench.frame([line("done")], [line("> ")], Cursor(0, 2))
    assert bench.emulator.rows() == ["done", ">"]


def test_without_a_cursor_it_is_hidden() -> None:
    """The cursor is shown again as soon as it has a place, and on leaving."""
    bench = Bench()
    bench.frame([], [line("working")])
    assert not bench.emulator.is_cursor_shown
    bench.frame([], [line("working")], Cursor(0, 0))
    assert bench.emulator.is_cursor_shown
    bench.frame([], [line("working")])
    bench.emulator.feed(bench.painter.leave().encode())
    assert bench.emulator.is_cursor_shown
    assert bench.emulator.rows() == []


def test_roles_are_colours_of_the_palette_and_end_with_their_text() -> None:
    """A role looks the same wherever it stands and colours nothing else."""
    bench = Bench()
    bench.frame([], [Line((Span("+ new", Role.ADDED), Span(" rest")))])
    assert [("+ new", "green", False, False), (" rest".ljust(75), "default", False, False)] == (
        bench.emulator.styles(0)
    )


def test_without_colour_and_without_attributes() -> None:
    """``NO_COLOR`` leaves weight, a terminal without attributes gets text only."""
    row = Line((Span("bold", Role.STRONG), Span(" red", Role.REMOVED)))
    weight = Capabilities(can_redraw=True, has_attributes=True)
    assert b"\x1b[1mbold\x1b[0m red" in Bench(weight).frame([], [row])
    assert b"bold red" in Bench(Capabilities(can_redraw=True)).frame([], [row])


def test_narrowing_erases_nothing_and_leaves_nothing_behind() -> None:
    """A terminal that wraps the live rows has them in more rows than before; all are found again."""
    bench = Bench(REFLOWING)
    bench.frame(
        [line("kept " + "k" * 60)], [line("live " + "l" * 70), line("> draft")], Cursor(1, 7)
    )
    bench.emulator.resize(30, 24)
    bench.frame([], [line("live"), line("> draft")], Cursor(1, 7))
    assert bench.emulator.rows() == ["kept " + "k" * 25, "k" * 30, "k" * 5, "live", "> draft"]


CHARACTERS = st.sampled_from(["a", "b", " ", "-", "日", "e\u0301"])
TEXTS = st.lists(CHARACTERS, max_size=50).map("".join)
LINES = st.lists(
    st.lists(st.builds(Span, TEXTS, st.sampled_from(list(Role))), max_size=3).map(
        lambda found: Line(tuple(found))
    ),
    max_size=5,
)
FRAMES = st.lists(
    st.tuples(LINES, LINES, st.none() | st.builds(Cursor, st.integers(0, 5), st.integers(0, 60))),
    min_size=1,
    max_size=12,
)


def _shown(rows: list[Line]) -> list[str]:
    return [unicodedata.normalize("NFC", row.plain).rstrip() for row in rows]


def _without_end(rows: list[str]) -> list[str]:
    while rows and not rows[-1]:
        rows = rows[:-1]
    return rows


@settings(max_examples=25, deadline=None)
@given(frames=FRAMES, columns=st.integers(4, 60), rows=st.integers(6, 30))
def test_the_terminal_shows_what_was_appended_and_then_what_is_live(
    frames: list[tuple[list[Line], list[Line], Cursor | None]], columns: int, rows: int
) -> None:
    """After any sequence of frames: scrollback and screen are the model, and so is the cursor."""
    bench = Bench(columns=columns, rows=rows)
    appended: list[str] = []
    for more, live, cursor in frames:
        bench.frame(more, live, cursor)
        appended += _shown([row for whole in more for row in chop(whole, columns)])
        shown = _shown([cut(row, columns) for row in live])
        assert _without_end([*appended, *shown]) == bench.emulator.rows()
        assert bench.emulator.is_cursor_shown is (cursor is not None)
        if cursor is not None:
            row = min(cursor.row, max(0, len(live) - 1))
            expected = len(appended) + row, min(cursor.column, columns - 1)
            assert expected == bench.emulator.cursor


SIZES = st.tuples(st.integers(8, 60), st.integers(8, 30))
NARROW = st.text(alphabet="abc", max_size=40).map(line)
STEPS = st.lists(
    st.tuples(SIZES, st.lists(NARROW, max_size=3), st.lists(NARROW, max_size=4), st.integers(0, 3)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_resizing_a_terminal_that_cuts(
    steps: list[tuple[tuple[int, int], list[Line], list[Line], int]],
) -> None:
    """No row is lost or left behind; what the terminal cut off by itself is not ours."""
    bench = Bench()
    appended: list[str] = []
    for (columns, rows), more, live, at in steps:
        bench.emulator.resize(columns, rows)
        bench.frame(more, live, Cursor(at, at))
        appended += _shown([row for whole in more for row in chop(whole, columns)])
        shown = _shown([cut(row, columns) for row in live])
        found = bench.emulator.rows()
        found += [""] * (len(appended) + len(live) - len(found))
        assert len(appended) + len(live) == len(found)
        assert shown == found[len(appended) :]
        for expected, row in zip(appended, found, strict=False):
            assert expected.startswith(row)
            assert len(row) >= min(8, len(expected))


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_resizing_a_terminal_that_reflows(
    steps: list[tuple[tuple[int, int], list[Line], list[Line], int]],
) -> None:
    """Joined together, the rows are what was appended, then what is live: nothing doubled or lost."""
    bench = Bench(REFLOWING, rows=40)
    appended = ""
    for (columns, rows), more, live, at in steps:
        bench.emulator.resize(columns, rows + 20)
        bench.frame(more, live, Cursor(at, at))
        appended += "".join(row.plain for row in more)
        shown = [cut(row, columns).plain for row in live]
        found = bench.emulator.rows()
        assert appended + "".join(shown) == "".join(found)
        assert _without_end(shown) == found[len(found) - len(_without_end(shown)) :]
