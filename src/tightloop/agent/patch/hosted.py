"""The body-only dialect of the hosted patch tool: one operation, one file, no envelope.

What it means is the envelope's meaning. Where the reference of this dialect (openai-agents-python,
``apply_diff.py``) differs, the model is told by the result: an ``@@`` line that is not in the file
is refused and not ignored, a created file ends with a newline, context is kept from the file.
"""

from pathlib import Path
from typing import Any

from tightloop.agent.patch.apply import PatchOutcome, apply_patch
from tightloop.agent.patch.failure import PatchError, bad_syntax
from tightloop.agent.patch.operations import AddFile, Operation, UpdateFile
from tightloop.agent.patch.parser import ADD_FILE, BEGIN, DELETE_FILE, END, UPDATE_FILE, parse_patch
from tightloop.agent.patch.plan import PatchPolicy

_HEADERS = {"create_file": ADD_FILE, "update_file": UPDATE_FILE, "delete_file": DELETE_FILE}


def parse_hosted(operation: dict[str, Any]) -> Operation:
    """The operation of an ``apply_patch_call`` item: ``{"type", "path", "diff"}``.

    Raises ``PatchError`` (``bad_syntax``) for an unknown type and for a diff that would touch
    another file than ``path``.
    """
    text = _envelope(operation)
    path, diff = operation["path"], operation.get("diff") or ""
    first, *others = parse_patch(text).operations
    is_move = isinstance(first, UpdateFile) and first.move_to is not None
    if others or first.path != path.strip() or is_move:
        raise bad_syntax(f"the diff of {path!r} holds another file's header", file=path)
    if isinstance(first, AddFile) and not first.lines and diff.strip():
        raise bad_syntax(f"the diff of {path!r} has no '+' line", file=path)
    return first


def apply_hosted(
    operation: dict[str, Any], workspace: Path, policy: PatchPolicy | None = None
) -> PatchOutcome:
    """Do one operation, or nothing. Does not raise for anything in ``operation``."""
    try:
        parse_hosted(operation)
    except PatchError as error:
        return PatchOutcome(failure=error.failure)
    return apply_patch(_envelope(operation), workspace, policy)


def _envelope(operation: dict[str, Any]) -> str:
    kind, path, diff = (operation.get(name) for name in ("type", "path", "diff"))
    if kind not in _HEADERS or not isinstance(path, str) or not path.strip() or "\n" in path:
        raise bad_syntax(f"not a patch operation: type {kind!r}, path {path!r}")
    if kind == "delete_file" or diff is None:
        diff = ""
    if not isinstance(diff, str):
        raise bad_syntax(f"the diff of {path!r} is no text: {diff!r}", file=path)
    return f"{BEGIN}\n{_HEADERS[kind]}{path}\n{diff.rstrip(chr(10))}\n{END}\n"
