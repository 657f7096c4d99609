"""How many more tokens a patch that has just failed would still take: what ending it early saves.

Nobody announces the length of a patch, but its grammar says much. After the end marker nothing is
left. Within a chunk the rest of it is; and a chunk is known to be closed only because something
else began, so then at least that one is left. How large it will be is taken from the chunks of this
patch and of the patches before it in the conversation, next to a few imagined ones, so that the
first patch has an answer too. That more chunks follow after the next is taken to be as likely
after the tenth as after the first (a geometric law): the mean number of chunks of a patch is then
also the mean number that is left when another one has begun.
"""

from collections.abc import Sequence

from tightloop.agent.patch.operations import AddFile, Chunk, Operation, UpdateFile
from tightloop.agent.patch.parser import State

CHARS_PER_TOKEN = 3.5
"""Of source text in a patch; between 3 and 4 with the vocabularies in use. An estimate."""

PRIOR_CHUNK_CHARS = 350.0
"""A chunk before any was seen: ten lines. An estimate, outweighed by four real chunks."""

PRIOR_FILE_CHARS = 1500.0
"""An added file before any was seen. An estimate."""

PRIOR_NUM_CHUNKS = 2.0
"""Chunks of a patch before any was seen; holon #2741 counts most patches below 1 kB. An estimate."""

PRIOR_WEIGHT = 4
"""How many real ones an estimate counts for."""


class PatchSizes:
    """The sizes of the patches of one conversation. Sizes are characters of patch text."""

    def __init__(self) -> None:
        self._num_patches = 0
        self._chunks: list[int] = []
        self._files: list[int] = []

    def learn(self, operations: Sequence[Operation]) -> None:
        """A patch came to its end."""
        self._num_patches += 1
        self._chunks += _chunk_chars(operations)
        self._files += [_file_chars(op) for op in operations if isinstance(op, AddFile)]

    def expected_tokens(
        self, state: State, num_open_chars: int, closed: Sequence[Chunk] = ()
    ) -> float:
        """Tokens still to come of a patch in ``state``, of whose open part so much is here.

        ``closed`` are the chunks of this patch so far. 0.0 once the end marker was read.
        """
        if state is State.ENDED:
            return 0.0
        chunk = _mean([*self._chunks, *map(_size, closed)], PRIOR_CHUNK_CHARS)
        num_parts = len(self._chunks) + len(self._files)
        mean_parts = (num_parts + PRIOR_NUM_CHUNKS * PRIOR_WEIGHT) / (
            self._num_patches + PRIOR_WEIGHT
        )
        chars = max(mean_parts - 1.0, 0.0) * chunk
        if state is State.UPDATING:
            chars += max(chunk - num_open_chars, 0.0)
        elif state is State.ADDING:
            chars += max(_mean(self._files, PRIOR_FILE_CHARS) - num_open_chars, 0.0)
        return chars / CHARS_PER_TOKEN


def _mean(sizes: Sequence[int], prior: float) -> float:
    return (sum(sizes) + prior * PRIOR_WEIGHT) / (len(sizes) + PRIOR_WEIGHT)


def _size(chunk: Chunk) -> int:
    return sum(len(line.text) + 2 for line in chunk.lines)


def _chunk_chars(operations: Sequence[Operation]) -> list[int]:
    updates = [op for op in operations if isinstance(op, UpdateFile)]
    return [_size(chunk) for update in updates for chunk in update.chunks]


def _file_chars(operation: AddFile) -> int:
    return sum(len(line) + 2 for line in operation.lines)
