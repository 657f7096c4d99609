"""Tokens to text, piece by piece: whole characters only, and never past a stop string."""

from codecs import utf_8_decode
from collections.abc import Sequence


class Utf8Stream:
    """Bytes in, text out; a character is given out once all of its bytes are there."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> str:
        """The characters completed by ``data``. Bytes that can never be UTF-8 become U+FFFD."""
        if self._held:
            data = self._held + data
        text, used = utf_8_decode(data, "replace", False)
        self._held = data[used:]
        return text

    def finish(self) -> str:
        """U+FFFD for a character that was never completed, else nothing."""
        held, self._held = self._held, b""
        return held.decode("utf-8", "replace")


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``marker``."""
    for size in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:size]):
            return size
    return 0


class StopStrings:
    """Holds text back while it could be the beginning of a stop string.

    ``stopped_by`` is the stop string that was seen.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped_by: str | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was seen."""
        return self.stopped_by is not None

    def feed(self, text: str) -> str:
        """What may be given out now; after a stop string was seen, nothing more."""
        if not self._stops:
            return text
        if self.is_stopped:
            return ""
        text = self._held + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self._held = ""
            return text[:at]
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :] if keep else ""
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, now that no stop string can follow."""
        held, self._held = self._held, ""
        return held
