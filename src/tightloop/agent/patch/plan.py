"""From patch events to planned files: every operation sees what the earlier ones left behind.

Nothing here writes. Files are read when their header line arrives, chunks are placed as they
close, so that after the last line only the commit is left.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tightloop.agent.patch.commit import PlannedFile
from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.agent.patch.locate import LocatePolicy, Locator, Placement
from tightloop.agent.patch.operations import (
    AddFile,
    Chunk,
    ChunkClosed,
    ChunkGrew,
    FileSeen,
    PatchEnded,
    PatchEvent,
    UpdateFile,
)
from tightloop.agent.patch.paths import PROTECTED, Root, clean_path
from tightloop.agent.patch.text import Edit, FileText


@dataclass(frozen=True, slots=True)
class PatchPolicy:
    """What a patch may do. ``may_overwrite``: adding or moving onto an existing file.

    ``directory`` is what the patch's relative paths start from, itself relative to the workspace.
    ``known_as`` is the workspace's path for whoever writes patches, if that is another one.
    """

    locate: LocatePolicy = field(default_factory=LocatePolicy)
    may_overwrite: bool = True
    directory: str = "."
    max_bytes: int = 10_000_000
    protected: Iterable[str] = PROTECTED
    known_as: Path | None = None


@dataclass(frozen=True, slots=True)
class FileResult:
    """What one operation did. ``kind`` is ``add``, ``delete`` or ``update``; lines from 1.

    ``path`` is the name afterwards and ``moved_from`` the one before. ``changed_lines`` are
    (first, last) in the new file; ``tiers`` and ``num_matches``, the places that were alike, have
    one entry per chunk; ``sha256`` is that of the new content.
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
    num_matches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkLocated:
    """A chunk of ``path`` has its place; ``line`` counts from 1.

    ``num_matches`` is how many places were alike in ``tier``; an anchor decided between them.
    """

    path: str
    chunk: int
    line: int
    tier: str
    num_matches: int = 1


@dataclass(frozen=True, slots=True)
class PatchPlanned:
    """The end marker was read and everything has its place: what a commit would write.

    Still nothing is written, and still the call may be cut off; for whoever wants to try the
    outcome elsewhere meanwhile.
    """

    files: tuple[PlannedFile, ...]


PlanEvent = PatchEvent | ChunkLocated | PatchPlanned


@dataclass(slots=True)
class _Open:
    """The update whose chunks are arriving. ``text`` is made for the first of them: a file that
    is only renamed may hold anything."""

    path: str
    file: PlannedFile
    header_line: int
    text: FileText | None = None
    locator: Locator | None = None
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

    def take(self, event: PatchEvent) -> list[PlanEvent]:
        """Plan one event; it and what follows from it, with paths relative to the workspace."""
        if isinstance(event, FileSeen):
            return [replace(event, path=self._see(event))]
        if isinstance(event, ChunkGrew):
            self._locator().grow(event)
            return []
        if isinstance(event, ChunkClosed):
            located = self._place(event.chunk)
            return [replace(event, path=located.path), located]
        if isinstance(event, PatchEnded):
            return [event, *([PatchPlanned(tuple(self.files.values()))] if self.results else [])]
        operation = event.operation
        if isinstance(operation, AddFile):
            self._add(operation)
        elif isinstance(operation, UpdateFile):
            self._update(operation)
        else:
            self._remove(operation.path, operation.patch_line)
        return [event]

    def _see(self, event: FileSeen) -> str:
        path = self._clean(event.path)
        file = self._file(path, event.patch_line)
        if event.kind == "add":
            if file.content is not None and not self._policy.may_overwrite:
                raise _failure("forbidden_path", "the file exists already", path, event.patch_line)
        elif file.content is None:
            raise self._missing(event.kind, path, file, event.patch_line)
        elif event.kind == "update":
            self._open = _Open(path, file, event.patch_line)
        return path

    def _missing(self, kind: str, path: str, file: PlannedFile, patch_line: int) -> PatchError:
        if file.path in self._removed_at:
            reason = f"line {self._removed_at[file.path]} of this patch already removes it"
        else:
            reason = "no such file"
        return _failure("missing_file", f"cannot {kind} {path}: {reason}", path, patch_line)

    def _place(self, chunk: Chunk) -> ChunkLocated:
        update = self._update_open()
        placement = self._locator().place(chunk)
        update.edits += placement.edits
        update.placements.append(placement)
        tier = placement.tier.name.lower()
        return ChunkLocated(update.path, chunk.number, placement.line, tier, placement.num_matches)

    def _locator(self) -> Locator:
        update = self._update_open()
        if update.locator is None:
            update.text = self._text(update)
            update.locator = Locator(update.text, update.path, self._policy.locate)
        return update.locator

    def _text(self, update: _Open) -> FileText:
        assert update.file.content is not None, "the header refuses missing files"
        try:
            return FileText(update.file.content)
        except PatchError as error:
            raise error.at(file=update.path, patch_line=update.header_line) from None

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

    def _remove(self, given: str, patch_line: int) -> None:
        path = self._clean(given)
        file = self._file(path, patch_line)
        num_removed = (file.content or b"").count(b"\n")
        file.content = None
        self._removed_at[file.path] = patch_line
        self.results.append(FileResult("delete", path, num_removed=num_removed))

    def _update(self, operation: UpdateFile) -> None:
        update, self._open = self._update_open(), None
        content = self._updated(update)
        target, has_overwritten = update.path, False
        if operation.move_to is not None:
            target = self._clean(operation.move_to)
        file = self._file(target, operation.patch_line)
        if file is not update.file:
            has_overwritten = self._move(update, file, target, operation.patch_line)
        file.content, file.mode = content, update.file.mode
        self.results.append(
            FileResult(
                "update",
                target,
                moved_from=update.path if file is not update.file else None,
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
                num_matches=tuple(placement.num_matches for placement in update.placements),
            )
        )

    def _updated(self, update: _Open) -> bytes:
        if update.text is None:  # a rename alone
            return update.file.content or b""
        content = update.text.edited(update.edits)
        if self._policy.locate.codex and content and not content.endswith(b"\n"):
            content += b"\n"
        return content

    def _move(self, update: _Open, target: PlannedFile, path: str, patch_line: int) -> bool:
        """Take the source away; whether the target existed."""
        exists = target.content is not None
        if exists and not self._policy.may_overwrite:
            raise _failure("forbidden_path", "the move's target exists", path, patch_line)
        update.file.content = None
        self._removed_at[update.file.path] = patch_line
        return exists

    def _update_open(self) -> _Open:
        assert self._open is not None, "a chunk without its file header"
        return self._open

    def _clean(self, path: str) -> str:
        if self._policy.directory != "." and path.strip():
            path = os.path.join(self._policy.directory, path)
        policy = self._policy
        return clean_path(path, self._root.path, policy.protected, policy.known_as)

    def _file(self, path: str, patch_line: int) -> PlannedFile:
        """The file as the patch has left it so far; one and the same under all its names."""
        try:
            name = self._root.true_name(path)
            if name not in self.files:
                state = self._root.read(name, self._policy.max_bytes)
                content, mode = (None, None) if state is None else (state.content, state.mode)
                self.files[name] = PlannedFile(name, state, content, mode)
        except PatchError as error:
            raise error.at(file=path, patch_line=patch_line) from None
        except OSError as error:
            message = f"cannot read: {error.strerror or error}"
            raise _failure("io_error", message, path, patch_line) from error
        return self.files[name]


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
