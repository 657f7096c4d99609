"""123: the dialect of one operation at a time."""

import pytest

from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.hosted import parse_hosted
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
