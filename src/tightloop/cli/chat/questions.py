"""Short questions that one key answers.

A person who is typing when a question comes up must not answer it by accident: a key counts only
when the editor is empty and the question has been visible for a moment. Typed as a line, the same
letter or its word always counts.
"""

from dataclasses import dataclass

GUARD_NS = 300_000_000
"""How long a new question takes no single key."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``key`` is one letter."""

    key: str
    label: str

    @property
    def shown(self) -> str:
        """Such as ``[y]es``, or ``[y] once`` where the label does not begin with the letter."""
        if self.label.startswith(self.key):
            return f"[{self.key}]{self.label[len(self.key) :]}"
        return f"[{self.key}] {self.label}"


@dataclass(frozen=True, slots=True)
class Question:
    """``details`` stand below the text. ``escape`` is the key that Esc stands for; without one Esc
    is no answer."""

    id: int
    text: str
    choices: tuple[Choice, ...]
    escape: str = ""
    details: tuple[str, ...] = ()

    def choice(self, typed: str) -> str | None:
        """The key that was meant by a letter or a label; None when it is no answer."""
        word = typed.strip().lower()
        return next((c.key for c in self.choices if word in (c.key, c.label.lower())), None)

    @property
    def answers(self) -> str:
        """All choices on one line."""
        return "  ".join(choice.shown for choice in self.choices)


class Questions:
    """Those that wait, the oldest first; the first one is shown."""

    def __init__(self) -> None:
        self._waiting: list[Question] = []
        self._shown_ns = 0

    @property
    def first(self) -> Question | None:
        """The one that is shown."""
        return self._waiting[0] if self._waiting else None

    def add(self, question: Question, now_ns: int) -> None:
        """One more."""
        self._waiting.append(question)
        if len(self._waiting) == 1:
            self._shown_ns = now_ns

    def drop(self, question_id: int, now_ns: int) -> bool:
        """It is answered, or of no interest any more; False when it was not there."""
        first = self.first
        kept = [one for one in self._waiting if one.id != question_id]
        is_known = len(kept) < len(self._waiting)
        self._waiting = kept
        if self.first is not first:
            self._shown_ns = now_ns
        return is_known

    def answer_of(self, letter: str, now_ns: int) -> str | None:
        """What a single key answers, pressed while nothing else was being typed."""
        if self.first is None or now_ns - self._shown_ns < GUARD_NS:
            return None
        return self.first.choice(letter)
