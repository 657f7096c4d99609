"""Items of a conversation, as the Responses API writes them.

Known item types become frozen structs; any other type is kept as the bytes it came in
(``OpaqueItem``), so that a new client's items pass through untouched and are never rejected.
"""

from msgspec import Raw, Struct


class TextPart(Struct, frozen=True, gc=False):
    """A text part of a message: ``input_text``, ``output_text`` or ``summary_text``."""

    type: str
    text: str


class OpaquePart(Struct, frozen=True):
    """A content part this package does not interpret (images, files, refusals)."""

    type: str
    raw: Raw


Part = TextPart | OpaquePart


class Message(Struct, frozen=True):
    """A message of user, assistant, system or developer."""

    role: str
    content: tuple[Part, ...]
    id: str | None = None
    phase: str | None = None

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class FunctionCall(Struct, frozen=True):
    """The model calls a function tool; ``arguments`` is JSON text exactly as generated."""

    call_id: str
    name: str
    arguments: str
    id: str | None = None
    namespace: str | None = None


class FunctionCallOutput(Struct, frozen=True):
    """What a function tool gave back, as text (text parts of a part list are joined)."""

    call_id: str
    output: str
    id: str | None = None


class CustomToolCall(Struct, frozen=True):
    """The model calls a free-form tool; ``input`` is its text."""

    call_id: str
    name: str
    input: str
    id: str | None = None
    namespace: str | None = None


class CustomToolCallOutput(Struct, frozen=True):
    """What a free-form tool gave back, as text."""

    call_id: str
    output: str
    id: str | None = None


class Reasoning(Struct, frozen=True):
    """A reasoning item: readable summary and, from some hosts, an encrypted body."""

    summary: tuple[str, ...] = ()
    encrypted_content: str | None = None
    id: str | None = None


class OpaqueItem(Struct, frozen=True):
    """An item type this package does not interpret, kept byte for byte."""

    type: str
    raw: Raw


Item = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | CustomToolCall
    | CustomToolCallOutput
    | Reasoning
    | OpaqueItem
)


def user_message(text: str) -> Message:
    """A user message of one text part."""
    return Message(role="user", content=(TextPart("input_text", text),))
