"""The tool ``apply_patch``: a patch text that changes files of the workspace, all or none.

Offered as a free-form tool with a grammar, or as a function with one string for endpoints that
know only functions. Either way the text is parsed and placed while it is being generated.
"""

from dataclasses import replace
from typing import Any

import msgspec

from tightloop.agent.events import ChangedPath, FileChange, ThreadItem
from tightloop.agent.patch.apply import PatchOutcome, PatchStream
from tightloop.agent.patch.failure import Failure
from tightloop.agent.patch.plan import FileResult, PatchPolicy
from tightloop.agent.patch.remaining import PatchSizes
from tightloop.agent.tools.arguments import ArgumentsError, read_object
from tightloop.agent.tools.interface import Hopeless, ToolContext, ToolResult
from tightloop.protocol.errors import RemoteProtocolError
from tightloop.protocol.partial_json import PartialObject, StringGrew
from tightloop.trace.spans import Span

GRAMMAR = r"""
start: begin file+ end
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?
file: added | deleted | updated
added: "*** Add File: " path LF plus_line+
deleted: "*** Delete File: " path LF
updated: "*** Update File: " path LF move? change?
move: "*** Move to: " path LF
change: (anchor | line)+ tail?
anchor: ("@@" | "@@ " /(.+)/) LF
line: ("+" | "-" | " ") /(.*)/ LF
plus_line: "+" /(.*)/ LF
tail: "*** End of File" LF
path: /(.+)/
%import common.LF
"""

_DESCRIPTION = """\
Changes files. The text starts with '*** Begin Patch' and ends with '*** End Patch'; between them, \
per file: '*** Add File: PATH' and lines that start with '+'; '*** Delete File: PATH'; or \
'*** Update File: PATH', optionally '*** Move to: PATH', and chunks. A chunk starts with '@@' or \
'@@ ' and a line of the file above the change (needed when the same lines occur more than once); \
then come lines marked ' ' (unchanged), '-' (removed) and '+' (added), about three unchanged ones \
on either side. Chunks follow file order. Only '+' lines after '@@ LINE' are inserted below that \
line, without it at the end of the file. Paths are relative. All files are changed or none. \
Small patches fail less often."""

_EXAMPLE = '{"input": "*** Begin Patch\\n...\\n*** End Patch"}'


class ApplyPatch:
    """``as_function`` offers it as a function with the string ``input``."""

    name = "apply_patch"
    is_ordered = True

    def __init__(self, *, as_function: bool = False, policy: PatchPolicy | None = None) -> None:
        self._as_function = as_function
        self._policy = policy or PatchPolicy()
        self._sizes = PatchSizes()

    def definition(self) -> dict[str, Any]:
        """See ``Tool.definition``."""
        if not self._as_function:
            return {
                "type": "custom",
                "name": self.name,
                "description": _DESCRIPTION,
                "format": {"type": "grammar", "syntax": "lark", "definition": GRAMMAR},
            }
        text = {"type": "string", "description": "The whole patch."}
        return {
            "type": "function",
            "name": self.name,
            "description": _DESCRIPTION,
            "strict": False,
            "parameters": {
                "type": "object",
                "properties": {"input": text},
                "required": ["input"],
                "additionalProperties": False,
            },
        }

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        """None: a file change is shown when it is made or refused."""
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """See ``Tool.run``."""
        try:
            text = _patch_text(arguments)
        except ArgumentsError as error:
            return ToolResult(str(error), is_ok=False)
        return run_patch(text, context, self._policy)

    def prepare(self, context: ToolContext, *, is_custom: bool) -> "PreparedPatch":
        """See ``StreamingTool.prepare``."""
        return PreparedPatch(context, self._policy, self._sizes, is_custom)


class PreparedPatch:
    """A patch being parsed and placed as its text arrives; nothing is written before ``run``."""

    def __init__(
        self, context: ToolContext, policy: PatchPolicy, sizes: PatchSizes, is_custom: bool
    ) -> None:
        self._context = context
        self._policy = policy
        self._sizes = sizes
        self._stream = _stream(context, policy)
        self._json = None if is_custom else PartialObject()
        self._key: str | None = None
        self._is_odd = False

    def feed(self, delta: str) -> None:
        """See ``PreparedCall.feed``."""
        if self._json is None:
            self._take(delta)
            return
        try:
            changes = self._json.feed(delta)
        except RemoteProtocolError:
            self._is_odd = True  # said again, in words for the model, when the call is complete
            return
        for change in changes:
            if isinstance(change, StringGrew) and change.key in _KEYS:
                self._is_odd = self._is_odd or change.key != (self._key or change.key)
                self._key = change.key
                self._take(change.text)

    def _take(self, text: str) -> None:
        self._stream.feed(text)
        self._context.on_patch_text(text)

    def hopeless(self) -> Hopeless | None:
        """See ``PreparedCall.hopeless``. A text that may still be read in another way never is."""
        if self._stream.failure is None or self._is_odd:
            return None
        text = self._stream.text
        if text.lstrip().startswith("{"):  # perhaps JSON for a tool that takes free text
            return None
        failure = self._stream.recheck()
        if failure is None:
            return None
        text = text.encode("utf-8", "replace").decode()
        arguments = text if self._json is None else msgspec.json.encode({"input": text}).decode()
        failure = replace(failure, hint=f"{_STOPPED} {failure.hint}".rstrip())
        now_ns = self._context.clock.now_ns()
        result = _result(PatchOutcome(failure=failure), self._context, now_ns)
        return Hopeless(arguments, result, self._stream.expected_tokens(self._sizes))

    async def run(self, arguments: str) -> ToolResult:
        """See ``PreparedCall.run``."""
        start_ns = self._context.clock.now_ns()
        try:
            text = _patch_text(arguments)
        except ArgumentsError as error:
            self.close()
            return ToolResult(str(error), is_ok=False)
        if text != self._stream.text:  # deltas were lost or merged: the final text is what counts
            self.close()
            return run_patch(text, self._context, self._policy)
        outcome = self._stream.commit()
        self._stream.learn_into(self._sizes)
        return _result(outcome, self._context, start_ns)

    def close(self) -> None:
        """See ``PreparedCall.close``."""
        self._stream.close()


_KEYS = ("input", "patch")
_STOPPED = "Your response was stopped at this point."


def run_patch(text: str, context: ToolContext, policy: PatchPolicy | None = None) -> ToolResult:
    """Apply a whole patch to the workspace."""
    start_ns = context.clock.now_ns()
    stream = _stream(context, policy)
    stream.feed(text)
    return _result(stream.commit(), context, start_ns)


def _stream(context: ToolContext, policy: PatchPolicy | None) -> PatchStream:
    if context.shown_at is not None:
        policy = replace(policy or PatchPolicy(), known_as=context.shown_at)
    return PatchStream(context.workspace, policy, context.on_patch)


def _patch_text(arguments: str) -> str:
    """The patch in free text or in a JSON object that holds it."""
    if not arguments.lstrip().startswith("{"):
        return arguments
    fields = read_object(arguments, "apply_patch", _EXAMPLE)
    for key in _KEYS:
        if isinstance(fields.get(key), str):
            return str(fields[key])
    raise ArgumentsError(f"apply_patch: 'input' must be the patch text. Send {_EXAMPLE}")


def _result(outcome: PatchOutcome, context: ToolContext, start_ns: int) -> ToolResult:
    text = outcome.as_text()
    paths = " ".join(file.path for file in outcome.files)
    span = Span("tool", start_ns, context.clock.now_ns(), f"apply_patch {paths}".rstrip())
    if outcome.is_ok:
        moved = [file.moved_from for file in outcome.files if file.moved_from]
        context.on_changed((*(file.path for file in outcome.files), *moved))
        changes = tuple(path for file in outcome.files for path in _changed_paths(file))
        item = FileChange(context.item_id, changes)
    else:
        item = FileChange(context.item_id, _failed_path(outcome.failure), "failed", text)
    return ToolResult(text, outcome.is_ok, (span,), item)


def _failed_path(failure: Failure | None) -> tuple[ChangedPath, ...]:
    path = failure.file if failure is not None else None
    return (ChangedPath(path, "update"),) if path else ()


def _changed_paths(file: FileResult) -> list[ChangedPath]:
    if file.moved_from:
        return [ChangedPath(file.moved_from, "delete"), ChangedPath(file.path, "add")]
    return [ChangedPath(file.path, file.kind)]
