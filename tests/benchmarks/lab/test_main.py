import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks.lab.__main__ import BENCHMARKS, parts, run, with_facts


def test_every_part_is_run(tmp_path: Path) -> None:
    """The peers, the network, the tool side, real projects' tests, and each small program."""
    found = parts(is_quick=False, results=tmp_path)
    small = {path.stem for path in BENCHMARKS.glob("bench_*.py")}
    assert small >= {"bench_engine", "bench_round_trip"}
    assert set(found) == {"peers", "net", "workshop", "warm", *small}
    assert str(tmp_path) in found["peers"]
    assert str(tmp_path) in found["workshop"]


def test_a_quick_run_writes_nothing_that_counts(tmp_path: Path) -> None:
    found = parts(is_quick=True, results=tmp_path)
    assert "--quick" in found["peers"]
    assert "--quick" in found["workshop"]
    assert "--quick" in found["warm"]
    assert {"--quick", "--no-write"} <= set(found["net"])


def test_what_a_small_program_prints_is_kept(tmp_path: Path) -> None:
    """With the machine and the date, unless it says them itself."""
    assert run("bench_one", [sys.executable, "-c", """print('{"a": 1}')"""], tmp_path)
    found = json.loads((tmp_path / "small" / "one.json").read_text())
    assert found["a"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["made"])
    assert {"num_cores", "cpu", "kernel", "python", "llama"} <= found["machine"].keys()
    assert json.loads(with_facts('{"made": "2026-11-23"}'))["made"] == "2026-11-23"


def test_what_is_no_json_is_told_and_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run("bench_three", [sys.executable, "-c", "print('fast')"], tmp_path)
    assert "bench_three printed no JSON object" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_part_that_fails_is_told(tmp_path: Path) -> None:
    for name in ("peers", "bench_two"):
        assert not run(name, [sys.executable, "-c", "raise SystemExit(1)"], tmp_path)
    assert not (tmp_path / "small").exists()
