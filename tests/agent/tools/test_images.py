"""Images as parts: told by their bytes, bounded, replaced for models that read text only."""

import base64
from pathlib import Path

import msgspec
import pytest

from tightloop.agent.tools.images import (
    LEFT_OUT,
    MAX_IMAGE_BYTES,
    ImageError,
    has_images,
    image_part,
    media_type,
    without_images,
)
from tightloop.protocol.items import (
    CustomToolCallOutput,
    FunctionCallOutput,
    Message,
    TextPart,
    user_message,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"RIFF0000WEBPVP8 ", "image/webp"),
        (b"RIFF0000WAVE", None),
        (b"<svg/>", None),
        (b"", None),
    ],
)
def test_kinds_by_their_first_bytes(data: bytes, kind: str | None) -> None:
    assert media_type(data) == kind


def test_a_file_becomes_a_data_url(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(PNG)
    part = msgspec.json.decode(image_part(tmp_path / "a.dat").raw)
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert part == {"type": "input_image", "image_url": url, "detail": "auto"}


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    (tmp_path / "t.png").write_text("no image")
    with (tmp_path / "big.png").open("wb") as file:
        file.write(PNG)
        file.truncate(MAX_IMAGE_BYTES * 3)
    for name, said in (
        ("t.png", "not a PNG, JPEG, GIF or WebP"),
        ("big.png", "has 15.7 MB; at most 5.2 MB"),
        ("none.png", "is not a file"),
        (".", "is not a file"),
    ):
        with pytest.raises(ImageError, match=said):
            image_part(tmp_path / name)


def test_a_line_stands_for_each_image(tmp_path: Path) -> None:
    """Items without images stay the very same, so that what was sent is known to be the same."""
    (tmp_path / "a.png").write_bytes(PNG)
    image = image_part(tmp_path / "a.png")
    plain = user_message("hello")
    message = Message("user", (TextPart("input_text", "look"), image))
    output = FunctionCallOutput("c", "a.png:", parts=(TextPart("input_text", "a.png:"), image))
    custom = CustomToolCallOutput("d", "", parts=(image,))
    assert has_images([message])
    assert not has_images([plain])
    items = without_images([plain, message, output, custom])
    assert items[0] is plain
    assert not has_images(items)
    assert isinstance(items[1], Message)
    assert items[1].text == f"look{LEFT_OUT}"
    assert items[2] == FunctionCallOutput("c", f"a.png:{LEFT_OUT}")
    assert items[3] == CustomToolCallOutput("d", LEFT_OUT)
