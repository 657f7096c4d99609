"""What is found out beside the agent is told on every way out."""

from pathlib import Path

import orjson
import pytest

from tightloop.cli.outcome import Report
from tightloop.harness.side_notes import SideNotes
from tightloop.trace.log import RunLog, read_log


@pytest.mark.parametrize("is_json", [True, False])
def test_notes_reach_person_program_and_log(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], is_json: bool
) -> None:
    """Early ones too, as events only after the first one; none in a log that is closed."""
    notes = SideNotes(Report(is_json))
    notes("early\x1b[2K")
    assert capfdbinary.readouterr().out == b""
    log = RunLog(tmp_path / "log")
    notes.attach(log)
    notes("pytest -q: not checked")
    notes.detach()
    log.close()
    notes("late")
    logged = [line["text"] for line in read_log(tmp_path / "log") if line["kind"] == "note"]
    assert logged == ["early\x1b[2K", "pytest -q: not checked"]
    out, err = capfdbinary.readouterr()
    items = [orjson.loads(line)["item"] for line in out.splitlines()]
    told = [(item["id"], item["type"], item["message"]) for item in items]
    if is_json:
        assert told == [("note_0", "error", logged[0]), ("note_1", "error", logged[1])]
        assert err == b""
    else:
        assert told == []
        assert err == b"pytest -q: not checked\nlate\n"
