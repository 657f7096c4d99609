from pathlib import Path

from benchmarks.workshop.projects import EDITED, edit, edit_patch, make_project, write_edit
from tightloop.agent.patch.apply import apply_patch


def test_a_patch_does_what_the_edit_by_hand_does(tmp_path: Path) -> None:
    """Round after round; no two rounds leave the same text, and the function stays what it was."""
    by_hand, by_patch = tmp_path / "hand", tmp_path / "patch"
    seen = set()
    for place in (by_hand, by_patch):
        make_project(place)
    for number in range(4):
        write_edit(by_hand, number)
        assert apply_patch(edit_patch(number), by_patch).is_ok
        text = (by_hand / EDITED).read_text()
        assert text == (by_patch / EDITED).read_text()
        seen.add(text)
        scope: dict[str, object] = {}
        exec(text, scope)
        assert scope["f1"](1) == 2  # type: ignore[operator]
    assert len(seen) == 4


def test_an_edit_begins_where_the_last_one_ended() -> None:
    assert edit(0)[1] == edit(1)[0]
