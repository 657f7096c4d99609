"""What the proxy decided reaches the log, and the user where it matters."""

from pathlib import Path

import pytest

from tightloop.cli.outcome import Report
from tightloop.harness.decisions import DecisionLog
from tightloop.sandbox.proxy import Decision
from tightloop.trace.log import RunLog, read_log

GOOD = Decision("CONNECT", "pypi.org", 443, True)
BAD = Decision("GET", "evil.test", 80, False, "evil.test:80 is not\x1b[2K listed")


def test_decisions_are_logged_and_refusals_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that came before there was a log too; none after it is closed."""
    decisions = DecisionLog(Report(is_json=False))
    decisions(GOOD)
    log = RunLog(tmp_path / "log")
    decisions.attach(log)
    decisions(BAD)
    decisions(BAD)
    decisions.detach()
    log.close()
    decisions(GOOD)
    logged = [line["decision"] for line in read_log(tmp_path / "log") if line["kind"] == "network"]
    assert [(one["host"], one["is_allowed"]) for one in logged] == [
        ("pypi.org", True),
        ("evil.test", False),
        ("evil.test", False),
    ]
    assert capsys.readouterr().err == "network: refused: evil.test:80 is not listed\n"
