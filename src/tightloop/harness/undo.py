"""The work of each turn, so that it can be taken back and made again, also in another process.

A **step** is what one turn changed in the workspace, and what of it was written into the user's
checkout, with the bytes that stood there before. Steps lie beside the conversation in ``threads/ID.undo``,
one file each; ``index`` says which are done and which were taken back, and ``begun`` is there while a
turn runs: what the workspace held when it began. Each file is replaced whole.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from tightloop.sandbox.entries import Change, Entry
from tightloop.sandbox.interface import SandboxError

Kind = TypeVar("Kind")
MAX_STEPS = 100
MAX_BYTES = 64 << 20
"""What all steps together may hold; the oldest go first, the newest is always kept."""
MAX_TITLE_CHARS = 72


class NothingToUndo(SandboxError):
    """There is no step to take back, or none to make again."""


class Write(msgspec.Struct, frozen=True):
    """A path of the checkout that was written, and what it held before.

    ``is_over``: that was a version of the user's which the work was not made for, but for what is
    ``known``.
    """

    path: str
    before: Entry | None
    is_over: bool = False
    known: Entry | None = None


class Step(msgspec.Struct, frozen=True):
    """One turn's work. ``title`` is the beginning of what the user said."""

    number: int
    title: str
    changes: tuple[Change, ...]
    writes: tuple[Write, ...] = ()

    @property
    def paths(self) -> list[str]:
        """What it changed in the workspace, in order."""
        return [change.path for change in self.changes]

    @property
    def size_bytes(self) -> int:
        """About what it takes to keep."""
        held = [entry for change in self.changes for entry in (change.before, change.after)]
        held += [write.before for write in self.writes]
        return sum(len(entry.content) for entry in held if entry is not None)

    def backwards(self) -> tuple[list[Change], list[Change], dict[str, Entry | None]]:
        """What taking it back changes in the workspace and in the checkout; and, for paths at which
        the checkout then holds what the user wrote, what work there had been made for."""
        after = {change.path: change.after for change in self.changes}
        here = [Change(change.path, change.after, change.before) for change in self.changes]
        there = [Change(write.path, after[write.path], write.before) for write in self.writes]
        return here, there, {write.path: write.known for write in self.writes if write.is_over}

    def forwards(self) -> tuple[list[Change], list[Change]]:
        """What making it again changes in the workspace and in the checkout."""
        after = {change.path: change.after for change in self.changes}
        there = [Change(write.path, write.before, after[write.path]) for write in self.writes]
        return list(self.changes), there


class _Begun(msgspec.Struct, frozen=True):
    """What the workspace held, beyond what its work began from, when a turn began."""

    title: str
    changes: tuple[Change, ...]


class _Index(msgspec.Struct, frozen=True):
    """Numbers of steps, oldest first; of those taken back, the last one taken back is last."""

    done: tuple[int, ...] = ()
    undone: tuple[int, ...] = ()


_encoder = msgspec.msgpack.Encoder()


class History:
    """The steps of one conversation. Not to be used by two threads at once.

    Methods that change it return when the disk holds the change. What cannot be read of an earlier
    process is forgotten: nothing is undone by guessing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begun: _Begun | None = _read(directory / "begun", _Begun)
        index = _read(directory / "index", _Index) or _Index()
        self._done = _steps(directory, index.done)
        self._undone = _steps(directory, index.undone)
        self._next = 1 + max((*index.done, *index.undone), default=0)

    @property
    def undoable(self) -> list[Step]:
        """What can be taken back, the newest first."""
        return self._done[::-1]

    @property
    def redoable(self) -> list[Step]:
        """What can be made again, the one taken back last first."""
        return self._undone[::-1]

    @property
    def is_begun(self) -> bool:
        """Whether a turn has begun and not ended, also if its process died."""
        return self._begun is not None

    def begin(self, title: str, changes: Sequence[Change]) -> None:
        """A turn begins; ``changes`` are all that the workspace holds by now.

        The disk holds it after ``keep_begun``, which may come while the turn runs.
        """
        line = " ".join(title.split())
        if len(line) > MAX_TITLE_CHARS:
            line = f"{line[: MAX_TITLE_CHARS - 4]} ..."
        self._begun = _Begun(line, tuple(changes))

    def keep_begun(self) -> None:
        """The beginning of the turn is on the disk."""
        if self._begun is not None:
            self._write("begun", self._begun)

    def end(
        self, changes: Sequence[Change], read: Callable[[str], Entry | None] | None = None
    ) -> Step | None:
        """The turn is over, and these are all changes by now; its step, if it changed anything.

        ``read`` tells what the workspace holds, where it is not the one that the turn began in.
        """
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        made = _between(begun.changes, changes, read)
        step = None
        if made:
            step = Step(self._next, begun.title, tuple(made))
            self._next += 1
            self._done.append(step)
            self._write(f"{step.number}.step", step)
            for old in self._undone:
                self._remove(old)
            self._undone = []
            self._keep_to_limits()
            self._write_index()
        (self._directory / "begun").unlink(missing_ok=True)
        return step

    def note_writes(self, writes: Sequence[Write]) -> None:
        """These paths of the checkout are about to be written; each belongs to the newest step that
        changed it. One that no step has changed cannot be taken back."""
        waiting = {write.path: write for write in writes}
        for place in range(len(self._done) - 1, -1, -1):
            step = self._done[place]
            own = [waiting.pop(path) for path in step.paths if path in waiting]
            if own:
                known = {write.path: write for write in step.writes}
                for write in own:
                    if write.is_over or write.path not in known:  # the last of the user's bytes
                        known[write.path] = write
                step = msgspec.structs.replace(step, writes=tuple(known.values()))
                self._done[place] = step
                self._write(f"{step.number}.step", step)

    def rebase(self, changes: Sequence[Change]) -> None:
        """The work at these paths goes on from another version: that is one change now, of the newest
        step that has the path, and earlier ones have it no more."""
        paths = {change.path for change in changes}
        waiting = {change.path: change for change in changes}
        for place in range(len(self._done) - 1, -1, -1):
            step = self._done[place]
            own = [waiting.pop(path) for path in step.paths if path in waiting]
            kept = [change for change in step.changes if change.path not in paths]
            if len(kept) < len(step.changes):
                made = tuple(sorted([*kept, *own], key=lambda change: change.path))
                writes = tuple(write for write in step.writes if write.path not in paths)
                self._done[place] = msgspec.structs.replace(step, changes=made, writes=writes)
                self._write(f"{step.number}.step", self._done[place])

    def take_back(self) -> None:
        """The newest step was taken back."""
        self._undone.append(self._done.pop())
        self._write_index()

    def make_again(self) -> None:
        """The step taken back last was made again."""
        self._done.append(self._undone.pop())
        self._write_index()

    def _keep_to_limits(self) -> None:
        size_bytes = sum(step.size_bytes for step in self._done)
        while len(self._done) > 1 and (len(self._done) > MAX_STEPS or size_bytes > MAX_BYTES):
            size_bytes -= self._done[0].size_bytes
            self._remove(self._done.pop(0))

    def _remove(self, step: Step) -> None:
        (self._directory / f"{step.number}.step").unlink(missing_ok=True)

    def _write_index(self) -> None:
        done, undone = ([step.number for step in steps] for steps in (self._done, self._undone))
        self._write("index", _Index(tuple(done), tuple(undone)))

    def _write(self, name: str, content: msgspec.Struct) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        half_written = self._directory / f"{name}.new"
        half_written.write_bytes(_encoder.encode(content))
        os.replace(half_written, self._directory / name)


def place_of(state_dir: Path, thread_id: str) -> Path:
    """The directory of a conversation's steps, whether it is there or not."""
    return state_dir.absolute() / "threads" / f"{thread_id}.undo"


def remove(state_dir: Path, thread_id: str) -> None:
    """The conversation has no steps any more."""
    shutil.rmtree(place_of(state_dir, thread_id), ignore_errors=True)


def copy(state_dir: Path, thread_id: str, to_id: str) -> None:
    """The other conversation, which is new, has the same steps."""
    source = place_of(state_dir, thread_id)
    if source.is_dir():
        shutil.copytree(source, place_of(state_dir, to_id), dirs_exist_ok=True)


def _between(
    before: Sequence[Change], after: Sequence[Change], read: Callable[[str], Entry | None] | None
) -> list[Change]:
    """What changed from one state to another, both told as changes from the same origin."""
    old = {change.path: change for change in before}
    new = {change.path: change for change in after}
    made = []
    for path in sorted(old.keys() | new.keys()):
        was = old[path].after if path in old else new[path].before
        if path in old and path not in new:
            now = old[path].before if read is None else read(path)
        else:
            now = new[path].after
        if was != now:
            made.append(Change(path, was, now))
    return made


def _steps(directory: Path, numbers: Sequence[int]) -> list[Step]:
    """Those that can be read. What lies beyond a gap cannot be reached, and is left out."""
    found: list[Step] = []
    for number in reversed(numbers):
        step = _read(directory / f"{number}.step", Step)
        if step is None:
            break
        found.insert(0, step)
    return found


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    with suppress(FileNotFoundError, msgspec.MsgspecError):
        return msgspec.msgpack.decode(path.read_bytes(), type=kind)
    return None
