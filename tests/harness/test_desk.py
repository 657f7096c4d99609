"""Turns between two people's edits: followed, taken back, made again, in both trees or in none."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.desk_rig import Rig, desk_over, tree
from tests.sandbox.conftest import commit, git
from tightloop.harness.undo import NothingToUndo
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import WorkspaceConflict


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository_in(tmp_path)


def repository_in(place: Path) -> Path:
    directory = place / "repo"
    (directory / "sub").mkdir(parents=True)
    (directory / "m.py").write_text("x = 1\n")
    (directory / "sub" / "n.py").write_text("y = 1\n")
    (directory / "run").write_text("#!/bin/sh\n")
    (directory / "run").chmod(0o755)
    (directory / ".gitignore").write_text("*.log\n")
    git(directory, "init", "-q", "-b", "main")
    commit(directory)
    return directory


async def test_a_turn_is_taken_back_where_it_was_applied(repo: Path, tmp_path: Path) -> None:
    """Here and in the checkout, and made again; git's index, HEAD and other files stay."""
    (repo / "mine").write_text("untracked\n")
    (repo / "run").write_text("staged\n")
    git(repo, "add", "run")
    state = git(repo, "rev-parse", "HEAD") + git(repo, "diff", "--cached")
    index = (repo / ".git" / "index").read_bytes()
    before = tree(repo)

    def work(place: Path) -> None:
        (place / "m.py").write_text("x = 2\n")
        (place / "new").mkdir()
        (place / "new" / "file").write_text("new\n")
        (place / "sub" / "n.py").unlink()

    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("change\nx", work)
        applied = await rig.desk.apply()
        assert applied.is_done
        assert applied.written == ("m.py", "new/file", "sub/n.py")
        after = tree(repo)
        undone = await rig.desk.undo()
        assert tree(repo) == tree(rig.view) == before
        assert undone.paths == undone.checkout_paths == applied.written
        assert "taken back: m.py, new/file, sub/n.py (in your checkout, too)" in str(undone)
        assert "took back your work on 'change x'" in rig.actor.told[-1]
        assert await rig.workspace.changes(is_pending=True) == []
        redone = await rig.desk.redo()
        assert tree(repo) == tree(rig.view) == after
        assert str(redone).startswith("made again")
        with pytest.raises(NothingToUndo):
            await rig.desk.redo()
        await rig.desk.undo()
        with pytest.raises(NothingToUndo):
            await rig.desk.undo()
    assert git(repo, "rev-parse", "HEAD") + git(repo, "diff", "--cached") == state
    assert (repo / ".git" / "index").read_bytes() == index
    assert tree(repo) == before


async def test_several_steps_in_another_process(repo: Path, tmp_path: Path) -> None:
    """What was applied is in the base there, and is taken back all the same."""
    before = tree(repo)
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("one", lambda place: write(place / "m.py", "x = 2\n"))
        await rig.turn("two", lambda place: write(place / "m.py", "x = 3\n"))
        await rig.desk.apply()
        await rig.turn("three", lambda place: write(place / "m.py", "x = 4\n"))
        pending = await rig.desk.pending()
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.workspace.restore(pending)
        assert [step.title for step in rig.desk.history.undoable] == ["three", "two", "one"]
        await rig.desk.undo()
        assert (repo / "m.py").read_text() == (rig.view / "m.py").read_text() == "x = 3\n"
        await rig.desk.undo()
        assert (rig.view / "m.py").read_text() == "x = 2\n"
        assert tree(repo) == before  # one write brought both turns there, and it is taken back
        await rig.desk.undo()
        assert tree(rig.view) == tree(repo) == before


async def test_a_file_that_the_user_has_edited_since_is_named(repo: Path, tmp_path: Path) -> None:
    """Nothing is changed, in neither tree."""

    def work(place: Path) -> None:
        write(place / "m.py", "x = 2\n")
        write(place / "run", "agent\n")

    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("change", work)
        await rig.desk.apply()
        write(repo / "m.py", "x = 2  # mine\n")
        here, there = tree(rig.view), tree(repo)
        with pytest.raises(WorkspaceConflict) as caught:
            await rig.desk.undo()
        assert caught.value.paths == ("m.py",)
        assert (tree(rig.view), tree(repo)) == (here, there)
        await rig.desk.follow()
        with pytest.raises(WorkspaceConflict):
            await rig.desk.undo()
        assert tree(repo) == there
        write(repo / "m.py", "x = 2\n")
        await rig.desk.follow()
        await rig.desk.undo()
        assert (repo / "m.py").read_text() == "x = 1\n"
        assert (repo / "run").read_text() == "#!/bin/sh\n"


async def test_what_was_written_over_comes_back(repo: Path, tmp_path: Path) -> None:
    """The user's bytes are kept with the step; afterwards the two differ as they did before."""
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("change", lambda place: write(place / "m.py", "x = 2\n"))
        write(repo / "m.py", "mine\n")
        assert (await rig.desk.apply(on_conflict="force")).written == ("m.py",)
        assert (repo / "m.py").read_text() == "x = 2\n"
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.desk.undo()
        assert (repo / "m.py").read_text() == "mine\n"
        assert (rig.view / "m.py").read_text() == "x = 1\n"
        followed = await rig.desk.follow()
        assert followed.taken == ("m.py",)
        assert (rig.view / "m.py").read_text() == "mine\n"


async def test_the_users_edits_are_told_before_the_turn(repo: Path, tmp_path: Path) -> None:
    """To the model in one message, to the person in a line each; and they are no work of the turn."""
    async with desk_over(repo, tmp_path / "state") as rig:
        await rig.turn("one", lambda place: write(place / "run", "agent\n"))
        assert rig.actor.told == []
        write(repo / "m.py", "mine\n")
        write(repo / "run", "mine\n")
        write(repo / "a.log", "ignored\n")
        await rig.turn("two", lambda place: write(place / "sub" / "n.py", "y = 2\n"))
        assert len(rig.actor.told) == 1
        assert "the workspace has them as they are now: m.py." in rig.actor.told[0]
        assert "Both you and the user have changed run." in rig.actor.told[0]
        assert rig.notes == [
            "your edits are in the workspace: m.py",
            "changed by you and by the agent: run; the agent goes on with its own version",
        ]
        assert rig.desk.history.undoable[0].paths == ["sub/n.py"]
        await rig.desk.undo()
        assert (rig.view / "m.py").read_text() == "mine\n"


async def test_a_turn_that_fails_is_a_step_too(repo: Path, tmp_path: Path) -> None:
    def work(place: Path) -> None:
        write(place / "m.py", "half\n")
        raise asyncio.CancelledError

    async with desk_over(repo, tmp_path / "state") as rig:
        with pytest.raises(asyncio.CancelledError):
            await rig.turn("half", work)
        await rig.desk.undo()
        assert (rig.view / "m.py").read_text() == "x = 1\n"


async def test_a_turn_whose_process_died_is_a_step(repo: Path, tmp_path: Path) -> None:
    async with desk_over(repo, tmp_path / "state") as rig:
        rig.desk.history.begin("cut", [])
        rig.desk.history.keep_begun()
        write(rig.view / "m.py", "half\n")
        pending = await rig.desk.pending()
    async with desk_over(repo, tmp_path / "state") as rig:
        assert rig.desk.history.undoable == []  # nothing was put back: nothing was done
    async with desk_over(repo, tmp_path / "state") as rig:
        rig.desk.history.begin("cut", [])
        await rig.workspace.restore(pending)
        await rig.desk.open()
        assert [step.title for step in rig.desk.history.undoable] == ["cut"]
        await rig.desk.undo()
        assert (rig.view / "m.py").read_text() == "x = 1\n"


async def test_one_thing_at_a_time(repo: Path, tmp_path: Path) -> None:
    async with desk_over(repo, tmp_path / "state") as rig:
        refused: list[str] = []

        async def meanwhile() -> None:
            for ask in (rig.desk.undo, rig.desk.redo, rig.desk.apply, rig.desk.follow):
                with pytest.raises(SandboxError, match="a turn is under way") as caught:
                    await ask()
                refused.append(str(caught.value))

        asking: list[asyncio.Task[None]] = []

        def work(_place: Path) -> None:
            asking.append(asyncio.ensure_future(meanwhile()))

        original = rig.actor.run_turn

        async def run_turn(prompt: str, **options: Any) -> Any:
            result = await original(prompt, **options)
            await asking[0]
            return result

        rig.actor.run_turn = run_turn  # type: ignore[method-assign]
        await rig.turn("one", work)
        assert len(refused) == 4


async def test_a_checkout_that_cannot_be_looked_at_is_said(repo: Path, tmp_path: Path) -> None:
    async with desk_over(repo, tmp_path / "state") as rig:
        (repo / ".git" / "HEAD").rename(repo / ".git" / "HEAD.gone")
        await rig.turn("one", lambda place: write(place / "m.py", "x = 2\n"))
        assert rig.notes[0].startswith("your own edits were not looked at: ")
        assert rig.desk.history.undoable[0].paths == ["m.py"]


def write(path: Path, text: str) -> None:
    path.write_text(text)


NAMES = ("m.py", "run", "sub/n.py", "new", "sub/other")
CHANGE = st.tuples(st.sampled_from(NAMES), st.sampled_from(["write", "delete", "mode", "link"]))
TURN = st.tuples(st.lists(CHANGE, max_size=4), st.booleans())


def change(place: Path, name: str, how: str, number: int) -> None:
    path = place / name
    if how in ("delete", "link"):
        path.unlink(missing_ok=True)
    if how == "link":
        path.symlink_to(f"target {number}")
    elif how == "write":
        if path.is_symlink():
            path.unlink()
        path.write_text(f"{number}\n")
    elif how == "mode" and path.is_file() and not path.is_symlink():
        path.chmod(path.stat().st_mode ^ 0o111)


@settings(max_examples=15)
@given(turns=st.lists(TURN, min_size=1, max_size=5), is_resumed=st.booleans())
def test_undo_restores_every_byte(
    turns: list[tuple[list[tuple[str, str]], bool]], is_resumed: bool
) -> None:
    """After any turns, some applied and some not, in this process or in the next: taking all of them
    back gives both trees as they were, and making them again gives both as they had become."""

    async def story(place: Path) -> None:
        repo = repository_in(place)
        (repo / "mine").write_text("untracked\n")
        before = tree(repo)
        async with desk_over(repo, place / "state") as rig:
            for number, (changes, is_applied) in enumerate(turns):
                await rig.turn(str(number), lambda at, c=changes, n=number: work(at, c, n))  # type: ignore[misc]
                if is_applied:
                    assert (await rig.desk.apply(accepts_risks=True)).is_done
            pending = await rig.desk.pending()
            if not is_resumed:
                await back_and_forth(rig, before)
        if is_resumed:
            async with desk_over(repo, place / "state") as rig:
                assert await rig.workspace.restore(pending) == []
                await back_and_forth(rig, before)

    def work(at: Path, changes: list[tuple[str, str]], turn: int) -> None:
        for number, (name, how) in enumerate(changes):
            change(at, name, how, 10 * turn + number)

    async def back_and_forth(rig: Rig, before: dict[str, tuple[str, bytes, bool]]) -> None:
        here, there = tree(rig.view), tree(rig.repository)
        steps = len(rig.desk.history.undoable)
        for _ in range(steps):
            await rig.desk.undo()
        assert tree(rig.repository) == before
        assert tree(rig.view) == before
        for _ in range(steps):
            await rig.desk.redo()
        assert tree(rig.view) == here
        assert tree(rig.repository) == there

    with tempfile.TemporaryDirectory(prefix="tightloop-test-") as place:
        asyncio.run(story(Path(place)))
