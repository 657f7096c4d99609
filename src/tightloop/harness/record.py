"""A conversation on disk, so that it can go on after its process has ended in any way.

One file of JSON lines for each conversation, ``threads/ID.jsonl``, and beside it ``ID.changes``: what
the repository does not hold yet of the work. A line is ``turn`` (one began), ``items`` (the
conversation from its item number ``start`` on; what stood there before is gone), ``done`` (one item
of the response that was being made), ``masked`` (a call whose arguments are not here as they were)
or ``checkpoint`` (the changes of this ``serial`` hold the effects of these calls, too). Lines are
written whole, so a killed process leaves at most one damaged last line, which the next one takes
away. One process at a time writes; see ``holding``. ``past`` reads all this.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    encode_item,
)
from tightloop.sandbox.entries import Change
from tightloop.trace.clock import wall_label
from tightloop.trace.log import RunLog

Call = FunctionCall | CustomToolCall
Output = FunctionCallOutput | CustomToolCallOutput


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """The file beside a record: the changes, and the calls whose effects they hold.

    ``unsure`` are calls that were running while the changes were read.
    """

    serial: int
    covered: tuple[str, ...]
    unsure: tuple[str, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a conversation begins with that was forked from another: see ``Kept``; ``masked`` calls."""

    changes: tuple[Change, ...]
    covered: tuple[str, ...]
    unsure: tuple[str, ...]
    masked: tuple[str, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


def threads_directory(state_dir: Path) -> Path:
    """Where conversations are kept."""
    return state_dir.absolute() / "threads"


def kept_beside(path: Path) -> Kept:
    """The changes beside a record; none where there is no such file. Raises ValueError."""
    try:
        return _decoder.decode(path.with_suffix(".changes").read_bytes())
    except FileNotFoundError:
        return Kept(0, (), (), ())


class Record:
    """Keeps one conversation; a ``keeper.Keeper``. ``redact`` as for ``RunLog``.

    Nothing is written before something was said: a conversation that nobody began is not kept.
    """

    def __init__(
        self,
        state_dir: Path,
        thread_id: str,
        redact: Callable[[str], str],
        *,
        inherited: Inherited | None = None,
        **labels: Any,
    ) -> None:
        self._path = threads_directory(state_dir) / f"{thread_id}.jsonl"
        self._redact = redact
        self._inherited = inherited
        self._labels = {"thread": thread_id, **labels}
        self._opened: RunLog | None = None
        self._kept: list[Item] = []
        self._num_done = 0
        self._calls: dict[str, None] = {}
        self._answered: dict[str, None] = {}
        self._covered: set[str] = set()
        self._serial = kept_beside(self._path).serial

    def turn(self) -> None:
        """A turn begins."""
        self._log.write("turn", wall=wall_label())

    def settled(self, items: Sequence[Item]) -> None:
        """See ``Keeper``."""
        same = 0
        for known, item in zip(self._kept, items, strict=False):
            if known is not item:
                break
            same += 1
        for item in items[same:]:
            self._note(item)
        if same < len(self._kept) or same < len(items) or self._num_done:
            new = [encode_item(item) for item in items[same:]]
            self._log.write("items", start=same, items=new)
        self._kept, self._num_done = list(items), 0

    def done(self, item: Item) -> None:
        """See ``Keeper``."""
        self._note(item)
        self._log.write("done", item=encode_item(item))
        self._num_done += 1

    def _note(self, item: Item) -> None:
        if isinstance(item, Output):
            self._answered[item.call_id] = None
        elif isinstance(item, Call) and item.call_id not in self._calls:
            self._calls[item.call_id] = None
            arguments = item.input if isinstance(item, CustomToolCall) else item.arguments
            if self._redact(arguments) != arguments:
                self._log.write("masked", call_id=item.call_id)

    @property
    def answered(self) -> Collection[str]:
        """The calls that have ended, as of now."""
        return tuple(self._answered)

    @property
    def running(self) -> Collection[str]:
        """The calls that have begun, and not ended as of now."""
        return tuple(one for one in self._calls if one not in self._answered)

    @property
    def is_there(self) -> bool:
        """Whether anything is kept, by this process or one before it."""
        return self._opened is not None or self._path.exists()

    def write_changes(
        self,
        changes: Sequence[Change],
        covered: Collection[str] = (),
        unsure: Collection[str] = (),
    ) -> None:
        """Replace the kept changes; also from another thread.

        They hold the effects of the calls ``covered``, and perhaps of those ``unsure``.
        """
        kept = Kept(self._serial + 1, tuple(covered), tuple(unsure), tuple(changes))
        path = self._path.with_suffix(".changes")
        temporary = path.with_suffix(".new")
        temporary.write_bytes(_encoder.encode(kept))
        os.replace(temporary, path)
        self._serial += 1
        self._covered = set(covered)

    def checkpoint(self, covered: Collection[str]) -> None:
        """The kept changes hold the effects of these calls, too."""
        new = [call_id for call_id in covered if call_id not in self._covered]
        if new:
            self._log.write("checkpoint", serial=self._serial, covers=new)
            self._covered.update(new)

    def close(self) -> None:
        """Nothing more is kept."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _log(self) -> RunLog:
        if self._opened is None:
            inherited = None if self._path.exists() else self._inherited
            _mend(self._path)
            if inherited is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self.write_changes(inherited.changes, inherited.covered, inherited.unsure)
            self._opened = RunLog(self._path, redact=self._redact, **self._labels)
            for call_id in () if inherited is None else inherited.masked:
                self._opened.write("masked", call_id=call_id)
        return self._opened


def _mend(path: Path) -> None:
    """What a killed process left of a line goes: more would be written behind it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)
