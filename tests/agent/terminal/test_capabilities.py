import pytest

from tightloop.agent.terminal.capabilities import Capabilities


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_terminals_that_can_do_nothing(term: str) -> None:
    """They get plain text, and so does whatever is no terminal."""
    assert Capabilities() == Capabilities.of({"TERM": term}, is_tty=True)
    assert Capabilities() == Capabilities.of({"TERM": "xterm"}, is_tty=False)


def test_colours_can_be_switched_off() -> None:
    """``NO_COLOR`` counts when there is something in it; weight stays."""
    found = Capabilities.of({"TERM": "xterm-256color", "NO_COLOR": "1"}, is_tty=True)
    assert (found.can_redraw, found.has_attributes, found.has_colour) == (True, True, False)
    assert Capabilities.of({"TERM": "xterm", "NO_COLOR": ""}, is_tty=True).has_colour


@pytest.mark.parametrize(
    "environ",
    [
        {"TERM": "xterm-256color", "VTE_VERSION": "7600"},
        {"TERM": "xterm-kitty"},
        {"TERM": "tmux-256color"},
        {"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"},
    ],
)
def test_terminals_known_to_reflow(environ: dict[str, str]) -> None:
    """Of others the safe guess is that they do not."""
    assert Capabilities.of(environ, is_tty=True).reflows
    assert not Capabilities.of({"TERM": "xterm-256color"}, is_tty=True).reflows


def test_the_console_is_not_asked_for_its_keys() -> None:
    """It would take the request for something else."""
    assert Capabilities.of({"TERM": "xterm-256color"}, is_tty=True).reports_keys
    assert not Capabilities.of({"TERM": "linux"}, is_tty=True).reports_keys
