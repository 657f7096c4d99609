from pathlib import Path

import pytest

from benchmarks.lab.record import Experiment, Figure, Machine, Row, paired_ratio
from benchmarks.lab.report import experiments, report

MACHINE = Machine(2, "a processor", "Linux 6.18", "3.11.7", 0.1)


def experiment(name: str) -> Experiment:
    return Experiment(
        name=name,
        title=name,
        settings={},
        machine=MACHINE,
        versions={"nginx": "1.22"},
        rows=[
            Row("nginx", {}, {"ttft": Figure.of([1.0], "us")}),
            Row("smg", {}, {}, missing="not installed"),
        ],
        ratios=[paired_ratio(f"ttft of {name}", "nginx", "tightloop", [2.0] * 5, [4.0] * 5)],
    )


def test_every_ratio_of_every_experiment_is_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what was not measured is said once; other files are named, not read."""
    for name in ("round-trip", "per-token"):
        experiment(name).write(tmp_path)
    (tmp_path / "other.json").write_text("[1]")
    text = report(experiments(tmp_path))
    assert "other.json is no result" in capsys.readouterr().err
    for name in ("per-token", "round-trip"):
        assert f"== {name}: {name}\n\nover tightloop\nratio of" in text
        assert f"nginx     ttft of {name}  0.50x [0.50 0.50]" in text
    assert text.count("smg: not measured: not installed") == 1
    assert text.count("versions: nginx 1.22") == 1
    assert "load at start: per-token 0.1, round-trip 0.1" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_no_results_say_where_they_come_from(tmp_path: Path) -> None:
    assert report(experiments(tmp_path)) == "no results; make bench makes them\n"
