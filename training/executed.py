"""Executed samples: bugs noticed by real runs, with their reports: `python -m training.executed`.

Writes shards beside the static ones, and the executed development set (`dev_executed.jsonl`).
"""

import argparse
import json
import random
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tightloop.engine.patchling.report import FailingCase, TestReport
from training.encode import Encoder, Sample
from training.execute import Slice, in_child, mutants_of, subject_of
from training.samples import MAX_TOKENS, SHARD, is_dev, save

BUG_COUNTS = [1, 1, 2, 1, 3, 1, 2, 1, 1, 2, 1, 4]
NUM_CALLS = 48


def report_from_json(row: dict[str, Any]) -> TestReport:
    cases = tuple(FailingCase(**case) for case in row["cases"])
    return TestReport(cases, frozenset(row["lines"]))


def report_to_json(report: TestReport) -> dict[str, Any]:
    return {"cases": [asdict(case) for case in report.cases], "lines": sorted(report.lines)}


def work(slices: Slice, name: str, seed: int) -> dict[str, Any] | None:
    """Everything learnt about one function, as JSON; runs in the child."""
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    subject = subject_of(slices, name, rng, NUM_CALLS)
    if subject is None or len({literal for _, literal in subject.cases}) < 2:
        return None
    mutants = mutants_of(subject, rng, BUG_COUNTS)
    return {
        "source": subject.source,
        "module": subject.module,
        "cases": subject.cases,
        "mutants": [
            {"buggy": m.buggy, "kinds": m.kinds, "report": report_to_json(m.report)}
            for m in mutants
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shard-size", type=int, default=SHARD)
    args = parser.parse_args()
    encoder = Encoder(Tokenizer.from_file(str(args.data / "tokenizer.json")))
    (args.data / "shards").mkdir(exist_ok=True)
    batch: list[Sample] = []
    number, tally = 0, Counter[str]()
    rows = [json.loads(row) for row in (args.data / "functions.jsonl").open()]
    rows = [row for row in rows if "." not in row["qualname"]]
    files = sorted({row["file"] for row in rows})
    random.Random(args.seed).shuffle(files)
    place = {file: number for number, file in enumerate(files)}
    rows.sort(key=lambda row: place[row["file"]])  # each file is parsed once
    slices, current = Slice(""), ""
    with (args.data / f"dev_executed_{args.seed}.jsonl").open("w") as dev:
        for index, row in enumerate(rows):
            tally["functions"] += 1
            if row["file"] != current:
                current = row["file"]
                slices = Slice((args.data / "sources" / current).read_text("utf-8"))
            if slices.cut(row["qualname"]) is None:
                continue
            tally["pure"] += 1
            result = in_child(
                lambda s=slices, n=row["qualname"], i=index: work(s, n, args.seed * 1_000_003 + i)
            )
            if result is None or not result["mutants"]:
                continue
            tally["runnable"] += 1
            if is_dev(row["source"]):
                dev.write(json.dumps({**result, "file": row["file"]}) + "\n")
                continue
            for mutant in result["mutants"]:
                report = report_from_json(mutant["report"])
                sample = encoder.sample(mutant["buggy"], result["source"], report)
                if sample is not None and len(sample.tokens) <= MAX_TOKENS:
                    tally["samples"] += 1
                    batch.append(sample)
            if len(batch) >= args.shard_size:
                random.Random(number).shuffle(batch)
                save(args.data / "shards" / f"executed-{args.seed}-{number:04}.npz", batch)
                number, batch = number + 1, []
                print(json.dumps(tally), flush=True)
    if batch:
        save(args.data / "shards" / f"executed-{args.seed}-{number:04}.npz", batch)
    print(json.dumps(tally))


if __name__ == "__main__":
    main()
