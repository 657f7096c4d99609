"""The result goes into the checkout: agreed to, all of it or nothing, and never over the user's edits."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.harness.desk_rig import desk_over, tree
from tests.sandbox.conftest import commit, git
from tightloop.harness.delivery import Applied, Conflict
from tightloop.sandbox.entries import Change
from tightloop.sandbox.risks import Risk

LINES = "".join(f"line {i}\n" for i in range(12))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "lines").write_text(LINES)
    (directory / "other").write_text("other\n")
    git(directory, "init", "-q", "-b", "main")
    commit(directory)
    return directory


def edit(place: Path, number: int, word: str) -> None:
    path = place / "lines"
    path.write_text(path.read_text().replace(f"line {number}\n", f"{word} {number}\n"))


async def test_a_person_is_asked_before_anything_is_written(repo: Path, tmp_path: Path) -> None:
    """Once, with what would be written and what to look at; a refusal changes nothing."""
    asked: list[tuple[list[str], list[str]]] = []
    answers = [False, True]

    async def approve(changes: Sequence[Change], risks: Sequence[Risk]) -> bool:
        asked.append(([change.path for change in changes], [risk.path for risk in risks]))
        return answers.pop(0)

    def work(place: Path) -> None:
        (place / ".github").mkdir()
        (place / ".github" / "ci.yml").write_text("on: push\n")

    async with desk_over(repo, tmp_path / "state") as rig:
        before = tree(repo)
        assert await rig.desk.apply(approve=approve) == Applied()
        assert asked == []
        await rig.turn("ci", work)
        applied = await rig.desk.apply(approve=approve)
        assert (applied.is_done, applied.is_declined, tree(repo)) == (False, True, before)
        assert str(applied).splitlines()[-1] == "nothing was written: declined"
        rig.changes.clear()
        applied = await rig.desk.apply(approve=approve)
        assert (applied.is_done, applied.written) == (True, (".github/ci.yml",))
        assert "look at it: .github/ci.yml (runs outside" in str(applied)
        assert rig.changes == ["flushed", "changed", "flushed"]
    assert asked == [([".github/ci.yml"], [".github/ci.yml"])] * 2


async def test_what_only_a_person_may_agree_to(repo: Path, tmp_path: Path) -> None:
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("hook", lambda place: (place / ".envrc").write_text("x"))
        applied = await rig.desk.apply()
        assert not applied.is_done
        assert [risk.path for risk in applied.severe] == [".envrc"]
        assert "nothing was written: .envrc must be agreed to" in str(applied)
        assert not (repo / ".envrc").exists()
        assert (await rig.desk.apply(accepts_risks=True)).written == (".envrc",)


async def test_conflicts_are_named_with_a_way_out(repo: Path, tmp_path: Path) -> None:
    def work(place: Path) -> None:
        edit(place, 0, "agent")
        (place / "other").write_text("agent\n")
        (place / "new").write_text("agent\n")
        (place / "fine").write_text("agent\n")

    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("change", work)
        edit(repo, 11, "user")
        (repo / "other").unlink()
        (repo / "new").write_text("user\n")
        before = tree(repo)
        for way in ("refuse", "merge"):
            applied = await rig.desk.apply(on_conflict=way)
            assert applied.conflicts == (
                Conflict("lines", "you have changed it, too", can_merge=True),
                Conflict("new", "you have made a file of that name, too", can_merge=False),
                Conflict("other", "you have deleted it", can_merge=False),
            )
            assert tree(repo) == before
        assert "conflict: lines: you have changed it, too; the two can be merged" in str(applied)
        applied = await rig.desk.apply(on_conflict="force")
        assert applied.written == ("fine", "lines", "new", "other")
        assert tree(repo) == tree(rig.view)
        await rig.desk.undo()
        assert tree(repo) == before
        with pytest.raises(ValueError, match="on_conflict must be one of"):
            await rig.desk.apply(on_conflict="ignore")


async def test_a_clean_merge_is_applied_told_and_taken_back(repo: Path, tmp_path: Path) -> None:
    """Taken back, the file is as the user had it, in both trees."""
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("one", lambda place: edit(place, 0, "agent"))
        await rig.turn("two", lambda place: edit(place, 1, "agent"))
        edit(repo, 11, "user")
        mine = (repo / "lines").read_text()
        applied = await rig.desk.apply(on_conflict="merge")
        assert (applied.merged, applied.written) == (("lines",), ("lines",))
        assert "not tested together" in str(applied)
        assert "merged line by line: lines" in rig.actor.told[-1]
        text = (repo / "lines").read_text()
        assert [word in text for word in ("agent 0", "agent 1", "user 11")] == [True] * 3
        await rig.desk.undo()
        assert (repo / "lines").read_text() == (rig.view / "lines").read_text() == mine
        assert await rig.workspace.changes(is_pending=True) == []
        await rig.desk.undo()
        assert (repo / "lines").read_text() == mine


async def test_what_the_user_does_while_asked_is_seen(repo: Path, tmp_path: Path) -> None:
    async def approve(_changes: Sequence[Change], _risks: Sequence[Risk]) -> bool:
        edit(repo, 5, "user")
        return True

    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("change", lambda place: edit(place, 0, "agent"))
        applied = await rig.desk.apply(approve=approve)
        assert applied.conflicts == (Conflict("lines", "you have changed it, too", can_merge=True),)
        assert "user 5" in (repo / "lines").read_text()


async def test_something_else_in_the_way(repo: Path, tmp_path: Path) -> None:
    """No version of the file: a directory of the user's where it must go."""
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("change", lambda place: (place / "new").write_text("agent\n"))
        (repo / "new").mkdir()
        (repo / "new" / "mine").write_text("user\n")
        for way in ("refuse", "force"):
            applied = await rig.desk.apply(on_conflict=way)
            assert applied.conflicts == (
                Conflict("new", "something else is in its way", can_merge=False),
            )
        assert (repo / "new" / "mine").read_text() == "user\n"
