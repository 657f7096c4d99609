from tightloop.agent.terminal.command_view import MAX_ROW_CHARS, CommandView
from tightloop.agent.terminal.styled import Line, Role
from tightloop.trace.clock import ManualClock


def plain(rows: list[Line]) -> list[str]:
    return [row.plain for row in rows]


def test_a_short_command() -> None:
    """Command, output, and how it ended; nothing is given before the end."""
    clock = ManualClock()
    view = CommandView("pytest -q", clock)
    view.feed("\n.F\n1 failed, ")
    assert view.take(80) == []
    assert plain(view.live(80)) == ["$ pytest -q", "  .F", "  1 failed,"]
    view.feed("1 passed\n")
    clock.advance_s(0.25)
    view.finish(1, how="warm-pytest-l1")
    rows = view.take(80)
    expected = ["$ pytest -q", "  .F", "  1 failed, 1 passed", "  exit 1, 250 ms, warm-pytest-l1"]
    assert expected == plain(rows)
    assert Role.ERROR is rows[-1].spans[1].role
    assert view.take(80) + view.live(80) == []


def test_long_output_is_collapsed() -> None:
    """First rows, how many are left out, last rows; it keeps no more than those."""
    view = CommandView("make", ManualClock())
    for number in range(10_000):
        view.feed(f"line {number}\n")
    assert ["$ make", *[f"  line {n}" for n in range(9994, 10_000)]] == plain(view.live(80))
    view.finish(0)
    rows = plain(view.take(80))
    assert rows[4:7] == ["  line 3", "  \u2026 9988 more rows", "  line 9992"]
    assert rows[-2:] == ["  line 9999", "  exit 0, 0 ms"]


def test_live_rows_fit_the_room() -> None:
    """The end of the output gives way to the command, and the time is said once it is long."""
    clock = ManualClock()
    view = CommandView("make", clock)
    view.feed("a\nb\nc\n")
    clock.advance_s(3.2)
    assert plain(view.live(80, 3)) == ["$ make", "  c", "  3 s"]
    assert plain(view.live(80, 1)) == ["$ make"]
    assert view.live(80, 0) == []


def test_progress_bars_and_colours() -> None:
    """A row that is drawn again is its last state; no colour of the output gets through."""
    view = CommandView("pip install x", ManualClock())
    view.feed("10 %\r20 %")
    view.feed("\r100 %\x1b[3")
    assert plain(view.live(80)) == ["$ pip install x", "  100 %"]
    view.feed("2m\r\n\x1b[2J\x1b[1;31mdone\x1b[0m\n")
    view.finish(0)
    assert plain(view.take(80))[1:3] == ["  100 %", "  done"]


def test_a_row_without_an_end_is_bounded() -> None:
    """Megabytes without a newline are not kept."""
    view = CommandView("yes | tr -d '\\n'", ManualClock())
    for _ in range(100):
        view.feed("y" * 100_000)
    assert view.live(80)[1].plain == "  " + "y" * 77 + "\u2026"
    view.finish(None, status="failed")
    assert len(view.take(1 << 20)[1].plain) <= MAX_ROW_CHARS + 2


def test_commands_of_many_lines_and_those_not_run() -> None:
    """The first few lines are shown; a refusal is no exit code."""
    view = CommandView("cat <<EOF\na\nb\nc\nEOF", ManualClock())
    view.finish(None, status="declined")
    expected = ["$ cat <<EOF", "  a", "  b", "  \u2026 2 more rows", "  not run: it was declined"]
    assert expected == plain(view.take(80))


def test_durations() -> None:
    """In the unit that a person would use."""
    for seconds, expected in ((0.0123, "12 ms"), (1.25, "1.2 s"), (75, "1 min 15 s")):
        view = CommandView("x", ManualClock())
        view.finish(0, seconds=seconds)
        assert f"  exit 0, {expected}" == view.take(80)[-1].plain
