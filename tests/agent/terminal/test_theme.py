from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.styled import Line, Role, Span
from tightloop.agent.terminal.theme import rendered, theme

COLOURS = Capabilities(can_redraw=True, has_attributes=True, has_colour=True)
WEIGHT = Capabilities(can_redraw=True, has_attributes=True)


def test_every_role_looks_different_from_text() -> None:
    """With colours; plain text has no look."""
    assert set(Role) - {Role.PLAIN} == set(theme(COLOURS))


def test_no_colour_means_no_colour() -> None:
    """Only attributes are left, and none without those."""
    assert {"1", "2", "3", "7"} >= set(theme(WEIGHT).values())
    assert theme(Capabilities()) == {}


def test_each_span_ends_its_own_look() -> None:
    """Nothing runs over into what follows."""
    row = Line((Span("+", Role.ADDED), Span("x"), Span("", Role.DIM)))
    assert rendered(row, theme(COLOURS)).removesuffix("\x1b[2m\x1b[0m") == "\x1b[32m+\x1b[0mx"
    assert rendered(row, {}) == "+x"
