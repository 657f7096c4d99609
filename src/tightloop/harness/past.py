"""Conversations of before, read from what ``record`` has written."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tightloop.agent.portable import portable
from tightloop.harness.backend import UsageError
from tightloop.harness.record import (
    Call,
    Inherited,
    Kept,
    Output,
    kept_beside,
    threads_directory,
)
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    decode_item,
)
from tightloop.sandbox.entries import Change
from tightloop.trace.log import read_log

CUT_TEXT = '{"status": "interrupted", "note": "the agent ended here; it may have run in part"}'
"""The output of a call that was running when its process ended."""
MAX_TITLE_CHARS = 72
_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


class NoSuchThread(UsageError):
    """No conversation is kept under such an id; the text says what there is."""


@dataclass(frozen=True, slots=True)
class Past:
    """A conversation that can go on.

    ``changes`` are work that its repository did not hold when it was kept. They lack the effects of
    the calls ``missing``, in their order; of those that are also in ``unsure`` they may hold some.
    ``masked`` are calls whose arguments held a secret. ``choice`` is how its backend was asked for:
    ``model``, ``server``, ``transport``, ``api_key_env``, as far as they were given.
    """

    id: str
    repository: Path
    model: str
    started: str
    title: str
    num_turns: int
    items: tuple[Item, ...]
    changes: tuple[Change, ...]
    missing: tuple[str, ...] = ()
    unsure: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    choice: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def num_missing(self) -> int:
        """How many calls the changes may lack the effects of."""
        return len(self.missing)

    @property
    def inherited(self) -> Inherited:
        """What a fork of it begins with."""
        called = (item.call_id for item in self.items if isinstance(item, Call))
        covered = tuple(one for one in called if one not in self.missing)
        return Inherited(self.changes, covered, tuple(self.unsure), tuple(self.masked))


def load(state_dir: Path, thread_id: str, repository: Path | None = None) -> Past:
    """A conversation by its id or the beginning of it, or the last one for ``last``.

    ``repository`` narrows ``last`` to conversations about it, or about a directory that it is in.
    Calls without an output get one that says so. Raises NoSuchThread.
    """
    if thread_id == "last":
        return read(_newest(state_dir, repository))
    return read(find(state_dir, thread_id))


def find(state_dir: Path, thread_id: str) -> Path:
    """The file of the conversation whose id is, or alone begins with, this. Raises NoSuchThread."""
    if _ID.fullmatch(thread_id):
        path = threads_directory(state_dir) / f"{thread_id}.jsonl"
        if path.is_file():
            return path
        found = [path for path in record_paths(state_dir) if path.stem.startswith(thread_id)]
        if len(found) == 1:
            return found[0]
        if found:
            raise NoSuchThread(
                f"{len(found)} conversations begin with {thread_id!r}: give more of the id"
            )
    raise NoSuchThread(
        f"no conversation {thread_id!r} is kept; 'tightloop threads list --all' shows those that are"
    )


def record_paths(state_dir: Path) -> list[Path]:
    """The files of all conversations, the one written last first."""
    dated = []
    for path in threads_directory(state_dir).glob("*.jsonl"):
        try:
            dated.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # removed meanwhile
            continue
    return [path for _, path in sorted(dated, reverse=True)]


def read(path: Path) -> Past:
    """The conversation in this file. Raises NoSuchThread when it cannot be read."""
    try:
        kept = kept_beside(path)
        reader = _Reader(kept)
        for line in read_log(path):
            reader.take(line)
        labels, items = reader.latest, reader.items
        called = dict.fromkeys(item.call_id for item in items if isinstance(item, Call))
        return Past(
            id=str(reader.first["thread"]),
            repository=Path(reader.first["repository"]),
            model=str(labels.get("model", "")),
            started=str(reader.first.get("wall", "")),
            title=reader.title,
            num_turns=reader.num_turns,
            items=tuple(portable(_paired(items))),
            changes=kept.changes,
            missing=tuple(one for one in called if one not in reader.covered),
            unsure=frozenset(kept.unsure),
            masked=frozenset(reader.masked),
            choice=dict(labels.get("choice") or {}),
        )
    except (OSError, ValueError, KeyError, TypeError, ApiError) as error:
        raise NoSuchThread(f"{path} cannot be read: {error}") from error


class _Reader:
    """Takes the lines of a record in order."""

    def __init__(self, kept: Kept) -> None:
        self.first: dict[str, Any] = {}
        self.latest: dict[str, Any] = {}
        self.title = ""
        self.num_turns = 0
        self.masked: set[str] = set()
        self.covered = set(kept.covered)
        self._serial = kept.serial
        self._items: list[Item] = []
        self._done: list[Item] = []

    @property
    def items(self) -> list[Item]:
        """The conversation so far."""
        return self._items + self._done

    def take(self, line: Mapping[str, Any]) -> None:
        """The next line; of kinds that are not known nothing is taken."""
        kind = line["kind"]
        if kind == "run.started":
            self.latest = dict(line)
            self.first = self.first or self.latest
        elif kind == "turn":
            self.num_turns += 1
        elif kind == "items":
            self._items[line["start"] :] = [decode_item(item) for item in line["items"]]
            self._done = []
            self.title = self.title or title_of(self._items)
        elif kind == "done":
            self._done.append(decode_item(line["item"]))
        elif kind == "masked":
            self.masked.add(line["call_id"])
        elif kind == "checkpoint" and line["serial"] == self._serial:
            self.covered.update(line["covers"])


def _newest(state_dir: Path, repository: Path | None) -> Path:
    paths = record_paths(state_dir)
    if not paths:
        raise NoSuchThread("no conversation is kept yet")
    if repository is None:
        return paths[0]
    for path in paths:
        if is_about(path, repository):
            return path
    raise NoSuchThread(
        f"no conversation about {os.path.realpath(repository)!r} is kept; the newest of all is "
        f"{paths[0].stem}, about {str(_repository(paths[0]))!r}: name it by its id"
    )


def is_about(path: Path, place: Path) -> bool:
    """Whether the conversation in this file is about that directory or one that it is in."""
    about = _repository(path)
    return about is not None and Path(os.path.realpath(place)).is_relative_to(about)


def _repository(path: Path) -> Path | None:
    """What the first line says; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return Path(msgspec.json.decode(file.readline())["repository"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def title_of(items: Sequence[Item]) -> str:
    """The beginning of what the user said first."""
    said = next((one for one in items if isinstance(one, Message) and one.role == "user"), None)
    line = " ".join(said.text.split()) if said is not None else ""
    return line if len(line) <= MAX_TITLE_CHARS else f"{line[: MAX_TITLE_CHARS - 4]} ..."


def _paired(items: Sequence[Item]) -> list[Item]:
    """Every call with an output, and no output without its call: servers refuse both."""
    called: set[str] = set()
    kept: list[Item] = []
    for item in items:
        if isinstance(item, Call):
            called.add(item.call_id)
        if not isinstance(item, Output) or item.call_id in called:
            kept.append(item)
    answered = {item.call_id for item in items if isinstance(item, Output)}
    for item in items:
        if not isinstance(item, Call) or item.call_id in answered:
            continue
        if isinstance(item, FunctionCall):
            kept.append(FunctionCallOutput(item.call_id, CUT_TEXT))
        else:
            kept.append(CustomToolCallOutput(item.call_id, CUT_TEXT))
    return kept
