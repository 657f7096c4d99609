"""Builds the held-out bug bank: `python -m training.bank`.

Bugs of self-contained functions from distributions and standard library modules that were not trained
on. Each was noticed by its tests under real pytest, which pass on the original. Deterministic by seed.
"""

import argparse
import functools
import gzip
import json
import os
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tightloop.engine.patchling.layout import view_function
from training.corpus import view_lines
from training.execute import Slice, in_child, mutants_of, subject_of

BANK = Path("src/tightloop/bench/bugbank.json.gz")
NUM_CALLS = 160
NUM_ATTEMPTS = 40
MAX_BUGS_PER_FUNCTION = 4
PYTEST_LIMIT_S = 20
MIN_LINES, MAX_LINES = 3, 30


def make_tests(name: str, cases: list[tuple[str, str]]) -> str:
    parts = [f"from target import {name}\n"]
    for number, (call, literal) in enumerate(cases, 1):
        parts.append(f"\ndef test_{name.strip('_')}_{number}():\n    assert {call} == {literal}\n")
    return "\n".join(parts)


def run_pytest(module: str, tests: str, *options: str) -> tuple[int, str]:
    """Exit status and output of `python -m pytest -q` on the module and its tests.

    Runs in a fork of this process, which has pytest imported already; -1 after PYTEST_LIMIT_S.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "target.py").write_text(module)
        (folder / "test_target.py").write_text(tests)
        child = os.fork()
        if child == 0:
            _pytest_child(folder, options)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else -1, (folder / "output").read_text()


def _pytest_child(folder: Path, options: tuple[str, ...]) -> None:
    status = 1
    try:
        os.environ.pop("CI", None)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.argv = ["pytest"]
        signal.alarm(PYTEST_LIMIT_S)
        status = int(pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={folder}", *options]))
        sys.stdout.flush()
    finally:
        os._exit(status)


def work(slices: Slice, name: str, seed: int) -> dict[str, Any] | None:
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    subject = subject_of(slices, name, rng, NUM_CALLS)
    if subject is None or len({literal for _, literal in subject.cases}) < 3:
        return None
    found = [
        {"kind": mutant.kinds[0], "buggy": mutant.buggy}
        for mutant in mutants_of(subject, rng, [1] * NUM_ATTEMPTS)
    ]
    return {
        "module": subject.module, "source": subject.source, "first_line": subject.first_line,
        "cases": subject.cases, "mutants": found,
    }  # fmt: skip


def choose(mutants: list[dict[str, str]], rng: random.Random) -> list[dict[str, str]]:
    """Up to MAX_BUGS_PER_FUNCTION bugs of different kinds, kinds drawn uniformly."""
    rng.shuffle(mutants)
    by_kind = {mutant["kind"]: mutant for mutant in mutants}
    kinds = sorted(by_kind)
    rng.shuffle(kinds)
    return [by_kind[kind] for kind in kinds[:MAX_BUGS_PER_FUNCTION]]


def thin(
    bugs: list[dict[str, Any]], max_functions: int, rng: random.Random
) -> list[dict[str, Any]]:
    """All bugs of at most `max_functions` functions, drawn in turn from every origin."""
    origins: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for bug in bugs:
        is_stdlib = bug["distribution"] == "python-stdlib"
        origin = bug["path"] if is_stdlib else bug["distribution"]
        origins.setdefault(origin, {}).setdefault(f"{bug['path']}:{bug['qualname']}", []).append(
            bug
        )
    queues = []
    for _, functions in sorted(origins.items()):
        names = sorted(functions)
        rng.shuffle(names)
        queues.append([functions[name] for name in names])
    chosen: list[dict[str, Any]] = []
    num_functions = 0
    while queues and num_functions < max_functions:
        queue = queues.pop(0)
        chosen += queue.pop()
        num_functions += 1
        if queue:
            queues.append(queue)
    return sorted(chosen, key=lambda bug: bug["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--out", type=Path, default=BANK)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--functions", type=int, default=90)
    args = parser.parse_args()
    rows = [json.loads(row) for row in (args.data / "heldout.jsonl").open()]
    cache: dict[str, Slice] = {}
    seen: set[str] = set()
    bugs: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        name = row["qualname"]
        if "." in name or not MIN_LINES <= len(view_function(row["source"]).lines) <= MAX_LINES:
            continue
        key = "\n".join(view_lines(row["source"])[1:])
        if key in seen:
            continue
        if row["file"] not in cache:
            cache[row["file"]] = Slice((args.data / "sources" / row["file"]).read_text("utf-8"))
        slices = cache[row["file"]]
        seed = args.seed * 1_000_003 + index
        result = in_child(functools.partial(work, slices, name, seed))
        if result is None or not result["mutants"]:
            continue
        seen.add(key)
        tests = make_tests(name, result["cases"])
        if run_pytest(result["module"], tests)[0] != 0:
            print(f"dropped {row['file']} {name}: its own tests fail under pytest", flush=True)
            continue
        for mutant in choose(result["mutants"], random.Random(seed)):
            module = result["module"].replace(result["source"], mutant["buggy"], 1)
            status, _ = run_pytest(module, tests)
            if status != 1:
                print(f"dropped a {mutant['kind']} bug of {name}: pytest exit {status}", flush=True)
                continue
            bugs.append({
                "id": f"{row['distribution']}-{name.strip('_')}-{mutant['kind']}", "kind": mutant["kind"],
                "distribution": row["distribution"], "version": row["version"],
                "licence": row["licence"], "path": row["file"].split("/", 1)[1], "qualname": name,
                "first_line": result["first_line"], "num_lines": mutant["buggy"].count("\n") + 1,
                "module": result["module"], "buggy_module": module, "tests": tests,
            })  # fmt: skip
        print(f"{len(bugs)} bugs after {row['file']} {name}", flush=True)
    bugs = thin(bugs, args.functions, random.Random(args.seed))
    write(args.out, bugs)
    print(json.dumps(Counter(bug["kind"] for bug in bugs), indent=1))


def write(path: Path, bugs: list[dict[str, Any]]) -> None:
    payload = json.dumps({"format": 1, "bugs": bugs}, indent=0).encode()
    path.write_bytes(gzip.compress(payload, mtime=0))
    functions = {(bug["path"], bug["qualname"]) for bug in bugs}
    print(f"{len(bugs)} bugs of {len(functions)} functions, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
