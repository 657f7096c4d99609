"""A patch from its first delta to the commit: the one way in for whole and streamed text.

``PatchStream`` parses and places as text arrives and touches no file before ``commit``; dropping
it leaves no trace. ``apply_patch`` is the same for text that is already complete.
"""

from dataclasses import dataclass
from pathlib import Path

from tightloop.agent.patch.commit import ChangedMeanwhileError, check_originals, commit
from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.agent.patch.operations import PatchEvent
from tightloop.agent.patch.parser import PatchParser
from tightloop.agent.patch.paths import Root
from tightloop.agent.patch.plan import ChunkLocated, FileResult, PatchPolicy, Planner

_LETTERS = {"add": "A", "update": "M", "delete": "D"}


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


@dataclass(frozen=True, slots=True)
class Impossible:
    """The patch cannot succeed, known before its text is over."""

    failure: Failure


StreamEvent = PatchEvent | ChunkLocated | Impossible


class PatchStream:
    """One patch as it arrives. ``feed`` any number of times, then ``commit`` or ``close``."""

    def __init__(self, workspace: Path, policy: PatchPolicy | None = None) -> None:
        self._policy = policy or PatchPolicy()
        self._root = Root(workspace, self._policy.protected)
        self._pieces: list[str] = []
        self._start_over()

    @property
    def text(self) -> str:
        """Everything fed so far."""
        return "".join(self._pieces)

    def feed(self, text: str) -> list[StreamEvent]:
        """Take more text; what became known. ``Impossible`` comes at most once."""
        self._pieces.append(text)
        return self._advance(self._parser.feed(text))

    def commit(self) -> PatchOutcome:
        """The text is over: change the workspace as it says, all of it or nothing.

        A plan spoilt by someone else's edit since it was made is made once more.
        """
        self._advance(self._parser.finish())
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

    def _replan(self) -> None:
        self._start_over()
        self._advance(self._parser.feed(self.text))
        self._advance(self._parser.finish())

    def _advance(self, events: list[PatchEvent]) -> list[StreamEvent]:
        known: list[StreamEvent] = []
        for event in events:
            known.append(event)
            if self._impossible is not None:
                continue
            try:
                located = self._planner.take(event)
            except PatchError as error:
                self._impossible = error
                known.append(Impossible(error.failure))
            else:
                known += [located] if located else []
        if self._parser.failure is not None and self._impossible is None:
            self._impossible = self._parser.failure
            known.append(Impossible(self._impossible.failure))
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
    return notes
