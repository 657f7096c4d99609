"""A patch from its first delta to the commit: the one way in for whole and streamed text.

``PatchStream`` parses and places as text arrives and touches no file before ``commit``; dropping
it leaves no trace. ``apply_patch`` is the same for text that is already complete.

What a listener hears of a patch, in order::

    (FileSeen (ChunkClosed (ChunkLocated | ChunkFailed))* FileClosed)* PatchEnded PatchPlanned?

``Impossible`` comes once at most, as soon as it is certain: after a bad header or line, after a
line of a chunk that then has no place, after a failed chunk. Afterwards nothing is placed any more
and paths are as the patch spells them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tightloop.agent.patch.commit import ChangedMeanwhileError, check_originals, commit
from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.agent.patch.operations import Chunk, ChunkClosed, ChunkGrew, PatchEvent
from tightloop.agent.patch.parser import PatchParser
from tightloop.agent.patch.paths import Root
from tightloop.agent.patch.plan import FileResult, PatchPolicy, PlanEvent, Planner
from tightloop.agent.patch.remaining import PatchSizes

_LETTERS = {"add": "A", "update": "M", "delete": "D"}
_LOOSE = {
    "trimmed": "fits only when white space around the lines is ignored",
    "unicode": "fits only when quotes, dashes and spaces are made plain",
}


@dataclass(frozen=True, slots=True)
class PatchOutcome:
    """Either what was done, file by file, or why nothing was."""

    files: tuple[FileResult, ...] = ()
    failure: Failure | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the patch is on disk."""
        return self.failure is None

    def as_text(self) -> str:
        """The tool output: the summary that models were trained on, then notes, if any."""
        if self.failure is not None:
            return self.failure.as_text()
        lines = ["Success. Updated the following files:"]
        for letter in "AMD":
            lines += [f"{letter} {f.path}" for f in self.files if _LETTERS[f.kind] == letter]
        return "\n".join([*lines, *_notes(self.files)]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form: ``Failure.as_dict``, or the fields of each ``FileResult``."""
        if self.failure is not None:
            return self.failure.as_dict()
        return {"ok": True, "files": [asdict(file) for file in self.files]}


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """A chunk of ``path`` has no place."""

    path: str
    chunk: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Impossible:
    """The patch cannot succeed, known before its text is over."""

    failure: Failure


StreamEvent = PlanEvent | ChunkFailed | Impossible

PatchListener = Callable[[StreamEvent], None]
"""Called with each event as soon as it is known, before ``feed`` returns; must be quick and must
not raise. A plan that is made once more, because a file changed, is not told again."""


class PatchStream:
    """One patch as it arrives. ``feed`` any number of times, then ``commit`` or ``close``."""

    def __init__(
        self,
        workspace: Path,
        policy: PatchPolicy | None = None,
        listener: PatchListener | None = None,
    ) -> None:
        self._policy = policy or PatchPolicy()
        self._listener = listener
        self._root = Root(workspace, self._policy.protected)
        self._pieces: list[str] = []
        self._start_over()

    @property
    def text(self) -> str:
        """Everything fed so far."""
        return "".join(self._pieces)

    @property
    def failure(self) -> Failure | None:
        """Why the patch cannot succeed, as far as is known by now."""
        return None if self._impossible is None else self._impossible.failure

    def feed(self, text: str) -> list[StreamEvent]:
        """Take more text; what became known. ``Impossible`` comes at most once."""
        self._pieces.append(text)
        return self._tell(self._advance(self._parser.feed(text)))

    def recheck(self) -> Failure | None:
        """``failure``, judged by the files as they are now: one that changed may have mended it."""
        if self._impossible is not None:
            self._start_over()
            self._advance(self._parser.feed(self.text))
        return self.failure

    def expected_tokens(self, sizes: PatchSizes) -> float:
        """How many more tokens the patch is expected to take; see ``remaining``."""
        return sizes.expected_tokens(self._parser.state, self._parser.num_open_chars, self._closed)

    def learn_into(self, sizes: PatchSizes) -> None:
        """The text is over: remember how long it was."""
        sizes.learn(self._parser.operations)

    def commit(self) -> PatchOutcome:
        """The text is over: change the workspace as it says, all of it or nothing.

        A plan spoilt by someone else's edit since it was made is made once more.
        """
        self._tell(self._advance(self._parser.finish()))
        try:
            for _ in range(2):
                outcome = self._try_commit()
                if outcome is not None:
                    return outcome
                self._replan()
        finally:
            self.close()
        message = "a file keeps changing while the patch is applied"
        return PatchOutcome(failure=Failure("changed", message))

    def close(self) -> None:
        """Forget the patch. May be called twice."""
        self._root.close()

    def _start_over(self) -> None:
        self._parser = PatchParser()
        self._planner = Planner(self._root, self._policy)
        self._impossible: PatchError | None = None
        self._is_early = False  # given up within a chunk: at its end more can be said
        self._closed: list[Chunk] = []

    def _replan(self) -> None:
        self._start_over()
        self._advance(self._parser.feed(self.text))
        self._advance(self._parser.finish())

    def _tell(self, events: list[StreamEvent]) -> list[StreamEvent]:
        if self._listener is not None:
            for event in events:
                self._listener(event)
        return events

    def _advance(self, events: list[PatchEvent]) -> list[StreamEvent]:
        known: list[StreamEvent] = []
        for event in events:
            if isinstance(event, ChunkClosed):
                self._closed.append(event.chunk)
            if self._impossible is None or (self._is_early and isinstance(event, ChunkClosed)):
                known += self._plan(event)
            elif not isinstance(event, ChunkGrew):
                known.append(event)
        if self._parser.failure is not None and self._impossible is None:
            self._impossible = self._parser.failure
            known.append(Impossible(self._impossible.failure))
        return known

    def _plan(self, event: PatchEvent) -> list[StreamEvent]:
        known: list[StreamEvent] = []
        try:
            known += self._planner.take(event)
            self._impossible = None
        except PatchError as error:
            is_news = self._impossible is None
            self._impossible = error
            self._is_early = isinstance(event, ChunkGrew)
            if not self._is_early:
                known.append(event)
            if isinstance(event, ChunkClosed):
                path = error.failure.file or event.path
                known.append(ChunkFailed(path, event.chunk.number, error.failure))
            if is_news:
                known.append(Impossible(error.failure))
        return known

    def _try_commit(self) -> PatchOutcome | None:
        """None when the files on disk are not those the plan was made for."""
        files = list(self._planner.files.values())
        try:
            if self._impossible is not None:
                check_originals(self._root, files, self._policy.max_bytes)
                return PatchOutcome(failure=self._impossible.failure)
            if not self._planner.results:
                message = "No files were modified: the patch names no file."
                return PatchOutcome(failure=Failure("empty_patch", message))
            commit(self._root, files, self._policy.max_bytes)
        except ChangedMeanwhileError:
            return None
        except PatchError as error:
            return PatchOutcome(failure=error.failure)
        return PatchOutcome(tuple(self._planner.results))


def apply_patch(text: str, workspace: Path, policy: PatchPolicy | None = None) -> PatchOutcome:
    """Apply a whole patch to ``workspace``, atomically. Does not raise for anything in ``text``."""
    stream = PatchStream(workspace, policy)
    stream.feed(text)
    return stream.commit()


def _notes(files: tuple[FileResult, ...]) -> list[str]:
    notes: list[str] = []
    for file in files:
        if file.moved_from:
            notes.append(f"({file.path}: moved from {file.moved_from})")
        if file.has_overwritten:
            notes.append(f"({file.path}: replaced an existing file)")
        if file.applied_before:
            which = ", ".join(map(str, file.applied_before))
            what = "the same content was there" if file.kind == "add" else f"chunk {which} was"
            notes.append(f"({file.path}: {what} already)")
        for number, (tier, count) in enumerate(zip(file.tiers, file.num_matches, strict=True), 1):
            if tier in _LOOSE and number not in file.applied_before:
                notes.append(f"({file.path}: chunk {number} {_LOOSE[tier]})")
            if count > 1:
                notes.append(
                    f"({file.path}: chunk {number} fits at {count} places; took the first)"
                )
    return notes
