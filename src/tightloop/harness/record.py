"""A conversation on disk, so that it can go on after its process has ended in any way.

One file of JSON lines for each conversation, ``threads/ID.jsonl``, and beside it ``ID.changes``: what
the repository does not hold yet of the work. A line is ``items`` (the conversation from its item
number ``start`` on; what stood there before is gone), ``done`` (one item of the response that was
being made) or ``checkpoint`` (the changes are those of the first ``num_items`` items). Lines are written
whole, so a killed process leaves at most one damaged last line.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tightloop.agent.portable import portable
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    decode_item,
    encode_item,
)
from tightloop.sandbox.entries import Change
from tightloop.trace.log import RunLog, read_log

CUT_TEXT = '{"status": "interrupted", "note": "the agent ended here; it may have run in part"}'
"""The output of a call that was running when its process ended."""
MAX_TITLE_CHARS = 72
_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")
_CALLS = FunctionCall | CustomToolCall
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Change, ...])
_OUTPUTS = FunctionCallOutput | CustomToolCallOutput


class NoSuchThread(ValueError):
    """No conversation is kept under such an id; the text says what there is."""


@dataclass(frozen=True, slots=True)
class Past:
    """A conversation that can go on. ``changes`` are work that its repository did not hold when it
    was kept; ``num_missing`` counts the last calls whose effects they may lack."""

    id: str
    repository: Path
    model: str
    started: str
    items: tuple[Item, ...]
    changes: tuple[Change, ...]
    num_missing: int

    @property
    def title(self) -> str:
        """The beginning of what the user said first."""
        said = next((item for item in self.items if _is_by_user(item)), None)
        line = " ".join(said.text.split()) if isinstance(said, Message) else ""
        return line if len(line) <= MAX_TITLE_CHARS else f"{line[: MAX_TITLE_CHARS - 4]} ..."


class Record:
    """Keeps one conversation; a ``keeper.Keeper``. ``redact`` as for ``RunLog``."""

    def __init__(
        self, state_dir: Path, thread_id: str, redact: Callable[[str], str], **labels: Any
    ) -> None:
        self._changes = _directory(state_dir) / f"{thread_id}.changes"
        self._log = RunLog(
            _directory(state_dir) / f"{thread_id}.jsonl", redact=redact, thread=thread_id, **labels
        )
        self._kept: list[Item] = []
        self._num_done = 0

    def settled(self, items: Sequence[Item]) -> None:
        """See ``Keeper``."""
        same = 0
        for known, item in zip(self._kept, items, strict=False):
            if known is not item:
                break
            same += 1
        if same < len(self._kept) or same < len(items) or self._num_done:
            new = [encode_item(item) for item in items[same:]]
            self._log.write("items", start=same, items=new)
        self._kept, self._num_done = list(items), 0

    def done(self, item: Item) -> None:
        """See ``Keeper``."""
        self._log.write("done", item=encode_item(item))
        self._num_done += 1

    @property
    def num_items(self) -> int:
        """How many items are kept, for ``checkpoint``."""
        return len(self._kept) + self._num_done

    def write_changes(self, changes: Sequence[Change]) -> None:
        """Replace the kept changes; also from another thread."""
        temporary = self._changes.with_suffix(".new")
        temporary.write_bytes(_encoder.encode(changes))
        os.replace(temporary, self._changes)

    def checkpoint(self, num_items: int) -> None:
        """The kept changes are those of the time when so many items were kept."""
        self._log.write("checkpoint", num_items=num_items)

    def close(self) -> None:
        """Nothing more is kept."""
        self._log.close()


def load(state_dir: Path, thread_id: str) -> Past:
    """A conversation by its id, or the last one for ``last``.

    Calls without an output get one that says so. Raises NoSuchThread.
    """
    if thread_id == "last":
        newest = max(_paths(state_dir), key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None:
            raise NoSuchThread("no conversation is kept yet")
        return _read(newest)
    path = _directory(state_dir) / f"{thread_id}.jsonl"
    if not _ID.fullmatch(thread_id) or not path.is_file():
        raise NoSuchThread(f"no conversation {thread_id!r} is kept")
    return _read(path)


def list_past(state_dir: Path) -> list[Past]:
    """All that can be read, the newest first; what is damaged is left out."""
    found = []
    for path in sorted(_paths(state_dir), key=lambda path: -path.stat().st_mtime_ns):
        try:
            found.append(_read(path))
        except NoSuchThread:
            continue
    return found


def _directory(state_dir: Path) -> Path:
    return state_dir.absolute() / "threads"


def _paths(state_dir: Path) -> Iterator[Path]:
    return _directory(state_dir).glob("*.jsonl")


def _read(path: Path) -> Past:
    labels: dict[str, Any] = {}
    items: list[Item] = []
    done: list[Item] = []
    num_items = 0
    try:
        for line in read_log(path):
            if line["kind"] == "run.started":
                labels = labels or line
            elif line["kind"] == "items":
                items[line["start"] :] = [decode_item(item) for item in line["items"]]
                done = []
            elif line["kind"] == "done":
                done.append(decode_item(line["item"]))
            elif line["kind"] == "checkpoint":
                num_items = line["num_items"]
        items += done
        return Past(
            str(labels["thread"]),
            Path(labels["repository"]),
            str(labels.get("model", "")),
            str(labels.get("wall", "")),
            (*portable(items), *_missing_outputs(items)),
            _changes_beside(path),
            sum(isinstance(item, _CALLS) for item in items[num_items:]),
        )
    except (OSError, ValueError, KeyError, TypeError, ApiError) as error:
        raise NoSuchThread(f"{path} cannot be read: {error}") from error


def _changes_beside(path: Path) -> tuple[Change, ...]:
    try:
        return _decoder.decode(path.with_suffix(".changes").read_bytes())
    except FileNotFoundError:
        return ()


def _missing_outputs(items: Sequence[Item]) -> list[Item]:
    answered = {item.call_id for item in items if isinstance(item, _OUTPUTS)}
    made: list[Item] = []
    for item in items:
        if isinstance(item, FunctionCall) and item.call_id not in answered:
            made.append(FunctionCallOutput(item.call_id, CUT_TEXT))
        elif isinstance(item, CustomToolCall) and item.call_id not in answered:
            made.append(CustomToolCallOutput(item.call_id, CUT_TEXT))
    return made


def _is_by_user(item: Item) -> bool:
    return isinstance(item, Message) and item.role == "user"
