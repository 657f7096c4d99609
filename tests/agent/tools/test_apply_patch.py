"""The patch tool: both forms, streamed and whole, and the grammar against our own parser."""

from pathlib import Path

import orjson
import pytest

from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.events import ChangedPath, FileChange
from tightloop.agent.tools.apply_patch import GRAMMAR, ApplyPatch
from tightloop.agent.tools.interface import StreamingTool, ToolContext

PATCH = "*** Begin Patch\n*** Update File: f\n@@\n-old \u00e9\n+new \U0001f600\n*** End Patch"


def _context(tmp_path: Path) -> ToolContext:
    (tmp_path / "f").write_text("old \u00e9\n")
    return ToolContext(tmp_path, Recorded())


def test_definitions() -> None:
    custom = ApplyPatch().definition()
    assert (custom["type"], custom["format"]["syntax"]) == ("custom", "lark")
    function = ApplyPatch(as_function=True).definition()
    assert function["parameters"]["required"] == ["input"]
    assert isinstance(ApplyPatch(), StreamingTool)
    for marker in ("*** Begin Patch", "*** End of File", "*** Move to: "):
        assert marker in GRAMMAR


@pytest.mark.parametrize("wrap", [False, True])
async def test_whole_text(tmp_path: Path, *, wrap: bool) -> None:
    arguments = orjson.dumps({"input": PATCH}).decode() if wrap else PATCH
    result = await ApplyPatch().run(arguments, _context(tmp_path))
    assert (tmp_path / "f").read_text() == "new \U0001f600\n"
    assert result.item == FileChange("item_0", (ChangedPath("f", "update"),))
    assert result.spans[0].label == "apply_patch f"


@pytest.mark.parametrize("is_custom", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_streamed_in_pieces(tmp_path: Path, size: int, *, is_custom: bool) -> None:
    """Also with escapes cut in the middle: the ASCII form has surrogate pairs."""
    import json

    arguments = PATCH if is_custom else json.dumps({"input": PATCH})
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=is_custom)
    for at in range(0, len(arguments), size):
        call.feed(arguments[at : at + size])
    assert (tmp_path / "f").read_text() == "old \u00e9\n"
    result = await call.run(arguments)
    assert result.is_ok
    assert (tmp_path / "f").read_text() == "new \U0001f600\n"


@pytest.mark.parametrize("fed", ["", PATCH[:30], "something else"])
async def test_the_final_text_counts(tmp_path: Path, fed: str) -> None:
    """Deltas that were lost or differ do not matter."""
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=True)
    call.feed(fed)
    assert (await call.run(PATCH)).is_ok


async def test_json_sent_to_the_free_form_tool(tmp_path: Path) -> None:
    arguments = orjson.dumps({"patch": PATCH}).decode()
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=True)
    call.feed(arguments)
    assert (await call.run(arguments)).is_ok


@pytest.mark.parametrize("arguments", ["{", '{"input": 5}', '{"other": "x"}'])
async def test_bad_json(tmp_path: Path, arguments: str) -> None:
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=False)
    call.feed(arguments)
    result = await call.run(arguments)
    assert not result.is_ok
    assert "apply_patch" in result.text


async def test_dropped_calls_leave_nothing(tmp_path: Path) -> None:
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=True)
    call.feed(PATCH)
    call.close()
    call.close()
    assert (tmp_path / "f").read_text() == "old \u00e9\n"


async def test_failure_names_the_file(tmp_path: Path) -> None:
    result = await ApplyPatch().run(PATCH.replace("-old", "-odd"), _context(tmp_path))
    assert isinstance(result.item, FileChange)
    assert (result.item.status, result.item.changes) == ("failed", (ChangedPath("f", "update"),))


async def test_a_move_shows_both_names(tmp_path: Path) -> None:
    patch = PATCH.replace("@@", "*** Move to: g\n@@")
    result = await ApplyPatch().run(patch, _context(tmp_path))
    assert isinstance(result.item, FileChange)
    assert result.item.changes == (ChangedPath("f", "delete"), ChangedPath("g", "add"))
