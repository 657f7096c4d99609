from pathlib import Path

from benchmarks.workshop.patches import FILE, Subject, patch
from tightloop.agent.patch.apply import apply_patch


async def test_ours_and_gits_rounds_leave_the_same_file(tmp_path: Path) -> None:
    """Forth in odd rounds, back in even ones; the steps are parts of the whole."""
    ours, theirs = Subject(tmp_path / "ours", 60), Subject(tmp_path / "git", 60)
    before = (tmp_path / "ours" / FILE).read_text()
    apply_git = theirs.git()
    for number in range(1, 5):
        steps = await ours.streamed()
        assert await apply_git() > 0
        text = (tmp_path / "ours" / FILE).read_text()
        assert text == (tmp_path / "git" / FILE).read_text()
        assert (text == before) == (number % 2 == 0)
        located, applied = steps["closed chunk -> located"], steps["end of text -> applied"]
        assert 0 < located < applied < steps["first delta -> applied"]


def test_the_patch_is_one_that_applies(tmp_path: Path) -> None:
    Subject(tmp_path / "f", 30)
    outcome = apply_patch(patch(30), tmp_path / "f")
    assert [(file.num_added, file.num_removed) for file in outcome.files] == [(1, 1)]
