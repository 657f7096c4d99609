from pathlib import Path

from tightloop.agent.terminal.history import History


def test_entries_are_there_again_in_the_next_program(tmp_path: Path) -> None:
    """Lines breaks and all; two programs may write to the same file."""
    path = tmp_path / "state" / "history"
    one, two = History(path), History(path)
    one.add("fix\nthis")
    two.add("what is \N{SNOWMAN}?")
    assert History(path).entries == ["fix\nthis", "what is \N{SNOWMAN}?"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_repetitions_and_blank_entries_do_not_count(tmp_path: Path) -> None:
    """The newest entry is not added twice in a row."""
    history = History(tmp_path / "history")
    for text in ("a", "a", "  ", "b", "a"):
        history.add(text)
    assert history.entries == ["a", "b", "a"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    """A file that has grown to twice the limit is cut back."""
    path = tmp_path / "history"
    history = History(path, max_entries=3)
    for number in range(7):
        history.add(str(number))
    assert history.entries == ["4", "5", "6"]
    assert len(path.read_bytes().splitlines()) == 7
    assert History(path, max_entries=3).entries == ["4", "5", "6"]
    assert len(path.read_bytes().splitlines()) == 3


def test_what_is_no_entry_is_left_out(tmp_path: Path) -> None:
    """Half a line after a full disk costs itself only."""
    path = tmp_path / "history"
    path.write_bytes(b'"one"\n"tw\n7\n\xff\n"three"\n')
    assert History(path).entries == ["one", "three"]


def test_a_file_that_cannot_be_written_is_a_remark(tmp_path: Path) -> None:
    """The history of this program still works."""
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "history")
    history.add("one")
    assert history.entries == ["one"]
    assert str(tmp_path / "file" / "history") in history.problem
