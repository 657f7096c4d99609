"""The waterfall in the terminal."""

import io

from rich.console import Console

from tightloop.bench.waterfall import STYLES, Row, bar, draw, rows
from tightloop.trace.ledger import PARTS, Segment

MS = 1_000_000
TURN = [
    Segment("client", 0, 1 * MS),
    Segment("network", 1 * MS, 2 * MS),
    Segment("prefill", 2 * MS, 10 * MS),
    Segment("decode", 10 * MS, 20 * MS),
    Segment("test", 20 * MS, 60 * MS, "python -m pytest -q tests/test_a_very_long_name.py"),
    Segment("tool", 60 * MS, 61 * MS, "apply_patch"),
]


def test_every_part_of_the_ledger_has_a_look() -> None:
    assert set(PARTS) == set(STYLES)
    assert len({glyph for glyph, _ in STYLES.values()}) == len(PARTS)


def test_steps_are_grouped() -> None:
    """A round trip is one step, each tool its own; the client's work joins what follows it."""
    model, test, tool = rows(TURN)
    assert (model.title, model.duration_ms) == ("model", 20.0)
    assert (test.title, test.duration_ms) == ("test", 40.0)
    assert (tool.title, tool.label) == ("tool", "apply_patch")


def test_a_short_part_is_still_seen() -> None:
    """A microsecond of tool time in an otherwise empty cell gets its character."""
    row = Row("tool", "x", (Segment("tool", 500, 501),))
    assert bar(row, 0, 100 * MS, 10).plain.strip() == STYLES["tool"][0]


def test_it_fits_the_terminal_and_needs_no_colour() -> None:
    screen = io.StringIO()
    Console(file=screen, width=80, color_system=None).print(draw(TURN, width=80))
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "40.0 ms" in screen.getvalue()
    assert "■ test" in lines[-1].rstrip()


def test_an_empty_turn_is_said_to_be_empty() -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(draw([]))
    assert "empty" in screen.getvalue()
