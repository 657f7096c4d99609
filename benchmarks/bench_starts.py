"""How long starting takes: the import, ``tightloop --help``, and ``tightloop serve`` until it answers.

Each is a new process, in turn, round after round. The import is what ``import tightloop`` takes inside
the interpreter; the others are whole processes, the interpreter's own start included. All of them find
bytecode, as they do wherever pip has installed the package: an environment that forbids writing it has
every module compiled anew at each start, which takes half as long again. Prints one
JSON object: median and quartiles in milliseconds. Usage: ``python benchmarks/bench_starts.py``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tightloop.trace.clock import now_ns

IMPORT = """
from time import monotonic_ns as now
start = now()
import tightloop
print((now() - start) / 1e6)
"""


def import_ms() -> float:
    """``import tightloop`` in a new interpreter, by that interpreter's clock."""
    done = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True)
    return float(done.stdout)


def help_ms() -> float:
    """``tightloop --help``, the whole process."""
    start_ns = now_ns()
    subprocess.run([sys.executable, "-m", "tightloop", "--help"], check=True, capture_output=True)
    return (now_ns() - start_ns) / 1e6


def serve_ms(model: str) -> float:
    """``tightloop serve --model MODEL`` until it says that it answers."""
    with tempfile.TemporaryDirectory() as folder:
        start_ns = now_ns()
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "tightloop", "serve", "--model", model, "--port", "0"),
                *("--json-ready", "--state-dir", str(Path(folder))),
            ],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            took_ms = (now_ns() - start_ns) / 1e6
            process.terminate()
    return took_ms


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    measures: dict[str, Callable[[], float]] = {
        "import": import_ms,
        "help": help_ms,
        "serve": lambda: serve_ms("scripted"),
        "serve_bundled_model": lambda: serve_ms("patchling"),
    }
    with tempfile.TemporaryDirectory() as compiled:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = compiled  # filled by the round that does not count
        took = measured(measures, rounds)
    result: dict[str, object] = {"benchmark": "starts", "rounds": rounds}
    for name, values in took.items():
        low, middle, high = statistics.quantiles(values, n=4)
        result[name] = {
            "median_ms": round(middle, 1),
            "quartiles_ms": [round(low, 1), round(high, 1)],
        }
    print(json.dumps(result))


def measured(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each measure in turn, round after round; the round before the first is thrown away."""
    took: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(-1, rounds):
        for name, measure in measures.items():
            value = measure()
            if number >= 0:
                took[name].append(value)
    return took


if __name__ == "__main__":
    main()
