import sys
from pathlib import Path

from benchmarks.lab.__main__ import BENCHMARKS, parts, run


def test_every_part_is_run(tmp_path: Path) -> None:
    """The peers, the network, and each small program."""
    found = parts(is_quick=False, results=tmp_path)
    small = {path.stem for path in BENCHMARKS.glob("bench_*.py")}
    assert small >= {"bench_engine", "bench_round_trip"}
    assert set(found) == {"peers", "net", *small}
    assert str(tmp_path) in found["peers"]


def test_a_quick_run_writes_nothing_that_counts(tmp_path: Path) -> None:
    found = parts(is_quick=True, results=tmp_path)
    assert "--quick" in found["peers"]
    assert {"--quick", "--no-write"} <= set(found["net"])


def test_what_a_small_program_prints_is_kept(tmp_path: Path) -> None:
    assert run("bench_one", [sys.executable, "-c", "print('{}')"], tmp_path)
    assert (tmp_path / "small" / "one.json").read_text() == "{}\n"


def test_a_part_that_fails_is_told(tmp_path: Path) -> None:
    for name in ("peers", "bench_two"):
        assert not run(name, [sys.executable, "-c", "raise SystemExit(1)"], tmp_path)
    assert not (tmp_path / "small").exists()
