"""Scores the shipped model on the held-out bug bank: `python -m training.evaluate`.

Uses the run-time search on the shipped file and the text of a real pytest run of each bug. A candidate
passes when every test function of the bug passes with it. Writes the results and the model card.
"""

import argparse
import gzip
import hashlib
import json
import math
import os
import platform
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.patchling.layout import view_function
from tightloop.engine.patchling.report import report_from_pytest
from tightloop.engine.patchling.search import CandidateSearch, FunctionTooLong
from training.bank import BANK, run_pytest
from training.baseline import pass_at, repairs
from training.execute import passes

MODEL = Path("src/tightloop/models/patchling.gguf")
NUM_CANDIDATES = 8
NUM_RANDOM = 24


def function_of(bug: dict[str, Any]) -> str:
    lines = bug["buggy_module"].split("\n")
    first = bug["first_line"] - 1
    return "\n".join(lines[first : first + bug["num_lines"]])


def evaluate_bug(backend: LlamaCppBackend, bug: dict[str, Any], output: str) -> dict[str, Any]:
    """Ranks (1-based, 0 = none) of the first passing and of the first exact candidate."""
    source = function_of(bug)
    original = bug["module"]
    report = report_from_pytest(
        output, path="target.py", first_line=bug["first_line"], num_lines=bug["num_lines"]
    )
    row = {"id": bug["id"], "kind": bug["kind"], "function": f"{bug['path']}:{bug['qualname']}",
           "passing": 0, "exact": 0, "decoded": 0, "first_s": 0.0, "first_cpu_s": 0.0, "candidates": 0,
           "lines": len(view_function(source).lines),
           "hit": bool(report.lines)}  # fmt: skip
    started, started_cpu = time.perf_counter(), time.process_time()
    try:
        search = CandidateSearch(backend, source, report)
    except FunctionTooLong:
        return row
    for rank in range(1, NUM_CANDIDATES + 1):
        candidate = search.next()
        if rank == 1:
            row["first_s"] = round(time.perf_counter() - started, 4)
            row["first_cpu_s"] = round(time.process_time() - started_cpu, 4)
            row["decoded"] = search.num_decoded_tokens
        if candidate is None:
            break
        row["candidates"] = rank
        module = bug["buggy_module"].replace(source, candidate.function_source, 1)
        if module == original and not row["exact"]:
            row["exact"] = rank
        if not row["passing"] and (module == original or passes(module, bug["tests"])):
            row["passing"] = rank
    search.close()
    return row


def baseline_of(bug: dict[str, Any]) -> dict[str, Any]:
    """Chance that k random declared repairs hold a passing one, estimated from a sample of them."""
    source = function_of(bug)
    fixed = repairs(source, random.Random(bug["id"]), NUM_RANDOM)
    passing = 0
    for text in fixed:
        module = bug["buggy_module"].replace(source, text, 1)
        passing += module == bug["module"] or passes(module, bug["tests"])
    chances = {f"pass_at_{k}": pass_at(len(fixed), passing, k) for k in (1, 3, 8)}
    return {"candidates": len(fixed), "passing": passing, **chances}


def wilson(successes: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share."""
    if not count:
        return 0.0, 1.0
    share = successes / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - spread) / (1 + z * z / count), (centre + spread) / (1 + z * z / count)


def clustered(rows: list[dict[str, Any]], value: Any, seed: int = 1) -> tuple[float, float]:
    """95 % bootstrap interval of a mean, resampling whole functions."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row["function"]].append(value(row))
    clusters, rng, means = list(groups.values()), random.Random(seed), []
    for _ in range(4000):
        drawn = rng.choices(clusters, k=len(clusters))
        means.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    means.sort()
    return means[100], means[3899]


def decode_rate(backend: LlamaCppBackend, seconds: float = 3.0) -> float:
    """Tokens per second of plain one-token steps after a prompt of 256 tokens."""
    prompt = [100 + index % 2000 for index in range(256)]
    sequence = backend.open()
    token = int(backend.evaluate(sequence, prompt).argmax())
    rates = []
    while sum(1 / rate for rate in rates) * 64 < seconds:
        started = time.perf_counter()
        for _ in range(64):
            token = int(backend.evaluate(sequence, [token]).argmax())
        rates.append(64 / (time.perf_counter() - started))
        backend.truncate(sequence, len(prompt))
    backend.close(sequence)
    return sorted(rates)[len(rates) // 2]


def machine() -> str:
    """Processor name and number of cores, as the system tells."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    flags = "AVX-512" if "avx512f" in text else "AVX2" if "avx2" in text else "no AVX2"
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {flags}"


def load_bank(path: Path) -> list[dict[str, Any]]:
    bugs: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["bugs"]
    return bugs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--out", type=Path, default=Path("training/results.json"))
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--prepare", action="store_true", help="only run pytest and the baseline")
    args = parser.parse_args()
    backend = LlamaCppBackend(args.model, num_threads=1)
    bugs = load_bank(args.bank)[: args.limit]
    cache_path = args.data / "bank_cache.json"
    cache: dict[str, Any] = json.loads(cache_path.read_text()) if cache_path.exists() else {}
    rows = []
    for bug in bugs:
        key = hashlib.sha256((bug["buggy_module"] + bug["tests"]).encode()).hexdigest()
        if key not in cache:
            cache[key] = {
                "output": run_pytest(bug["buggy_module"], bug["tests"])[1],
                "baseline": baseline_of(bug),
            }
            cache_path.write_text(json.dumps(cache))
        if args.prepare:
            continue
        row = evaluate_bug(backend, bug, cache[key]["output"])
        rows.append({**row, "baseline": cache[key]["baseline"]})
    if args.prepare:
        return
    results = {
        "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
        "bank_sha256": hashlib.sha256(args.bank.read_bytes()).hexdigest(),
        "training": backend.metadata.get("tightloop.training", ""),
        "num_parameters": backend.num_parameters,
        "context": backend.context_window,
        "machine": machine(),
        "decode_tokens_per_s": round(decode_rate(backend), 0),
        "median_first_s": statistics.median(row["first_s"] for row in rows),
        "median_first_cpu_s": statistics.median(row["first_cpu_s"] for row in rows),
        "median_first_decoded": statistics.median(row["decoded"] for row in rows),
        "min_lines": min(row["lines"] for row in rows),
        "max_lines": max(row["lines"] for row in rows),
        "bugs": rows,
    }
    args.out.write_text(json.dumps(results, indent=1))
    print_summary(results)


def print_summary(results: dict[str, Any]) -> None:
    rows = results["bugs"]
    print(
        f"{len(rows)} bugs of {len({row['function'] for row in rows})} functions, "
        f"decode {results['decode_tokens_per_s']:.0f} tokens/s, training {results['training']}"
    )
    for k in (1, 3, 8):
        for what in ("passing", "exact"):
            count = sum(0 < row[what] <= k for row in rows)
            low, high = wilson(count, len(rows))
            print(f"{what}@{k}: {100 * count / len(rows):.1f} % ({100 * low:.1f}-{100 * high:.1f})")
    for k in (1, 8):
        print(
            f"random@{k}: {100 * sum(r['baseline'][f'pass_at_{k}'] for r in rows) / len(rows):.1f} %"
        )


if __name__ == "__main__":
    main()
