"""Steps on disk: what a turn did, in whatever process it is asked for."""

from pathlib import Path

import pytest

from tightloop.harness import undo
from tightloop.harness.undo import History, Step, Write, copy, place_of, remove
from tightloop.sandbox.entries import Change, Entry

OLD, NEW, NEWER = Entry(b"old\n"), Entry(b"\0new"), Entry(b"newer", is_executable=True)


def step(history: History, title: str, before: list[Change], after: list[Change]) -> Step | None:
    history.begin(title, before)
    history.keep_begun()
    return history.end(after)


def test_a_step_is_what_a_turn_changed(tmp_path: Path) -> None:
    """Not what was there before, nor what is as it was."""
    history = History(tmp_path / "undo")
    first = step(history, "add\n  a file", [], [Change("a", None, NEW)])
    assert first == Step(1, "add a file", (Change("a", None, NEW),))
    assert step(history, "look", [Change("a", None, NEW)], [Change("a", None, NEW)]) is None
    both = [Change("a", None, NEWER), Change("b", OLD, None)]
    second = step(history, "more", [Change("a", None, NEW)], both)
    assert second == Step(2, "more", (Change("a", NEW, NEWER), Change("b", OLD, None)))
    third = step(history, "back", both, [])
    assert third == Step(3, "back", (Change("a", NEWER, None), Change("b", None, OLD)))
    again = History(tmp_path / "undo")
    assert again.undoable == [third, second, first]
    assert not again.is_begun


def test_taking_back_and_making_again(tmp_path: Path) -> None:
    """Known to the next process; a new step ends what could be made again."""
    history = History(tmp_path)
    one = step(history, "one", [], [Change("a", None, OLD)])
    two = step(history, "two", [Change("a", None, OLD)], [Change("a", None, NEW)])
    history.take_back()
    history.take_back()
    history = History(tmp_path)
    assert (history.undoable, history.redoable) == ([], [one, two])
    history.make_again()
    assert (history.undoable, history.redoable) == ([one], [two])
    step(history, "three", [Change("a", None, OLD)], [])
    history = History(tmp_path)
    assert ([one.title for one in history.undoable], history.redoable) == (["three", "one"], [])
    assert not (tmp_path / "2.step").exists()


def test_a_turn_that_nobody_ended(tmp_path: Path) -> None:
    """The process died: what the workspace holds now is what the turn came to."""
    history = History(tmp_path)
    history.begin("cut short", [Change("a", None, OLD), Change("b", OLD, NEW)])
    history.keep_begun()
    history = History(tmp_path)
    assert history.is_begun
    # b was applied before, so that it is no change any more in the new workspace
    present = {"a": NEW, "b": NEW}
    made = history.end([Change("a", None, NEW)], present.__getitem__)
    assert made == Step(1, "cut short", (Change("a", OLD, NEW),))
    assert not History(tmp_path).is_begun


def test_writes_belong_to_the_newest_step_with_the_path(tmp_path: Path) -> None:
    history = History(tmp_path)
    step(history, "one", [], [Change("a", None, OLD), Change("b", None, OLD)])
    before = [Change("a", None, OLD), Change("b", None, OLD)]
    step(history, "two", before, [Change("a", None, NEW), Change("b", None, OLD)])
    history.note_writes([Write("a", None), Write("b", None), Write("c", OLD)])
    newest, oldest = History(tmp_path).undoable
    assert (newest.writes, oldest.writes) == ((Write("a", None),), (Write("b", None),))
    assert newest.backwards() == ([Change("a", NEW, OLD)], [Change("a", NEW, None)], {})
    assert newest.forwards() == ([Change("a", OLD, NEW)], [Change("a", None, NEW)])
    history.note_writes([Write("a", OLD)])
    assert history.undoable[0].writes == (Write("a", None),)
    history.note_writes([Write("a", NEWER, is_over=True, known=OLD)])
    assert history.undoable[0].writes == (Write("a", NEWER, is_over=True, known=OLD),)
    assert history.undoable[0].backwards()[2] == {"a": OLD}


def test_work_that_goes_on_from_another_version_is_one_change(tmp_path: Path) -> None:
    history = History(tmp_path)
    step(history, "one", [], [Change("a", None, OLD), Change("b", None, OLD)])
    before = [Change("a", None, OLD), Change("b", None, OLD)]
    step(history, "two", before, [Change("a", None, NEW), Change("b", None, OLD)])
    history.rebase([Change("a", OLD, NEWER)])
    newest, oldest = History(tmp_path).undoable
    assert newest.changes == (Change("a", OLD, NEWER),)
    assert oldest.changes == (Change("b", None, OLD),)


def test_old_steps_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by size; the newest always stays."""
    monkeypatch.setattr(undo, "MAX_STEPS", 2)
    history = History(tmp_path)
    for number in range(3):
        step(history, str(number), [], [Change(str(number), None, OLD)])
    assert [one.title for one in History(tmp_path).undoable] == ["2", "1"]
    monkeypatch.setattr(undo, "MAX_BYTES", 1)
    step(history, "large", [], [Change("x", None, NEW)])
    assert [one.title for one in History(tmp_path).undoable] == ["large"]
    assert len(list(tmp_path.glob("*.step"))) == 1


def test_damage_is_not_guessed_at(tmp_path: Path) -> None:
    """Steps beyond one that cannot be read cannot be reached."""
    history = History(tmp_path)
    for number in range(3):
        step(history, str(number), [], [Change(str(number), None, OLD)])
    (tmp_path / "2.step").write_bytes(b"\xc1")
    assert [one.title for one in History(tmp_path).undoable] == ["2"]
    (tmp_path / "index").write_bytes(b"nonsense")
    assert History(tmp_path).undoable == []


def test_with_the_conversation_it_is_copied_and_removed(tmp_path: Path) -> None:
    history = History(place_of(tmp_path, "one"))
    step(history, "one", [], [Change("a", None, OLD)])
    copy(tmp_path, "one", "two")
    copy(tmp_path, "none", "three")
    remove(tmp_path, "one")
    remove(tmp_path, "none")
    assert History(place_of(tmp_path, "one")).undoable == []
    assert len(History(place_of(tmp_path, "two")).undoable) == 1
