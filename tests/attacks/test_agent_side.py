"""Attacks that meet the agent's own code: its patch tool, and what it writes to a terminal."""

import io
from pathlib import Path

import pytest

from tests.agent.patch.scenarios import Tree, harvest, plant
from tests.attacks.attack import by_test
from tightloop.agent.events import CommandExecution, ItemCompleted
from tightloop.agent.patch.apply import apply_patch
from tightloop.agent.patch.hosted import apply_hosted
from tightloop.agent.terminal.progress import ProgressPrinter

TREE: Tree = {
    "ws/file": b"0\n",
    "ws/link": "../out",
    "ws/deep/link": "/nonexistent",
    "out/file": b"0\n",
}
LEADING_OUT = ["{out}/new", "../out/new", "sub/../../out/new", "link/new", "./link/new"]


@by_test("F21", "a patch for a path outside, or through a link", "refused")
@pytest.mark.parametrize("path", LEADING_OUT)
@pytest.mark.parametrize("form", ["Add", "Update", "Delete", "Move"])
def test_a_patch_that_leads_out_is_refused(tmp_path: Path, path: str, form: str) -> None:
    """Nothing changes anywhere; a program that opens the name as it stands does write there."""
    plant(tmp_path, dict(TREE))
    name = path.format(out=tmp_path / "out")
    target = name if form in ("Add", "Move") else name.replace("new", "file")
    body = {
        "Add": f"*** Add File: {target}\n+x\n",
        "Update": f"*** Update File: {target}\n@@\n-0\n+x\n",
        "Delete": f"*** Delete File: {target}\n",
        "Move": f"*** Update File: file\n*** Move to: {target}\n@@\n-0\n+x\n",
    }[form]
    outcome = apply_patch(f"*** Begin Patch\n{body}*** End Patch\n", tmp_path / "ws")
    assert outcome.failure is not None
    assert outcome.failure.error == "forbidden_path"
    assert harvest(tmp_path) == TREE
    (tmp_path / "ws" / "sub").mkdir()
    (tmp_path / "ws" / target).write_bytes(b"control")
    assert b"control" in harvest(tmp_path / "out").values()


@pytest.mark.parametrize("path", ["new\nx", "ne\rw", "\x1b[2Jnew", "new\x00"])
def test_a_patch_for_a_path_with_control_characters_is_refused(tmp_path: Path, path: str) -> None:
    """F21: the hosted form carries the path in a field, where a line break fits."""
    plant(tmp_path, dict(TREE))
    call = {"type": "create_file", "path": path, "diff": "+x"}
    outcome = apply_hosted(call, tmp_path / "ws")
    assert outcome.failure is not None
    assert outcome.failure.error in ("forbidden_path", "bad_syntax")
    assert harvest(tmp_path) == TREE


SEQUENCES = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "title": "\x1b]0;evil\x07",
    "title, other end": "\x1b]2;evil\x1b\\",
    "cursor": "\x1b[2J\x1b[1;1H",
    "colour": "\x1b[31m",
    "device control": "\x1bPevil\x1b\\",
    "eight bits": "\x9b2J\x9d0;evil\x9c",
    "backspace": "ok\b\bno",
    "carriage return": "first\rsecond",
    "not ended": "\x1b]0;evil",
    "direction": "\u202eevil",
    "cut by one": "\x1b\x1b[31m[31m",
}


@by_test("P13", "escape sequences in what a command prints", "shown without them")
@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("is_failed", [False, True])
def test_no_sequence_reaches_the_terminal(name: str, is_failed: bool) -> None:
    """The text before and after is shown, and nothing that a terminal would obey."""
    text = f"before\n{SEQUENCES[name]}\nafter\n"
    harmless = set("\n") | {chr(number) for number in range(32, 127)} | {"\ufffd"}
    assert not set(text) <= harmless, "the control: a terminal would obey this"
    written = io.StringIO()
    item = CommandExecution(
        id="1",
        command=f"printf {SEQUENCES[name]}",
        aggregated_output=text,
        exit_code=1 if is_failed else 0,
        status="failed" if is_failed else "completed",
    )
    ProgressPrinter(written)(ItemCompleted(item))
    assert "after" in written.getvalue()
    assert set(written.getvalue()) <= harmless
