"""Commands as a person runs them."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.warm.terminals import in_terminal

PRINTS = (
    "import sys; assert sys.stdout.isatty(); "
    "print('\\x1b[32m\\x1b[1m17 passed\\x1b[0m\\x1b[32m, 1 warning in 0.10s\\x1b[0m', flush=True); "
    "sys.stdin.read(); print('after'); sys.exit(3)"
)


def test_the_verdict_is_seen_before_the_end(tmp_path: Path) -> None:
    """In a terminal, with colours, which do not hide the line."""
    printed = in_terminal([sys.executable, "-c", PRINTS], tmp_path, os.environ)
    assert 0 < printed.verdict_ms <= printed.ended_ms
    assert printed.exit_code == 3
    assert printed.text.split() == ["17", "passed,", "1", "warning", "in", "0.10s", "after"]
    assert printed.summary == "17 passed, 1 warning"


def test_no_verdict_is_an_error(tmp_path: Path) -> None:
    """It would be a time of nothing."""
    with pytest.raises(RuntimeError, match=r"printed no verdict: nothing"):
        in_terminal([sys.executable, "-c", "print('nothing')"], tmp_path, os.environ)
