"""The JSONL log."""

from pathlib import Path

import pytest

from tightloop.trace.clock import ManualClock
from tightloop.trace.log import RunLog, new_log_path, read_log, state_directory
from tightloop.trace.spans import Span


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Structs become objects, paths become text, times come from the clock."""
    log = RunLog(tmp_path / "runs" / "a.jsonl", clock=ManualClock(7), verb="exec")
    log.write("span", span=Span("tool", 1, 2, "ls"), where=Path("x"))
    log.close()
    log.close()
    started, span, ended = read_log(log.path)
    assert (started["kind"], started["verb"], started["v"], started["t_ns"]) == (
        "run.started",
        "exec",
        1,
        7,
    )
    assert span["span"] == {"kind": "tool", "start_ns": 1, "end_ns": 2, "label": "ls"}
    assert span["where"] == "x"
    assert ended["kind"] == "run.ended"


def test_what_no_log_may_hold_is_made_unreadable(tmp_path: Path) -> None:
    """In every text however deep, and never in a number: the line stays JSON."""
    log = RunLog(tmp_path / "a", redact=lambda text: text.replace("1234", "***"), prompt="a1234")
    log.write("span", span=Span("tool", 1234, 2, "x 1234"), where=[Path("1234")])
    log.close()
    started, span, _ = read_log(log.path)
    assert started["prompt"] == "a***"
    assert span["span"] == {"kind": "tool", "start_ns": 1234, "end_ns": 2, "label": "x ***"}
    assert span["where"] == ["***"]


def test_a_killed_writer_costs_its_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"kind":"a"}\n{"kind":"b"}\n{"kin')
    assert [line["kind"] for line in read_log(path)] == ["a", "b"]


@pytest.mark.parametrize("damaged", [b"{broken\n{}\n", b"[1]\n{}\n"])
def test_damage_elsewhere_is_named(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.jsonl:1: not a log line"):
        list(read_log(path))


def test_state_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIGHTLOOP_STATE_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert state_directory() == Path("/x/tightloop")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_directory().parts[-3:] == (".local", "state", "tightloop")
    monkeypatch.setenv("TIGHTLOOP_STATE_DIR", "/own")
    assert state_directory() == Path("/own")
    assert new_log_path(Path("/own"), "demo") != new_log_path(Path("/own"), "demo")
