"""What a text model can read of a conversation, and the refusal of the rest."""

from collections.abc import Iterable, Sequence

from tightloop.engine.interface import EngineError
from tightloop.protocol.items import (
    CustomToolCallOutput,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    Part,
)

_KINDS = {"input_image": "an image", "input_file": "a file", "input_audio": "audio"}


def refuse_unreadable(items: Iterable[Item], model: str) -> None:
    """Every part of every item is text that ``model`` can read (a refusal is, and says nothing).

    Raises ``EngineError``, code ``unsupported_content``, that names the part and the model.
    """
    for item in items:
        parts: Sequence[Part] = ()
        if isinstance(item, Message):
            parts = item.content
        elif isinstance(item, FunctionCallOutput | CustomToolCallOutput):
            parts = item.parts
        for part in parts:
            if isinstance(part, OpaquePart) and part.type != "refusal":
                raise _refusal(part.type, item, model)


def _refusal(kind: str, item: Item, model: str) -> EngineError:
    what = _KINDS.get(kind, f"a part of type {kind!r}")
    place = f"a message of role {item.role!r}" if isinstance(item, Message) else "a tool's output"
    return EngineError(
        f"{place} holds {what}, and the model {model!r} reads text only; leave it out of the "
        "conversation, or serve a model that can (--model remote:MODEL@https://HOST/v1)",
        code="unsupported_content",
    )
