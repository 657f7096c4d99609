"""From patch events to planned files: every operation sees what the earlier ones left behind.

Nothing here writes. Files are read when their header line arrives, chunks are placed as they
close, so that after the last line only the commit is left.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from tightloop.agent.patch.commit import PlannedFile
from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.agent.patch.locate import LocatePolicy, Locator, Placement
from tightloop.agent.patch.operations import (
    AddFile,
    Chunk,
    ChunkClosed,
    FileSeen,
    PatchEvent,
    UpdateFile,
)
from tightloop.agent.patch.paths import PROTECTED, Root, clean_path
from tightloop.agent.patch.text import Edit, FileText


@dataclass(frozen=True, slots=True)
class PatchPolicy:
    """What a patch may do. ``may_overwrite``: adding or moving onto an existing file.

    ``directory`` is what the patch's relative paths start from, itself relative to the workspace.
    """

    locate: LocatePolicy = field(default_factory=LocatePolicy)
    may_overwrite: bool = True
    directory: str = "."
    max_bytes: int = 10_000_000
    protected: Iterable[str] = PROTECTED


@dataclass(frozen=True, slots=True)
class FileResult:
    """What one operation did. ``kind`` is ``add``, ``delete`` or ``update``; lines from 1.

    ``path`` is the name afterwards and ``moved_from`` the one before. ``changed_lines`` are
    (first, last) in the new file, ``tiers`` one per chunk, ``sha256`` of the new content.
    """

    kind: str
    path: str
    moved_from: str | None = None
    changed_lines: tuple[tuple[int, int], ...] = ()
    tiers: tuple[str, ...] = ()
    num_added: int = 0
    num_removed: int = 0
    sha256: str | None = None
    has_overwritten: bool = False
    applied_before: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkLocated:
    """A chunk of ``path`` has its place; ``line`` counts from 1."""

    path: str
    chunk: int
    line: int
    tier: str


@dataclass(slots=True)
class _Open:
    """The update whose chunks are arriving."""

    path: str
    text: FileText
    locator: Locator
    mode: int | None
    edits: list[Edit] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)


class Planner:
    """Takes the parser's events in order; raises ``PatchError`` at the first impossible one."""

    def __init__(self, root: Root, policy: PatchPolicy) -> None:
        self.files: dict[str, PlannedFile] = {}
        self.results: list[FileResult] = []
        self._root = root
        self._policy = policy
        self._open: _Open | None = None
        self._removed_at: dict[str, int] = {}

    def take(self, event: PatchEvent) -> ChunkLocated | None:
        """Plan one event."""
        if isinstance(event, FileSeen):
            self._see(event)
        elif isinstance(event, ChunkClosed):
            return self._place(event.chunk)
        elif isinstance(event.operation, AddFile):
            self._add(event.operation)
        elif isinstance(event.operation, UpdateFile):
            self._update(event.operation)
        else:
            self._remove(self._clean(event.operation.path), event.operation.patch_line)
        return None

    def _see(self, event: FileSeen) -> None:
        path = self._clean(event.path)
        file = self._file(path, event.patch_line)
        if event.kind == "add":
            if file.content is not None and not self._policy.may_overwrite:
                raise _failure("forbidden_path", "the file exists already", path, event.patch_line)
            return
        if file.content is None:
            raise self._missing(event.kind, path, event.patch_line)
        if event.kind == "update":
            try:
                text = FileText(file.content)
            except PatchError as error:
                raise error.at(file=path, patch_line=event.patch_line) from None
            locator = Locator(text, path, self._policy.locate)
            self._open = _Open(path, text, locator, file.mode)

    def _missing(self, kind: str, path: str, patch_line: int) -> PatchError:
        if path in self._removed_at:
            reason = f"line {self._removed_at[path]} of this patch already removes it"
        else:
            reason = "no such file"
        return _failure("missing_file", f"cannot {kind} {path}: {reason}", path, patch_line)

    def _place(self, chunk: Chunk) -> ChunkLocated:
        update = self._update_open()
        placement = update.locator.place(chunk)
        update.edits += placement.edits
        update.placements.append(placement)
        tier = placement.tier.name.lower()
        return ChunkLocated(update.path, chunk.number, placement.line, tier)

    def _add(self, operation: AddFile) -> None:
        path = self._clean(operation.path)
        file = self._file(path, operation.patch_line)
        before = file.content
        content = "".join(line + "\n" for line in operation.lines).encode()
        file.content = content
        self.results.append(
            FileResult(
                "add",
                path,
                changed_lines=((1, len(operation.lines)),) if operation.lines else (),
                num_added=len(operation.lines),
                num_removed=0 if before is None else before.count(b"\n"),
                sha256=_sha256(content),
                has_overwritten=before is not None and before != content,
                applied_before=(1,) if before == content else (),
            )
        )

    def _remove(self, path: str, patch_line: int) -> None:
        file = self.files[path]
        num_removed = (file.content or b"").count(b"\n")
        file.content = None
        self._removed_at[path] = patch_line
        self.results.append(FileResult("delete", path, num_removed=num_removed))

    def _update(self, operation: UpdateFile) -> None:
        update, self._open = self._update_open(), None
        content = update.text.edited(update.edits)
        target, has_overwritten = update.path, False
        if operation.move_to is not None:
            target = self._clean(operation.move_to)
        if target != update.path:
            has_overwritten = self._move(update, target, operation.patch_line)
        file = self.files[target]
        file.content, file.mode = content, update.mode
        self.results.append(
            FileResult(
                "update",
                target,
                moved_from=update.path if target != update.path else None,
                changed_lines=_changed_lines(update.edits),
                tiers=tuple(placement.tier.name.lower() for placement in update.placements),
                num_added=sum(len(edit.new) for edit in update.edits),
                num_removed=sum(edit.num_old for edit in update.edits),
                sha256=_sha256(content),
                has_overwritten=has_overwritten,
                applied_before=tuple(
                    number
                    for number, placement in enumerate(update.placements, 1)
                    if placement.is_already_applied
                ),
            )
        )

    def _move(self, update: _Open, target: str, patch_line: int) -> bool:
        """Take the source away; whether the target existed."""
        exists = self._file(target, patch_line).content is not None
        if exists and not self._policy.may_overwrite:
            raise _failure("forbidden_path", "the move's target exists", target, patch_line)
        self.files[update.path].content = None
        self._removed_at[update.path] = patch_line
        return exists

    def _update_open(self) -> _Open:
        assert self._open is not None, "a chunk without its file header"
        return self._open

    def _clean(self, path: str) -> str:
        if self._policy.directory != "." and path.strip():
            path = os.path.join(self._policy.directory, path)
        return clean_path(path, self._root.path, self._policy.protected)

    def _file(self, path: str, patch_line: int) -> PlannedFile:
        if path not in self.files:
            try:
                state = self._root.read(path, self._policy.max_bytes)
            except PatchError as error:
                raise error.at(patch_line=patch_line) from None
            except OSError as error:
                message = f"cannot read: {error.strerror or error}"
                raise _failure("io_error", message, path, patch_line) from error
            content, mode = (None, None) if state is None else (state.content, state.mode)
            self.files[path] = PlannedFile(path, state, content, mode)
        return self.files[path]


def _failure(error: str, message: str, path: str, patch_line: int) -> PatchError:
    return PatchError(Failure(error, message, file=path, patch_line=patch_line))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _changed_lines(edits: Iterable[Edit]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    shift = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        first = edit.start + shift + 1
        ranges.append((first, first + max(len(edit.new) - 1, 0)))
        shift += len(edit.new) - edit.num_old
    return tuple(ranges)
