"""``view_image``: files of the workspace, and of nowhere else."""

from pathlib import Path

import orjson
import pytest

from tests.agent.tools.test_images import PNG
from tightloop.agent.events import ImageView
from tightloop.agent.tools.images import has_images
from tightloop.agent.tools.interface import ToolContext, ToolResult
from tightloop.agent.tools.view_image import ViewImage
from tightloop.protocol.items import FunctionCallOutput
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import open_sandbox


async def view(workspace: Path, path: object) -> ToolResult:
    sandbox = await open_sandbox(Policy(workspace, warm_tests=False), kind="none")
    try:
        arguments = orjson.dumps({"path": path}).decode()
        return await ViewImage().run(arguments, ToolContext(workspace, sandbox, item_id="i"))
    finally:
        await sandbox.close()


async def test_an_image_is_shown(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.png").write_bytes(PNG)
    for path in ("docs/a.png", "./docs/a.png", f"{tmp_path}/docs/a.png"):
        result = await view(tmp_path, path)
        assert result.is_ok
        assert result.text == f"docs/a.png, {len(PNG)} bytes:"
        assert has_images([FunctionCallOutput("c", result.text, parts=result.parts)])
        assert result.item == ImageView("i", "docs/a.png")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../outside.png", "outside the workspace"),
        ("link.png", "a symlink"),
        ("way/outside.png", "leads out"),
        ("none.png", "no such file"),
        ("text.png", "not a PNG"),
        (3, "'path' must be a path"),
        (".git/a.png", "protected"),
    ],
)
async def test_everything_else_is_refused_in_words(tmp_path: Path, path: object, said: str) -> None:
    """Links cannot lead out: the file is read with the user's rights, not with the sandbox's."""
    (tmp_path / "outside.png").write_bytes(PNG)
    workspace = tmp_path / "w"
    (workspace / ".git").mkdir(parents=True)
    (workspace / "link.png").symlink_to("../outside.png")
    (workspace / "way").symlink_to(tmp_path)
    (workspace / "text.png").write_text("no image")
    result = await view(workspace, path)
    assert not result.is_ok
    assert said in result.text
    assert result.parts == ()
