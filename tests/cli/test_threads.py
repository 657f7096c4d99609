"""``tightloop threads``: what its users see."""

from pathlib import Path

import orjson
import pytest

from tests.harness.kept import keep
from tightloop.cli.main import main
from tightloop.harness.holding import held
from tightloop.harness.record import Record
from tightloop.sandbox.entries import Change, Entry


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """One conversation about ``here``, one about another directory."""
    (tmp_path / "here").mkdir()
    keep(tmp_path, "aaaaaaaa-1", tmp_path / "here")
    Record(tmp_path, "aaaaaaaa-1", str).write_changes([Change("m.py", None, Entry(b"x"))])
    keep(tmp_path, "bbbbbbbb-2", tmp_path / "there\x1b[2K")
    return tmp_path


def _threads(state: Path, *words: str) -> int:
    return main(["threads", words[0], "--state-dir", str(state), *words[1:]])


def test_those_about_a_directory(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what is needed to choose one: when, how long, whether there is work to lose."""
    assert _threads(state, "list", "--repo", str(state / "here")) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ID", "USED", "TURNS", "UNAPPLIED", "TITLE"]
    assert line.split(maxsplit=7)[:1] == ["aaaaaaaa"]
    assert line.endswith("1 file     say aaaaaaaa-1")


def test_all_of_them_and_which_is_open(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names from elsewhere are shown without control characters."""
    with held(state, "bbbbbbbb-2", "exec"):
        assert _threads(state, "list", "--all") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert "  open  " in lines[0]
    assert lines[0].endswith("there: say bbbbbbbb-2")
    assert lines[1].endswith("here: say aaaaaaaa-1")


def test_as_json(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _threads(state, "list", "--repo", str(state / "here"), "--json") == 0
    (row,) = orjson.loads(capsys.readouterr().out)["threads"]
    assert (row["thread_id"], row["num_turns"]) == ("aaaaaaaa-1", 1)
    assert (row["unapplied"], row["is_open"], row["title"]) == (["m.py"], False, "say aaaaaaaa-1")


def test_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _threads(tmp_path, "list", "--repo", str(tmp_path)) == 0
    assert "--all shows those about others" in capsys.readouterr().out
    assert _threads(tmp_path, "list", "--all") == 0
    assert "no conversation is kept in" in capsys.readouterr().out


def test_removing_some(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the beginning of an id; one that is open stays, and all are known before one goes."""
    assert _threads(state, "remove", "aaaa", "cccc") == 2
    assert "no conversation 'cccc' is kept" in capsys.readouterr().err
    with held(state, "bbbbbbbb-2", "exec"):
        assert _threads(state, "remove", "aaaa", "bbbb") == 1
    captured = capsys.readouterr()
    assert captured.out == "removed 1\n"
    assert "open in another process, so it stays: bbbbbbbb-2" in captured.err
    assert _threads(state, "remove", "bbbb", "--json") == 0
    assert orjson.loads(capsys.readouterr().out) == {"removed": ["bbbbbbbb-2"], "open": []}


def test_removing_what_is_too_much(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _threads(state, "gc") == 0
    assert _threads(state, "gc", "--keep", "1") == 0
    assert _threads(state, "gc", "--all", "--json") == 0
    assert capsys.readouterr().out.splitlines() == [
        "removed 0",
        "removed 1",
        '{"removed":["bbbbbbbb-2"]}',
    ]
