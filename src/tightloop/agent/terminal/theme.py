"""How each role looks: attributes and the 16 colours that the user chose for the terminal.

No colour of our own, so light and dark backgrounds are both readable; two weights, three accents.
"""

from collections.abc import Mapping

from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.styled import Line, Role

_COLOURS: Mapping[Role, str] = {
    Role.DIM: "2",
    Role.STRONG: "1",
    Role.EMPHASIS: "3",
    Role.HEADING: "1",
    Role.CODE: "36",
    Role.ADDED: "32",
    Role.REMOVED: "31",
    Role.ERROR: "31",
    Role.WARNING: "33",
    Role.GOOD: "32",
    Role.ACCENT: "36",
    Role.SELECTED: "7",
}
_WITHOUT_COLOUR: Mapping[Role, str] = {
    Role.DIM: "2",
    Role.STRONG: "1",
    Role.EMPHASIS: "3",
    Role.HEADING: "1",
    Role.ERROR: "1",
    Role.WARNING: "1",
    Role.ACCENT: "1",
    Role.SELECTED: "7",
}


def theme(capabilities: Capabilities) -> Mapping[Role, str]:
    """Parameters of SGR (ECMA-48 8.3.117) by role; a role that is not in it looks plain."""
    if capabilities.has_colour:
        return _COLOURS
    return _WITHOUT_COLOUR if capabilities.has_attributes else {}


def rendered(line: Line, looks: Mapping[Role, str]) -> str:
    """A row as a terminal takes it; attributes are off at its end."""
    pieces: list[str] = []
    for span in line.spans:
        look = looks.get(span.role)
        pieces.append(f"\x1b[{look}m{span.text}\x1b[0m" if look else span.text)
    return "".join(pieces)
