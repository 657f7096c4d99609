"""The comparison with another tool's fixtures, on fixtures written here in the same form."""

from pathlib import Path

import pytest

from tests.agent.patch.against_codex import compare
from tests.agent.patch.scenarios import SCENARIOS, Scenario, plant


def _write(directory: Path, scenario: Scenario, *, is_atomic: bool = True) -> None:
    fixture = directory / scenario.name.replace(" ", "_")
    (fixture / "input").mkdir(parents=True)
    plant(fixture / "input", scenario.before)
    (fixture / "expected").mkdir()
    plant(fixture / "expected", scenario.expected if is_atomic else {"other": b""})
    (fixture / "patch.txt").write_text(scenario.patch)


def test_comparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal, different on purpose, and different: only the last counts."""
    by_number = {scenario.name[:3]: scenario for scenario in SCENARIOS}
    _write(tmp_path, by_number["004"])
    _write(tmp_path, by_number["006"])
    _write(tmp_path, by_number["015"], is_atomic=False)
    assert compare(tmp_path) == 0
    _write(tmp_path, by_number["003"], is_atomic=False)
    assert compare(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()[3:]
    verdicts = [line.split(maxsplit=1)[1].split("  ")[0] for line in lines]
    assert [verdict.split(":")[0].split(" ")[0] for verdict in verdicts] == [
        "DIFFERS", "same", "same", "on",
    ]  # fmt: skip
