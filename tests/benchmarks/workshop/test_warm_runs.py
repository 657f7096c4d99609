from pathlib import Path

import pytest

from benchmarks.lab.processes import NotStarted
from benchmarks.workshop.warm_runs import CLICK, COLD, edit_click, measure

WRITE = """\
class HelpFormatter:
    def write(self, string: str) -> None:
        \"\"\"Writes a unicode string into the internal buffer.\"\"\"
        self.buffer.append(string)
"""


def test_clicks_function_gets_another_body_each_time(tmp_path: Path) -> None:
    path = tmp_path / "src" / "click" / "formatting.py"
    path.parent.mkdir(parents=True)
    path.write_text(WRITE)
    for number in (0, 7):
        edit_click(tmp_path, number)
        assert WRITE.replace("self.buffer", f"{number}; self.buffer") == path.read_text()
    path.write_text("")
    with pytest.raises(NotStarted, match="not as expected"):
        edit_click(tmp_path, 1)


async def test_a_project_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTLOOP_PROJECTS", str(tmp_path / "none"))
    table, levels = await measure([CLICK], tmp_path, 1)
    [row] = table.rows
    assert (row.variant, levels) == (COLD, [])
    assert "make projects" in row.missing
