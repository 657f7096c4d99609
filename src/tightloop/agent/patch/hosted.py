"""The body-only dialect of the hosted patch tool: one operation, one file, no envelope."""

from typing import Any

from tightloop.agent.patch.failure import bad_syntax
from tightloop.agent.patch.operations import AddFile, Operation, UpdateFile
from tightloop.agent.patch.parser import ADD_FILE, BEGIN, DELETE_FILE, END, UPDATE_FILE, parse_patch

_HEADERS = {"create_file": ADD_FILE, "update_file": UPDATE_FILE, "delete_file": DELETE_FILE}


def parse_hosted(operation: dict[str, Any]) -> Operation:
    """The operation of an ``apply_patch_call`` item: ``{"type", "path", "diff"}``.

    Raises ``PatchError`` (``bad_syntax``) for an unknown type and for a diff that would touch
    another file than ``path``.
    """
    kind, path = operation.get("type"), operation.get("path")
    if kind not in _HEADERS or not isinstance(path, str) or not path.strip() or "\n" in path:
        raise bad_syntax(f"not a patch operation: type {kind!r}, path {path!r}")
    diff = "" if kind == "delete_file" else str(operation.get("diff", ""))
    parsed = parse_patch(f"{BEGIN}\n{_HEADERS[kind]}{path}\n{diff.rstrip(chr(10))}\n{END}\n")
    first, *others = parsed.operations
    is_move = isinstance(first, UpdateFile) and first.move_to is not None
    if others or first.path != path.strip() or is_move:
        raise bad_syntax(f"the diff of {path!r} holds another file's header", file=path)
    if isinstance(first, AddFile) and not first.lines and diff.strip():
        raise bad_syntax(f"the diff of {path!r} has no '+' line", file=path)
    return first
