"""What a foreign tool gave back: as text and images for the model, as blocks for the events.

Blocks are dicts as the protocol writes them (``{"type": "text", "text": ...}``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tightloop.agent.tools.images import MAX_IMAGE_BYTES, encoded_part
from tightloop.agent.tools.output import shorten_output
from tightloop.protocol.items import Part, TextPart

MAX_IMAGES = 8
_SEEN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a call. ``blocks`` are as they came; ``structured`` is JSON, None without one."""

    blocks: Sequence[Mapping[str, Any]]
    structured: Any = None
    is_error: bool = False


def for_model(
    answer: Answer, *, sees: bool, redact: Callable[[str], str] = str
) -> tuple[str, tuple[Part, ...]]:
    """The text, cut as outputs of commands are, and all parts when there is more than text."""
    texts: list[str] = []
    images: list[Part] = []
    for block in answer.blocks:
        image = _image(block) if sees and len(images) < MAX_IMAGES else None
        if image is None:
            texts.append(_text(block))
        else:
            images.append(image)
    if answer.structured is not None and not any(map(_is_text, answer.blocks)):
        texts.append(_json(answer.structured))
    text = shorten_output(redact("\n".join(filter(None, texts))))
    if not text and not images:
        text = "(the tool gave back nothing)"
    if answer.is_error:
        text = f"The tool failed: {text}"
    if not images:
        return text, ()
    text = text or f"{len(images)} image(s):"
    return text, (TextPart("input_text", text), *images)


def for_events(
    blocks: Iterable[Mapping[str, Any]], redact: Callable[[str], str] = str
) -> tuple[dict[str, Any], ...]:
    """The blocks with their texts cut and redacted, and without bytes of images and files."""
    return tuple(_shown(block, redact) for block in blocks)


def _shown(block: Mapping[str, Any], redact: Callable[[str], str]) -> dict[str, Any]:
    shown = dict(block)
    if isinstance(shown.get("text"), str):
        shown["text"] = shorten_output(redact(shown["text"]))
    if isinstance(shown.get("data"), str):
        shown["data"] = f"<{len(shown['data'])} characters of base64>"
    resource = shown.get("resource")
    if isinstance(resource, dict):
        shown["resource"] = _shown(resource, redact)
        if isinstance(resource.get("blob"), str):
            shown["resource"]["blob"] = f"<{len(resource['blob'])} characters of base64>"
    return shown


def _is_text(block: Mapping[str, Any]) -> bool:
    return isinstance(block.get("text"), str) and bool(block["text"].strip())


def _image(block: Mapping[str, Any]) -> Part | None:
    """The image in a block, if a model can be shown it."""
    data, kind = block.get("data"), block.get("mimeType")
    if block.get("type") != "image" or not isinstance(data, str) or kind not in _SEEN:
        return None
    return encoded_part(data, kind) if len(data) * 3 // 4 <= MAX_IMAGE_BYTES else None


def _text(block: Mapping[str, Any]) -> str:
    """A block in words: its text, or what it is."""
    if isinstance(block.get("text"), str):
        return str(block["text"])
    kind = block.get("type")
    if kind == "resource_link":
        return f"[resource {block.get('name', '')} {block.get('uri', '')}]"
    resource = block.get("resource")
    if isinstance(resource, dict):
        if isinstance(resource.get("text"), str):
            return f"[resource {resource.get('uri', '')}]\n{resource['text']}"
        return f"[resource {resource.get('uri', '')}, {resource.get('mimeType', 'bytes')}]"
    return f"[{kind} {block.get('mimeType', '')}, not shown]"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
