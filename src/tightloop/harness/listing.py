"""What conversations there are: as much of each record as a list shows, which is read quickly."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tightloop.harness.past import is_about, record_paths, title_of
from tightloop.harness.record import kept_beside
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import decode_item
from tightloop.sandbox.locks import is_free


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation in a line. ``used_s`` is when it was written to last, in seconds since 1970.

    ``changed`` are the files of work that its repository did not hold then. ``is_open``: a process
    is at it.
    """

    id: str
    repository: Path
    model: str
    started: str
    used_s: int
    title: str
    num_turns: int
    changed: tuple[str, ...]
    is_open: bool


class _Line(msgspec.Struct):
    kind: str
    thread: str = ""
    repository: str = ""
    model: str = ""
    wall: str = ""
    items: msgspec.Raw = msgspec.Raw(b"[]")


_line = msgspec.json.Decoder(_Line)


def list_past(
    state_dir: Path, repository: Path | None = None, limit: int | None = None
) -> list[Summary]:
    """Those that can be read, the newest first; what is damaged is left out.

    ``repository`` narrows it to conversations about it, or about a directory that it is in.
    """
    found: list[Summary] = []
    for path in record_paths(state_dir):
        if limit is not None and len(found) >= limit:
            break
        if repository is not None and not is_about(path, repository):
            continue
        try:
            found.append(_summary(path))
        except (OSError, ValueError, ApiError):
            continue
    return found


def _summary(path: Path) -> Summary:
    first, model, title, num_turns = None, "", "", 0
    for line in _lines(path):
        if line.kind == "run.started":
            first, model = first or line, line.model
        elif line.kind == "turn":
            num_turns += 1
        elif line.kind == "items" and not title:
            title = title_of([decode_item(item) for item in _objects(line.items)])
    if first is None:
        raise ValueError(f"{path} has no beginning")
    return Summary(
        first.thread,
        Path(first.repository),
        model,
        first.wall,
        int(path.stat().st_mtime),
        title,
        num_turns,
        tuple(change.path for change in kept_beside(path).changes),
        not is_free(path.with_suffix(".lock")),
    )


def _objects(items: msgspec.Raw) -> list[dict[str, Any]]:
    return msgspec.json.decode(items, type=list[dict[str, Any]])


def _lines(path: Path) -> Iterator[_Line]:
    """All but a last one that is cut."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _line.decode(line)
