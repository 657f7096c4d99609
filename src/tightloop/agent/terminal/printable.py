"""Text of models and commands made safe for a terminal."""

import re

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC and other strings: titles, clipboard
    r"|\x1b[ -/]*[0-~]"
)
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[ -/]*)$")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` without escape sequences; other control characters become U+FFFD.

    Direction overrides go too: with them a line can read differently from what it is.
    """
    return _CONTROLS.sub("\ufffd", _SEQUENCES.sub("", text.replace("\r\n", "\n")))


def printable_so_far(text: str) -> str:
    """``printable`` of a text that goes on: a sequence that has only begun is not shown either."""
    return printable(_BEGUN.sub("", text)) if "\x1b" in text else printable(text)
