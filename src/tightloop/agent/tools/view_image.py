"""The tool ``view_image``: an image file of the workspace, for models that can see."""

import asyncio
from pathlib import Path
from typing import Any

from tightloop.agent.events import ImageView, ThreadItem
from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.paths import Root, clean_path
from tightloop.agent.tools.arguments import ArgumentsError, read_object
from tightloop.agent.tools.images import MAX_IMAGE_BYTES, ImageError, part_of
from tightloop.agent.tools.interface import ToolContext, ToolResult
from tightloop.protocol.items import TextPart
from tightloop.trace.spans import Span

_EXAMPLE = '{"path": "docs/plot.png"}'


class ViewImage:
    """``{"path": str}``. Reads below the workspace only, and no links at the end of the path."""

    name = "view_image"
    is_ordered = True  # an image may be what the command before it makes

    def definition(self) -> dict[str, Any]:
        """See ``Tool.definition``."""
        path = {"type": "string", "description": "Path of the file, relative to the workspace."}
        return {
            "type": "function",
            "name": self.name,
            "description": "Shows you an image of the workspace: PNG, JPEG, GIF or WebP, at most "
            f"{MAX_IMAGE_BYTES >> 20} MB.",
            "strict": False,
            "parameters": {
                "type": "object",
                "properties": {"path": path},
                "required": ["path"],
                "additionalProperties": False,
            },
        }

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        """None: only that it was looked at is shown."""
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """See ``Tool.run``."""
        start_ns = context.clock.now_ns()
        try:
            path = read_object(arguments, self.name, _EXAMPLE).get("path")
            if not isinstance(path, str):
                raise ArgumentsError(f"view_image: 'path' must be a path. Send {_EXAMPLE}")
            name = clean_path(path, context.workspace, known_as=context.shown_at)
            data = await asyncio.to_thread(_read, context.workspace, name)
            part = part_of(data, name)
        except (ArgumentsError, ImageError) as error:
            return ToolResult(str(error), is_ok=False)
        except PatchError as error:
            return ToolResult(f"view_image: {error.failure.message}", is_ok=False)
        said = f"{name}, {len(data)} bytes:"
        span = Span("tool", start_ns, context.clock.now_ns(), f"view_image {name}")
        item = ImageView(context.item_id, name)
        return ToolResult(said, True, (span,), item, (TextPart("input_text", said), part))


def _read(workspace: Path, name: str) -> bytes:
    root = Root(workspace)
    try:
        file = root.read(name, MAX_IMAGE_BYTES)
    finally:
        root.close()
    if file is None:
        raise ImageError(f"{name}: there is no such file in the workspace")
    return file.content
