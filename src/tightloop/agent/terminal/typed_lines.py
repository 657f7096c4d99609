"""Keys from what is no terminal, or a dumb one: whole lines."""

import codecs

from tightloop.agent.terminal.keys import Key


class LineDecoder:
    """Each line becomes its text and ``enter``. Like ``KeyDecoder``, without keys to wait for."""

    is_waiting = False

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = ""

    def feed(self, data: bytes) -> list[Key]:
        """The lines that end in ``data``."""
        *lines, self._partial = (self._partial + self._bytes.decode(data)).split("\n")
        return [key for line in lines for key in _typed(line.removesuffix("\r"))]

    def flush(self) -> list[Key]:
        """Nothing waits for time."""
        return []

    def end(self) -> list[Key]:
        """The last line, if no newline ended it."""
        last, self._partial = self._partial, ""
        return _typed(last) if last else []


def _typed(line: str) -> list[Key]:
    return [*([Key("text", line)] if line else []), Key("enter")]
