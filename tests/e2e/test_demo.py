"""6xx: the demo, whole, on one bug."""

import json
import os
import shlex
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
COMMAND = shlex.split(os.environ.get("TIGHTLOOP", "")) or [sys.executable, "-m", "tightloop"]


def test_600_one_bug_over_both_paths() -> None:
    """The last line is one object with the promised medians; a ledger adds up; both ran."""
    done = subprocess.run(
        [*COMMAND, "demo", "--bugs", "1", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout.splitlines()[-1])
    for path in ("classic", "tight"):
        figures = whole["paths"][path]
        assert figures["attempted"] == 1
        assert figures["wrongly_claimed"] == 0
        assert figures["max_ledger_error"] < 0.01
        for name in ("ttft_ms", "round_trip_overhead_ms", "fix_wall_s", "tokens_per_s"):
            assert figures[name] > 0, name
    assert "Where the time of a fix went" in done.stderr


def test_601_too_many_bugs_are_refused() -> None:
    command = [*COMMAND, "demo", "--bugs", "100000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--bugs must be from 1 to" in done.stderr
    assert "Traceback" not in done.stderr
