import subprocess
import sys
from pathlib import Path

from benchmarks.lab.record import read

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def test_a_quick_run_measures_and_writes(tmp_path: Path) -> None:
    """Everything real: our patches and git's on a small and a large file."""
    argv = [sys.executable, "-m", "benchmarks.workshop", "--quick", "--only", "workshop-patches"]
    argv += ["--results", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "workshop-patches.json")
    for step in ("closed chunk -> located", "first delta -> applied"):
        assert found.row("tightloop", step=step, file="2,000 lines").figures["time"].n == 4
    assert {ratio.over for ratio in found.ratios} == {"tightloop"}
    assert done.stdout.startswith(found.title)
