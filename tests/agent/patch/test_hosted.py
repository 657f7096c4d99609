"""123: the dialect of one operation at a time."""

from pathlib import Path

import pytest

from tests.agent.patch.scenarios import harvest, plant
from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.hosted import apply_hosted, parse_hosted
from tightloop.agent.patch.operations import AddFile, DeleteFile, UpdateFile


def test_operations() -> None:
    created = parse_hosted({"type": "create_file", "path": "a", "diff": "+x\n+y"})
    assert isinstance(created, AddFile)
    assert created.lines == ("x", "y")
    updated = parse_hosted({"type": "update_file", "path": "a", "diff": "@@ f\n-x\n+y\n"})
    assert isinstance(updated, UpdateFile)
    assert updated.chunks[0].anchors == ("f",)
    assert isinstance(parse_hosted({"type": "delete_file", "path": "a"}), DeleteFile)


@pytest.mark.parametrize(
    "operation",
    [
        {"type": "rename_file", "path": "a"},
        {"type": "delete_file", "path": "a\n*** Delete File: b"},
        {"type": "delete_file"},
        {"type": "create_file", "path": "a", "diff": "+x\n*** Delete File: b"},
        {"type": "update_file", "path": "a", "diff": "-x\n*** Update File: b\n-x"},
        {"type": "update_file", "path": "a", "diff": "*** Move to: b\n-x"},
        {"type": "update_file", "path": "a", "diff": ""},
        {"type": "create_file", "path": "a", "diff": "x"},
    ],
)
def test_refused(operation: dict[str, str]) -> None:
    with pytest.raises(PatchError):
        parse_hosted(operation)


@pytest.mark.parametrize(
    ("kind", "before", "diff", "after"),
    [
        ("create_file", None, "+x\n+y", b"x\ny\n"),
        ("create_file", b"old\n", "+x\n", b"x\n"),
        ("update_file", b"a\nb\n", "@@\n a\n-b\n+c", b"a\nc\n"),
        ("update_file", b"a\nb", "@@\n-a\n+c\n b", b"c\nb"),
        ("update_file", b"a\r\nb\r\n", "@@\n-b\n+c", b"a\r\nc\r\n"),
        ("update_file", b"\ta\nb\n", "@@\n a\n-b\n+c", b"\ta\nc\n"),
        ("update_file", b"class A\ndef m\nx\nclass B\ndef m\nx\n", "@@ class B\n@@ def m\n-x\n+y",
         b"class A\ndef m\nx\nclass B\ndef m\ny\n"),
        ("update_file", b"def f\nx\n", "@@ def f\n+y", b"def f\ny\nx\n"),
        ("update_file", b"x\na\nx\n", "@@\n-x\n+y\n*** End of File", b"x\na\ny\n"),
        ("update_file", b"x\na\n", "@@\n-x\n+y\n*** End of File", b"y\na\n"),
        ("delete_file", b"x\n", None, None),
    ],
)  # fmt: skip
def test_applying(
    tmp_path: Path, kind: str, before: bytes | None, diff: str | None, after: bytes | None
) -> None:
    """As the reference of this dialect does it: context kept, anchors stacked, additions below
    their anchor, the last newline as it was, the end-of-file mark only a preference."""
    plant(tmp_path, {} if before is None else {"f": before})
    operation = {"type": kind, "path": "f"} | ({} if diff is None else {"diff": diff})
    outcome = apply_hosted(operation, tmp_path)
    assert outcome.failure is None
    assert ({} if after is None else {"f": after}) == harvest(tmp_path)


@pytest.mark.parametrize(
    ("before", "diff", "error"),
    [
        (b"a\n", "@@ no such line\n-a\n+b", "context_not_found"),
        (b"a\n", "@@\n-b\n+c", "context_not_found"),
        (b"a\na\n", "@@\n-a\n+c", "ambiguous"),
        (b"a\n", "@@\n-a\n+b\njunk", "bad_syntax"),
        (b"a\n", "*** End Patch\n*** Begin Patch\n-a\n+b", "bad_syntax"),
        (b"a\n", 5, "bad_syntax"),
    ],
)
def test_failures_change_nothing(tmp_path: Path, before: bytes, diff: object, error: str) -> None:
    """An anchor that is nowhere is refused here, where the reference ignores it."""
    plant(tmp_path, {"f": before})
    outcome = apply_hosted({"type": "update_file", "path": "f", "diff": diff}, tmp_path)
    assert outcome.failure is not None
    assert outcome.failure.error == error
    assert harvest(tmp_path) == {"f": before}


def test_a_missing_file(tmp_path: Path) -> None:
    outcome = apply_hosted({"type": "delete_file", "path": "f"}, tmp_path)
    assert outcome.failure is not None
    assert outcome.failure.error == "missing_file"
