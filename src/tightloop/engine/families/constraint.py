"""What may come next in an answer, byte by byte.

An answer is a chain of parts: scanned text, one of several words, text that a grammar rules, the
inside of a JSON string whose unescaped text a grammar rules. A part that is done, or may be, names
the part after it. Tokens are judged by their bytes, so one token may end a part and begin the next.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from tightloop.engine.families.grammars import ByteMatcher

ESCAPES: Final = {
    ord('"'): ord('"'),
    ord("\\"): ord("\\"),
    ord("/"): ord("/"),
    ord("n"): ord("\n"),
    ord("t"): ord("\t"),
    ord("r"): ord("\r"),
    ord("b"): ord("\b"),
    ord("f"): ord("\f"),
}
_ESCAPED_ONLY: Final = frozenset(b'"\\\n\t\r\b\f')
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_ALL: Final = frozenset(range(256))


class Part(Protocol):
    """A piece of an answer. ``mark`` is its state before a token, for ``restore``."""

    def feed(self, data: bytes) -> int:
        """Bytes taken; fewer than all when the part ended or the next byte is refused."""

    def mark(self) -> object: ...

    def restore(self, mark: object) -> None:
        """The part is as it was at ``mark``, its latest."""

    def follower(self) -> "Part | None":
        """The part after this one if it may end here. Changes nothing."""

    @property
    def is_done(self) -> bool:
        """Whether the part cannot take anything more."""

    @property
    def may_stop(self) -> bool:
        """Whether the whole answer may end here."""

    def next_bytes(self) -> frozenset[int]:
        """The bytes that ``feed`` would take next."""


Then = Callable[[], Part]


class End:
    """Nothing may follow."""

    is_done = False
    may_stop = True

    def feed(self, data: bytes) -> int:
        """Nothing is taken."""
        return 0

    def mark(self) -> object:
        """No state."""
        return None

    def restore(self, mark: object) -> None:
        """No state."""

    def follower(self) -> Part | None:
        """None."""
        return None

    def next_bytes(self) -> frozenset[int]:
        """None."""
        return frozenset()


class Words:
    """Exactly one of some words, none the beginning of another; each names what follows it.

    ``otherwise`` follows at once when the first byte begins none of them.
    """

    def __init__(
        self, words: Mapping[bytes, Then], *, otherwise: Then | None = None, may_stop: bool = False
    ) -> None:
        self._words = words
        self._otherwise = otherwise
        self._may_stop = may_stop
        self._read = b""

    def feed(self, data: bytes) -> int:
        """Bytes of a word."""
        for used in range(len(data)):
            if self.is_done:
                return used
            longer = self._read + data[used : used + 1]
            if not any(word.startswith(longer) for word in self._words):
                return used
            self._read = longer
        return len(data)

    def mark(self) -> object:
        """What was read."""
        return self._read

    def restore(self, mark: object) -> None:
        """See ``Part``."""
        assert isinstance(mark, bytes)
        self._read = mark

    def follower(self) -> Part | None:
        """What the word, or the lack of one, names."""
        then = self._words.get(self._read) if self._read else self._otherwise
        return None if then is None else then()

    @property
    def is_done(self) -> bool:
        """Whether a word is complete."""
        return self._read in self._words

    @property
    def may_stop(self) -> bool:
        """Whether it may stop instead of any word."""
        return self._may_stop and not self._read

    def next_bytes(self) -> frozenset[int]:
        """Those that go on with a word."""
        size = len(self._read)
        fits = (w for w in self._words if len(w) > size and w.startswith(self._read))
        return frozenset(word[size] for word in fits)


class Scan:
    """Any text up to the first of some tags, which names what follows; None refuses the tag."""

    def __init__(self, tags: Mapping[bytes, Then | None], *, may_stop: bool) -> None:
        self._tags = tags
        self._longest = max(map(len, tags))
        self._tail = b""
        self._then: Then | None = None
        self.may_stop = may_stop

    def feed(self, data: bytes) -> int:
        """Everything up to the end of a tag."""
        text = self._tail + data
        found = [(at, tag) for tag in self._tags if (at := text.find(tag)) >= 0]
        if not found:
            self._tail = text[-(self._longest - 1) :]
            return len(data)
        at, tag = min(found)
        then = self._tags[tag]
        if then is None:
            return at + len(tag) - len(self._tail) - 1
        used = at + len(tag) - len(self._tail)
        self._then = then
        return used

    def mark(self) -> object:
        """The text that may be the beginning of a tag."""
        return self._tail

    def restore(self, mark: object) -> None:
        """See ``Part``."""
        assert isinstance(mark, bytes)
        self._tail, self._then = mark, None

    def follower(self) -> Part | None:
        """What the tag names."""
        return None if self._then is None else self._then()

    @property
    def is_done(self) -> bool:
        """Whether a tag was read."""
        return self._then is not None

    def next_bytes(self) -> frozenset[int]:
        """Any: a tag that is refused is refused as a whole."""
        return _ALL


class Ruled:
    """Text that a grammar rules; ``never`` are strings that must not occur in it."""

    def __init__(self, matcher: ByteMatcher, then: Then, never: Collection[bytes] = ()) -> None:
        self._matcher = matcher
        self._then = then
        self._never = never
        self._longest = max(map(len, never), default=1)
        self._tail = b""
        self._num_taken = 0

    def feed(self, data: bytes) -> int:
        """What the grammar allows."""
        if any(word in self._tail + data for word in self._never):
            return 0
        taken = self._matcher.take(data)
        self._num_taken += taken
        if self._never:
            self._tail = (self._tail + data[:taken])[-(self._longest - 1) :]
        return taken

    def mark(self) -> object:
        """The text that may be the beginning of a forbidden string; counts from here."""
        self._num_taken = 0
        return self._tail

    def restore(self, mark: object) -> None:
        """See ``Part``."""
        assert isinstance(mark, bytes)
        self._matcher.undo(self._num_taken)
        self._num_taken, self._tail = 0, mark

    def follower(self) -> Part | None:
        """What was named, once the text matches."""
        return self._then() if self._matcher.can_end else None

    @property
    def is_done(self) -> bool:
        """Whether the text matches and cannot go on."""
        return self._matcher.is_complete

    @property
    def may_stop(self) -> bool:
        """Whether the text matches and nothing need follow."""
        follower = self.follower()
        return follower is not None and follower.may_stop

    def next_bytes(self) -> frozenset[int]:
        """What the grammar allows."""
        return self._matcher.next_bytes()


class Quoted:
    """The inside of a JSON string whose unescaped text a grammar rules, up to its quote.

    Characters that JSON must escape are, in their short form. ``\\u`` is left out: its digits
    would be chosen before the grammar could say anything; other control characters stay bare,
    as the reader of calls takes them.
    """

    is_done = False
    may_stop = False

    def __init__(self, matcher: ByteMatcher, then: Then) -> None:
        self._matcher = matcher
        self._then = then
        self._is_escaped = False
        self._num_taken = 0

    def feed(self, data: bytes) -> int:
        """Up to the closing quote."""
        for used, byte in enumerate(data):
            if not self._feed(byte):
                return used
        return len(data)

    def _feed(self, byte: int) -> bool:
        if self._is_escaped:
            meant = ESCAPES.get(byte)
            if meant is None or not self._take(meant):
                return False
            self._is_escaped = False
            return True
        if byte == _BACKSLASH:
            self._is_escaped = self._can_escape()
            return self._is_escaped
        return byte not in _ESCAPED_ONLY and self._take(byte)

    def _take(self, byte: int) -> bool:
        taken = self._matcher.take(bytes((byte,)))
        self._num_taken += taken
        return taken == 1

    def _can_escape(self) -> bool:
        return any(map(self._matcher.allows, ESCAPES.values()))

    def mark(self) -> object:
        """Whether a backslash came last; counts from here."""
        self._num_taken = 0
        return self._is_escaped

    def restore(self, mark: object) -> None:
        """See ``Part``."""
        self._matcher.undo(self._num_taken)
        self._num_taken, self._is_escaped = 0, mark is True

    def follower(self) -> Part | None:
        """What was named, which begins with the quote, once the text matches."""
        return self._then() if self._matcher.can_end and not self._is_escaped else None

    def next_bytes(self) -> frozenset[int]:
        """What the grammar allows, in its escaped form."""
        meant = self._matcher.next_bytes()
        if self._is_escaped:
            return frozenset(letter for letter, byte in ESCAPES.items() if byte in meant)
        bare = meant - _ESCAPED_ONLY
        return bare | {_BACKSLASH} if meant & frozenset(ESCAPES.values()) else bare


class Constraint:
    """Follows one answer from its first byte and refuses what would break the rules."""

    def __init__(self, first: Part) -> None:
        self._part = first

    def accept(self, data: bytes) -> bool:
        """Whether ``data`` may come next; if so the answer has gone on by it.

        Raises ``EngineError`` (``invalid_grammar``) when a grammar cannot be followed further.
        """
        part, mark = self._part, self._part.mark()
        rest = data
        while True:
            used = self._part.feed(rest)
            rest = rest[used:]
            if not rest:
                break
            follower = self._part.follower()
            if follower is None:
                part.restore(mark)
                self._part = part
                return False
            self._part = follower
        while self._part.is_done:
            follower = self._part.follower()
            assert follower is not None
            self._part = follower
        return True

    def allows(self, data: bytes) -> bool:
        """Whether ``accept`` would take ``data``; nothing has changed."""
        part, mark = self._part, self._part.mark()
        is_legal = self.accept(data)
        if is_legal:
            part.restore(mark)
            self._part = part
        return is_legal

    @property
    def may_stop(self) -> bool:
        """Whether the answer may end here."""
        return self._part.may_stop

    @property
    def is_free(self) -> bool:
        """Whether this is text that the rules say nothing about."""
        return isinstance(self._part, Scan)

    @property
    def is_over(self) -> bool:
        """Whether the answer must end here."""
        return isinstance(self._part, End)

    def next_bytes(self) -> frozenset[int]:
        """Every byte that may come next."""
        allowed, part = self._part.next_bytes(), self._part.follower()
        while part is not None:
            allowed |= part.next_bytes()
            part = part.follower()
        return allowed


def word(text: bytes, then: Then) -> Words:
    """Exactly ``text``."""
    return Words({text: then})
