"""The command tool of a session that may only read."""

import json
import os
from pathlib import Path

import pytest

from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.tools.reading_commands import ReadingCommands
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import open_sandbox

PATCH = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: new\n+x\n*** End Patch\nEOF"


@pytest.mark.parametrize("arguments", [json.dumps({"cmd": PATCH}), "{}"])
async def test_patches_and_nonsense_are_refused(tmp_path: Path, arguments: str) -> None:
    """The patch code of the agent runs outside the sandbox, so this is where it is stopped."""
    policy = Policy(tmp_path, is_read_only=True, warm_tests=False)
    sandbox = await open_sandbox(policy, kind="bubblewrap")
    try:
        result = await ReadingCommands().run(arguments, ToolContext(tmp_path, sandbox))
    finally:
        await sandbox.close()
    assert not result.is_ok
    assert "this session may only read" in result.text
    assert os.listdir(tmp_path) == []


async def test_commands_run_and_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    policy = Policy(tmp_path, is_read_only=True, warm_tests=False)
    sandbox = await open_sandbox(policy, kind="bubblewrap")
    try:
        call = json.dumps({"cmd": "cat file; echo x > new; echo y > /tmp/y && cat /tmp/y"})
        result = await ReadingCommands().run(call, ToolContext(tmp_path, sandbox))
    finally:
        await sandbox.close()
    assert result.text.startswith("text\n")
    assert "Read-only file system" in result.text
    assert "\ny\n" in result.text
    assert os.listdir(tmp_path) == ["file"]
