"""What a patch says: file operations and the chunks of an update. Pure values.

Two dialects end here: the full envelope (``parser``) and the body of one file (``hosted``).
"""

from dataclasses import dataclass

CONTEXT, REMOVE, ADD = " ", "-", "+"
"""The marks a chunk line can start with."""


@dataclass(frozen=True, slots=True)
class ChunkLine:
    """One line of a chunk without its mark."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One contiguous change of a file.

    ``anchors`` are the texts of its ``@@`` lines, to be found in this order. ``num_soft_tail``
    counts the completely empty lines at the end, which may only separate it from the next chunk.
    ``number`` counts from 1 within the file; ``patch_line`` is where it starts in the patch.
    """

    lines: tuple[ChunkLine, ...]
    anchors: tuple[str, ...] = ()
    is_end_of_file: bool = False
    num_soft_tail: int = 0
    number: int = 1
    patch_line: int = 0

    @property
    def old(self) -> list[str]:
        """The lines that must be in the file."""
        return [line.text for line in self.lines if line.mark != ADD]

    @property
    def new(self) -> list[str]:
        """The lines that are there afterwards, context as the patch spells it."""
        return [line.text for line in self.lines if line.mark != REMOVE]


@dataclass(frozen=True, slots=True)
class AddFile:
    """Create ``path``; every line ends in a newline."""

    path: str
    lines: tuple[str, ...]
    patch_line: int = 0


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """Remove the file ``path``."""

    path: str
    patch_line: int = 0


@dataclass(frozen=True, slots=True)
class UpdateFile:
    """Change ``path`` chunk by chunk and, with ``move_to``, rename it."""

    path: str
    chunks: tuple[Chunk, ...]
    move_to: str | None = None
    patch_line: int = 0


Operation = AddFile | DeleteFile | UpdateFile


@dataclass(frozen=True, slots=True)
class Patch:
    """A parsed patch. ``environment_id`` names an executor; None when the patch does not."""

    operations: tuple[Operation, ...]
    environment_id: str | None = None


@dataclass(frozen=True, slots=True)
class FileSeen:
    """The header line of a file was read: ``kind`` is ``add``, ``delete`` or ``update``."""

    kind: str
    path: str
    patch_line: int


@dataclass(frozen=True, slots=True)
class ChunkGrew:
    """A line of a chunk was read; ``number`` is the chunk's, ``patch_line`` where it starts."""

    line: ChunkLine
    anchors: tuple[str, ...]
    number: int
    patch_line: int


@dataclass(frozen=True, slots=True)
class ChunkClosed:
    """A chunk of ``path``, the file last seen, is complete."""

    chunk: Chunk
    path: str = ""


@dataclass(frozen=True, slots=True)
class FileClosed:
    """Everything about a file has been read."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class PatchEnded:
    """The end marker was read; nothing but white space may follow."""


PatchEvent = FileSeen | ChunkGrew | ChunkClosed | FileClosed | PatchEnded
