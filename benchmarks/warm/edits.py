"""Seeded random edits of a project: what kind, where, and how they are written to the disk."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.warm.body_edits import BODIES, KINDS, Edited, same_size
from benchmarks.warm.file_edits import FILES, FileEdit, Subject, Writes
from benchmarks.warm.module_edits import MODULES, SIGNATURES
from benchmarks.warm.sources import Source, is_plain_text

SAME_SIZE = "body: same size and times"
_ATTEMPTS = 200
_Maker = Callable[[Subject, random.Random], FileEdit]


@dataclass(frozen=True, slots=True)
class Edit:
    """What is in which file afterwards; None: the file is gone.

    ``keeps_times`` writes in place and puts the modification time back. Otherwise
    ``is_replaced`` says whether a new file takes the place of the old one.
    """

    kind: str
    about: str
    writes: Writes
    is_replaced: bool = False
    keeps_times: bool = False

    def apply(self, root: Path) -> Writes:
        """Write it; returns what undoes it."""
        before: dict[str, bytes | None] = {}
        for name, content in self.writes.items():
            path = root / name
            before[name] = path.read_bytes() if path.exists() else None
            write(path, content, is_replaced=self.is_replaced, keeps_times=self.keeps_times)
        return before


def write(
    path: Path, content: bytes | None, *, is_replaced: bool = False, keeps_times: bool = False
) -> None:
    """Leave the content in the file, or no file; a directory that is empty then goes too."""
    if content is None:
        path.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_replaced:
        draft = path.with_name(f"{path.name}.tmp~")
        draft.write_bytes(content)
        draft.replace(path)
        return
    status = path.stat() if keeps_times and path.exists() else None
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(content)
        file.truncate()
    if status is not None:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _in_some_module(edit: Callable[[Source, random.Random], Edited]) -> _Maker:
    def make(subject: Subject, rng: random.Random) -> FileEdit:
        path = subject.pick_module(rng)
        source = subject.source(path)
        edited = edit(source, rng) if source is not None else None
        return ({path: edited[0]}, f"{path} {edited[1]}") if edited is not None else None

    return make


def kinds() -> dict[str, tuple[_Maker, float]]:
    """Every kind of edit with how often it is chosen beside the others."""
    found: dict[str, tuple[_Maker, float]] = dict(FILES)
    for group, weight in ((BODIES, 4.0), (KINDS, 1.5), (SIGNATURES, 1.5), (MODULES, 1.2)):
        found |= {kind: (_in_some_module(edit), weight) for kind, edit in group.items()}
    found[SAME_SIZE] = (_in_some_module(same_size), 4.0)
    return found


def random_edit(subject: Subject, rng: random.Random) -> Edit:
    """The next edit of a project as it is now; the same for the same state of both.

    Raises RuntimeError when nothing can be edited.
    """
    every = kinds()
    names = list(every)
    weights = [weight for _, weight in every.values()]
    for _ in range(_ATTEMPTS):
        kind = rng.choices(names, weights)[0]
        made = every[kind][0](subject, rng)
        if made is None:
            continue
        writes, about = made
        if not _is_meant(kind, writes) or all(subject.read(p) == t for p, t in writes.items()):
            continue
        is_replaced = rng.random() < 0.5 and kind != SAME_SIZE
        return Edit(kind, about, writes, is_replaced, keeps_times=kind == SAME_SIZE)
    raise RuntimeError(f"no edit of {subject.project.name} found in {_ATTEMPTS} attempts")


def _is_meant(kind: str, writes: Writes) -> bool:
    """Whether all modules can be parsed, unless that is what the edit is about."""
    texts = [text for path, text in writes.items() if path.endswith(".py") and text is not None]
    return kind in ("module: syntax error", "test: module") or all(map(is_plain_text, texts))
