"""Images as parts of a conversation: taken as they are, told from their first bytes, never resized.

A request grows by four thirds of each image's bytes and hosts refuse large ones, hence the limit.
Nothing here decodes an image: what a damaged one does is the model's host's business.
"""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Raw, structs

from tightloop.protocol.items import (
    CustomToolCallOutput,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    Part,
    TextPart,
)

MAX_IMAGE_BYTES: Final = 5 << 20
"""Of one image. Hosts take between 5 and 20 MB of base64 in one image."""
LEFT_OUT: Final = "[an image was here; this model reads text only]"
_TYPE: Final = "input_image"


class ImageError(ValueError):
    """A file cannot be shown to a model; the text says why and what would do."""


def media_type(data: bytes) -> str | None:
    """``image/png``, ``image/jpeg``, ``image/gif`` or ``image/webp`` by the first bytes, else None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def image_part(path: Path) -> OpaquePart:
    """The image in a file of the user, for a message. Raises ImageError."""
    try:
        if not path.is_file():
            raise ImageError(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
        size = path.stat().st_size
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    return part_of(data, str(path), max(size, len(data)))


def part_of(data: bytes, name: str, num_bytes: int | None = None) -> OpaquePart:
    """The image in ``data``; ``name`` is for errors, ``num_bytes`` its whole size. Raises ImageError."""
    size = len(data) if num_bytes is None else num_bytes
    if size > MAX_IMAGE_BYTES:
        raise ImageError(
            f"{name} has {size / 1e6:.1f} MB; at most {MAX_IMAGE_BYTES / 1e6:.1f} MB can be shown. "
            "Make it smaller first: nothing here resizes images"
        )
    kind = media_type(data)
    if kind is None:
        raise ImageError(f"{name} is not a PNG, JPEG, GIF or WebP image")
    return encoded_part(base64.b64encode(data).decode(), kind)


def encoded_part(data: str, kind: str) -> OpaquePart:
    """An image whose bytes are given in base64."""
    fields = {"type": _TYPE, "image_url": f"data:{kind};base64,{data}", "detail": "auto"}
    return OpaquePart(_TYPE, Raw(msgspec.json.encode(fields)))


def has_images(items: Iterable[Item]) -> bool:
    """Whether an image is in one of the items."""
    return any(_is_image(part) for item in items for part in _parts(item))


def without_images(items: Iterable[Item]) -> list[Item]:
    """The items with a line of text in the place of each image, for a model that cannot see."""
    return [_without_images(item) for item in items]


def _without_images(item: Item) -> Item:
    if not any(map(_is_image, _parts(item))):
        return item
    if isinstance(item, Message):
        return structs.replace(item, content=tuple(map(_as_text, item.content)))
    if isinstance(item, FunctionCallOutput | CustomToolCallOutput):
        parts = tuple(map(_as_text, item.parts))
        if all(isinstance(part, TextPart) for part in parts):
            text = "".join(part.text for part in parts if isinstance(part, TextPart))
            return structs.replace(item, output=text, parts=())
        return structs.replace(item, parts=parts)
    return item


def _as_text(part: Part) -> Part:
    return TextPart("input_text", LEFT_OUT) if _is_image(part) else part


def _is_image(part: Part) -> bool:
    return isinstance(part, OpaquePart) and part.type == _TYPE


def _parts(item: Item) -> Sequence[Part]:
    if isinstance(item, Message):
        return item.content
    if isinstance(item, FunctionCallOutput | CustomToolCallOutput):
        return item.parts
    return ()
