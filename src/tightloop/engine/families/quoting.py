"""Text that imitates a model's control tokens, made into text.

A chat template mixes what was said with control tokens, and the prompt is read as one text. What
a command or a file says could so end its own turn and begin one of the system. A space of no width
after the first sign keeps the text readable and is no control token any more.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

from tightloop.engine.families.chat_template import ChatMessage

MARK: Final = "\u200b"
_LIKE_CONTROL: Final = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]{1,40}\]")
_BEGUN: Final = re.compile(r"(?:<[^<>\s]{0,60}|\[/?[A-Z_]{0,40})\Z")
_QUOTED_ROLES: Final = frozenset({"tool", "user", "system"})


class Quoting:
    """For one model; ``is_control`` tells of a text whether it would be read as a control token."""

    def __init__(self, is_control: Callable[[str], bool]) -> None:
        self._is_control = is_control

    def messages(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """All that others than the model have said is text and nothing else."""
        return [
            {**message, "content": self.text(message["content"])}
            if message["role"] in _QUOTED_ROLES
            else message
            for message in messages
        ]

    def text(self, text: str) -> str:
        """The text without control tokens."""
        return _LIKE_CONTROL.sub(self._quoted, text)

    def _quoted(self, match: re.Match[str]) -> str:
        found = match[0]
        return found[0] + MARK + found[1:] if self._is_control(found) else found


def without_begun(text: str) -> str:
    """A text that may go on, up to where a control token may have begun."""
    begun = _BEGUN.search(text)
    return text if begun is None else text[: begun.start()]
