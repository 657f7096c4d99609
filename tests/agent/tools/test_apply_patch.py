"""The patch tool: both forms, streamed and whole, and the grammar against our own parser."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.events import ChangedPath, FileChange
from tightloop.agent.patch.apply import StreamEvent
from tightloop.agent.patch.operations import FileSeen
from tightloop.agent.patch.plan import PatchPlanned
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


LONG = (
    "*** Begin Patch\n*** Update File: f\n@@\n-odd\n+even\n@@\n"
    + "".join(f"-line {number}\n" for number in range(50))
    + "*** End Patch"
)


@pytest.mark.parametrize("is_custom", [True, False])
async def test_hopeless_as_soon_as_a_chunk_has_no_place(tmp_path: Path, *, is_custom: bool) -> None:
    """108: with the answer, the call as far as it came, and what is expected to be left."""
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=is_custom)
    text = LONG if is_custom else orjson.dumps({"input": LONG}).decode()
    hopeless, num_fed = None, 0
    while hopeless is None:
        call.feed(text[num_fed])
        num_fed += 1
        hopeless = call.hopeless()
    assert text[:num_fed].endswith("+even\n" if is_custom else "+even\\n")
    assert hopeless.num_more_tokens > 100
    given = hopeless.arguments if is_custom else orjson.loads(hopeless.arguments)["input"]
    assert LONG.startswith(given)
    assert "No file was changed" in hopeless.result.text
    assert "Your response was stopped at this point." in hopeless.result.text
    assert len(hopeless.result.text.splitlines()) <= 20
    assert isinstance(hopeless.result.item, FileChange)
    assert hopeless.result.item.status == "failed"
    call.close()
    assert (tmp_path / "f").read_text() == "old \u00e9\n"


@pytest.mark.parametrize(
    "text",
    [PATCH, orjson.dumps({"patch": LONG}).decode(), "", "*** Begin Patch\n*** Update File: f\n"],
)
def test_not_hopeless(tmp_path: Path, text: str) -> None:
    """Also not a text that is JSON for a tool which takes free text: that is understood later."""
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=True)
    call.feed(text)
    assert call.hopeless() is None
    call.close()


@pytest.mark.parametrize("arguments", ['{"patch": "x\\n", "input": "y', '{"input": "x\\n\\q'])
def test_arguments_of_two_minds_are_not_given_up(tmp_path: Path, arguments: str) -> None:
    """Two texts, or broken JSON: what they come to is seen when they are complete."""
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=False)
    call.feed(arguments)
    assert call.hopeless() is None
    call.close()


def test_hope_returns_with_the_file(tmp_path: Path) -> None:
    call = ApplyPatch().prepare(_context(tmp_path), is_custom=True)
    call.feed(LONG[: LONG.index("-line 0")])
    (tmp_path / "f").write_text("odd\n")
    assert call.hopeless() is None
    call.close()


async def test_the_tool_learns_how_long_patches_are(tmp_path: Path) -> None:
    """After patches of one small chunk each, a failed one is not expected to go on for long."""
    tool = ApplyPatch()
    context = _context(tmp_path)

    async def expected() -> float:
        call = tool.prepare(context, is_custom=True)
        call.feed("*** Begin Patch\n*** Update File: f\n@@\n-odd\n+even\n@@\n")
        hopeless = call.hopeless()
        call.close()
        assert hopeless is not None
        return hopeless.num_more_tokens

    before = await expected()
    for number in range(10):
        patch = f"*** Begin Patch\n*** Add File: g{number}\n+x\n*** End Patch"
        call = tool.prepare(context, is_custom=True)
        call.feed(patch)
        assert (await call.run(patch)).is_ok
    assert await expected() < before


async def test_patches_can_be_followed(tmp_path: Path) -> None:
    """The listener of the context hears of the file when its header line is complete."""
    heard: list[StreamEvent] = []
    context = replace(_context(tmp_path), on_patch=heard.append)
    call = ApplyPatch().prepare(context, is_custom=True)
    call.feed(PATCH[: PATCH.index("@@")])
    assert heard == [FileSeen("update", "f", 2)]
    call.feed(PATCH[PATCH.index("@@") :])
    await call.run(PATCH)
    assert isinstance(heard[-1], PatchPlanned)
    assert len([event for event in heard if isinstance(event, FileSeen)]) == 1
