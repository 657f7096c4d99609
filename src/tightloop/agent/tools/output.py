"""What the model gets to see of a long output: its start and its end, cut at line ends.

What it will see can be told while the command runs, but for the end: see ``Foretelling``.
"""

from collections.abc import Callable

MAX_CHARS = 16_000
HEAD_SHARE = 0.4


def shorten_output(text: str, max_chars: int = MAX_CHARS) -> str:
    """``text``, or its first 40 % and last 60 % of ``max_chars`` with a note between.

    Depends on the text alone, so equal outputs give equal prompts. Tests and compilers say what
    matters at the end, hence the larger tail.
    """
    if len(text) <= max_chars:
        return text
    head = _head(text, max_chars)
    tail = text[len(text) - (max_chars - int(max_chars * HEAD_SHARE)) :]
    if "\n" in tail[:-1]:
        tail = tail[tail.index("\n") + 1 :]
    left_out = text[len(head) : len(text) - len(tail)]
    num_bytes = len(left_out.encode("utf-8", "surrogatepass"))
    note = f"{num_bytes} bytes in {left_out.count(chr(10))} lines left out ...]\n"
    return _up_to_note(head) + note + tail


def _head(text: str, max_chars: int) -> str:
    head = text[: int(max_chars * HEAD_SHARE)]
    return head[: head.rindex("\n") + 1] if "\n" in head else head


def _up_to_note(head: str) -> str:
    return head + ("" if head.endswith("\n") else "\n") + "[... "


Tell = Callable[[str, int], None]
"""Told how a text goes on: a piece, and how many characters of what was told before still stand."""


class Foretelling:
    """Tells how ``shorten_output`` of a growing text begins, as soon as that is known.

    A text that is short so far is told as it is; should it become too long, what stands beyond the
    head is taken back.
    """

    def __init__(self, tell: Tell, max_chars: int = MAX_CHARS) -> None:
        self._tell = tell
        self._max_chars = max_chars
        self._text = ""
        self._is_long = False

    def feed(self, piece: str) -> None:
        """The text goes on."""
        if self._is_long or not piece:
            return
        num_told = len(self._text)
        if num_told + len(piece) <= self._max_chars:
            self._text += piece
            self._tell(piece, num_told)
            return
        self._is_long = True
        head = _head(self._text + piece[: self._max_chars], self._max_chars)
        self._text = ""
        keep = min(num_told, len(head))
        self._tell(_up_to_note(head)[keep:], keep)
