from pathlib import Path

import pytest

from benchmarks.workshop import codex
from benchmarks.workshop.commands import BWRAP, CODEX, ITSELF, OURS, bubblewrap, measure
from benchmarks.workshop.programs import spawn


async def test_the_bubblewrap_line_is_one_that_works(tmp_path: Path) -> None:
    assert await spawn(bubblewrap(tmp_path), tmp_path) == b""


async def test_all_ways_are_measured_and_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real sandboxes, few rounds; Codex is not there."""
    monkeypatch.setattr(codex, "CLIENTS", tmp_path / "none")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    table = await measure(workspace, 2, 1)
    measured = {row.variant: row for row in table.rows if row.figures}
    assert {ITSELF, OURS, BWRAP} <= set(measured)
    assert "over the command" in measured[OURS].figures
    assert CODEX not in measured
    assert {each.over for each in table.ratios} == {OURS}
