import gc

import pytest

from tests.agent.terminal.emulator import Emulator, KeptOutput, ManualTimers
from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.painter import Cursor, Size
from tightloop.agent.terminal.screen import FRAME_S, MAX_FRAME_CHARS, Screen
from tightloop.agent.terminal.styled import Line, Span, line
from tightloop.trace.clock import ManualClock

TERMINAL = Capabilities(can_redraw=True, has_attributes=True, has_colour=True)


class Bench:
    """A screen, its terminal, its clock and its timers."""

    def __init__(
        self, capabilities: Capabilities = TERMINAL, columns: int = 80, rows: int = 24
    ) -> None:
        self.emulator = Emulator(columns, rows)
        self.output = KeptOutput()
        self.clock = ManualClock()
        self.timers = ManualTimers()
        self.screen = Screen(
            self.output,
            lambda: self.emulator.size,
            capabilities,
            clock=self.clock,
            call_later=self.timers,
        )

    def tick(self) -> float:
        """The next frame; how long it was put off."""
        waited = self.timers.run()
        self.emulator.feed(self.output.take())
        return waited


def test_thirty_frames_a_second_at_most() -> None:
    """A thousand changes in a second are thirty frames, and the last state is drawn."""
    bench = Bench()
    bench.screen.set_live([line("0")])
    assert bench.tick() == 0
    for number in range(1, 1001):
        bench.clock.advance_s(0.001)
        bench.screen.set_live([line(str(number))])
        if bench.timers.waiting and bench.clock.now_ns() >= due(bench):
            bench.tick()
    assert 29 <= bench.screen.num_frames <= 31
    if bench.timers.waiting:
        bench.tick()
    assert bench.emulator.rows() == ["1000"]


def due(bench: Bench) -> int:
    return round((bench.screen.num_frames * FRAME_S) * 1e9)


def test_the_first_frame_does_not_wait_and_the_next_does() -> None:
    """Only what comes within a frame's time is put off, by the rest of it."""
    bench = Bench()
    bench.screen.append([line("one")])
    assert bench.tick() == 0
    bench.clock.advance_s(0.01)
    bench.screen.append([line("two")])
    assert pytest.approx(bench.tick()) == FRAME_S - 0.01
    bench.clock.advance_s(1)
    bench.screen.append([line("three")])
    assert bench.tick() == 0
    assert bench.emulator.rows() == ["one", "two", "three"]


def test_views_are_asked_once_per_frame() -> None:
    """``touch`` costs nothing; what it announces is made when the frame is due."""
    bench = Bench()
    asked: list[Size] = []

    def on_frame(size: Size) -> None:
        asked.append(size)
        bench.screen.append([line(f"row {len(asked)}")])
        bench.screen.set_live([line("> ")], Cursor(0, 2))

    bench.screen.on_frame = on_frame
    for _ in range(100):
        bench.screen.touch()
    bench.tick()
    assert [Size(80, 24)] == asked
    assert bench.emulator.rows() == ["row 1", ">"]
    assert bench.timers.waiting == []


def test_before_there_is_a_loop_only_draw_draws() -> None:
    """The first paint needs neither loop nor timer."""
    output = KeptOutput()
    screen = Screen(output, lambda: Size(80, 24), TERMINAL, clock=ManualClock())
    screen.set_live([line("> ")], Cursor(0, 2))
    assert output.written == []
    screen.draw()
    assert b"> " in output.take()
    timers = ManualTimers()
    screen.attach(timers)
    screen.set_live([line("> x")], Cursor(0, 3))
    timers.run()
    assert b"> x" in output.take()


def test_a_slow_terminal_gets_fewer_frames_not_more_bytes() -> None:
    """While it has not taken a frame, none is made; then the newest state is drawn."""
    bench = Bench()
    bench.screen.set_live([line("0")])
    bench.tick()
    bench.output.is_stalled = True
    for number in range(1, 100):
        bench.clock.advance_s(0.1)
        bench.screen.set_live([line(str(number))])
        if bench.timers.waiting:
            bench.timers.run()
    assert bench.output.take() == b""
    bench.output.go_on()
    bench.tick()
    assert bench.emulator.rows() == ["99"]


def test_ten_thousand_rows_keep_nothing_and_no_frame_is_large() -> None:
    """After a flood the screen holds the live rows only, and each write was bounded."""
    bench = Bench()
    gc.collect()
    before = _num_lines()
    bench.screen.set_live([line("> ")], Cursor(0, 2))
    for first in range(0, 10_000, 500):
        bench.screen.append([line(f"line {first + n} of output " + "x" * 40) for n in range(500)])
    largest, num_rows = 0, 0
    while bench.timers.waiting:
        bench.timers.run()
        data = bench.output.take()
        largest, num_rows = max(largest, len(data)), num_rows + data.count(b"of output")
        bench.clock.advance_s(FRAME_S)
    assert num_rows == 10_000
    assert largest <= 2 * MAX_FRAME_CHARS
    gc.collect()
    assert _num_lines() - before <= 8


def _num_lines() -> int:
    return sum(isinstance(found, Line | Span) for found in gc.get_objects())


def test_a_row_without_an_end_is_drawn_in_pieces() -> None:
    """A million characters in one row do not become one frame, and all of them arrive."""
    bench = Bench()
    bench.screen.append([line("y" * 1_000_000)])
    largest, total = 0, 0
    while bench.timers.waiting:
        bench.timers.run()
        data = bench.output.take()
        largest, total = max(largest, len(data)), total + data.count(b"y")
        bench.clock.advance_s(FRAME_S)
    assert total == 1_000_000
    assert largest <= 2 * MAX_FRAME_CHARS


def test_without_a_terminal_it_is_plain_text() -> None:
    """No live region, no escape sequence, each row once and whole."""
    bench = Bench(Capabilities())
    bench.screen.set_live([line("working")])
    bench.screen.append([line("x" * 100), line("\x1b[31mred")])
    bench.timers.run()
    bench.screen.close()
    assert bench.output.take() == b"x" * 100 + b"\nred\n"
    assert bench.screen.is_plain


def test_leaving_and_coming_back() -> None:
    """Others write in between, and the live region is below them afterwards."""
    bench = Bench()
    bench.screen.append([line("one")])
    bench.screen.set_live([line("> draft")], Cursor(0, 7))
    bench.tick()
    bench.screen.leave()
    bench.emulator.feed(bench.output.take() + b"$ ls\r\nfile\r\n")
    bench.screen.come_back()
    bench.tick()
    assert bench.emulator.rows() == ["one", "$ ls", "file", "> draft"]


def test_closing_draws_what_waits_and_erases_what_is_live() -> None:
    """Nothing that was appended is lost; afterwards nothing is drawn."""
    bench = Bench()
    bench.screen.set_live([line("> ")], Cursor(0, 2))
    bench.tick()
    bench.screen.append([line(f"row {n}") for n in range(3)])
    bench.screen.close()
    bench.screen.close()
    bench.screen.append([line("late")])
    bench.emulator.feed(bench.output.take())
    assert bench.emulator.rows() == ["row 0", "row 1", "row 2"]
    assert bench.emulator.is_cursor_shown
    assert bench.timers.waiting == []


def test_closing_can_keep_the_live_rows() -> None:
    """They become the last rows of the scrollback."""
    bench = Bench()
    bench.screen.set_live([line("status")])
    bench.tick()
    bench.screen.close(keep_live=True)
    bench.emulator.feed(bench.output.take())
    assert bench.emulator.rows() == ["status"]


def test_a_resize_in_the_middle_of_a_stream() -> None:
    """Rows that were appended stay, the live region is laid out for the new width."""
    bench = Bench()
    bench.screen.append([line("a" * 70)])
    bench.screen.set_live([line("streaming " * 7), line("> ")], Cursor(1, 2))
    bench.tick()
    bench.emulator.resize(40, 10)
    bench.clock.advance_s(1)
    bench.screen.touch()
    bench.tick()
    assert bench.emulator.rows() == ["a" * 40, "streaming " * 3 + "streaming\u2026", ">"]
    bench.screen.append([line("b" * 50)])
    bench.clock.advance_s(1)
    bench.tick()
    assert bench.emulator.rows()[:3] == ["a" * 40, "b" * 40, "b" * 10]
