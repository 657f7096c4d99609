"""What the terminal on the other side can do, as far as its environment tells."""

from collections.abc import Mapping
from dataclasses import dataclass

_REFLOWING_PROGRAMS = frozenset(
    {
        "iTerm.app",  # codespell:ignore
        "WezTerm",
        "ghostty",
        "vscode",
        "Apple_Terminal",
        "Hyper",
        "rio",
    }
)
_REFLOWING_TERMS = ("xterm-kitty", "xterm-ghostty", "foot", "alacritty", "tmux", "wezterm", "vte")
_REFLOWING_MARKS = ("VTE_VERSION", "WT_SESSION", "KONSOLE_VERSION", "KITTY_WINDOW_ID", "TMUX")
_WITHOUT_KEY_PROTOCOL = ("linux", "screen", "cons", "vt")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """``can_redraw``: rows can be written again, so there is a live region.

    ``has_attributes``: bold, faint, reverse; ``has_colour``: the 16 colours of the user's palette.
    ``reflows``: rows longer than a narrowed terminal are wrapped by it, not cut. ``reports_keys``:
    asking for unambiguous keys does no harm. Not knowing better, a terminal does not reflow: the wrong guess
    then leaves a few rows too many on the screen, the other one would erase text.
    """

    can_redraw: bool = False
    has_attributes: bool = False
    has_colour: bool = False
    reflows: bool = False
    reports_keys: bool = False

    @staticmethod
    def of(environ: Mapping[str, str], *, is_tty: bool) -> "Capabilities":
        """Those of a terminal in ``environ``; without a terminal there are none.

        ``NO_COLOR`` with any text in it switches colours off, see no-color.org.
        """
        term = environ.get("TERM", "")
        if not is_tty or term in ("", "dumb", "unknown"):
            return Capabilities()
        return Capabilities(
            can_redraw=True,
            has_attributes=True,
            has_colour=not environ.get("NO_COLOR") and not term.startswith("vt"),
            reflows=(
                any(environ.get(mark) for mark in _REFLOWING_MARKS)
                or environ.get("TERM_PROGRAM") in _REFLOWING_PROGRAMS
                or term.startswith(_REFLOWING_TERMS)
            ),
            reports_keys=not term.startswith(_WITHOUT_KEY_PROTOCOL),
        )
