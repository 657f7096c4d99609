"""What is expected of a patch that has failed: nothing at its end, else by the grammar and by
what patches of this conversation were like."""

from tightloop.agent.patch.operations import AddFile, Chunk, ChunkLine, UpdateFile
from tightloop.agent.patch.parser import State
from tightloop.agent.patch.remaining import (
    CHARS_PER_TOKEN,
    PRIOR_CHUNK_CHARS,
    PRIOR_FILE_CHARS,
    PRIOR_NUM_CHUNKS,
    PatchSizes,
)


def _chunk(num_chars: int) -> Chunk:
    return Chunk((ChunkLine("+", "x" * (num_chars - 2)),))


def _update(*sizes: int) -> UpdateFile:
    return UpdateFile("f", tuple(map(_chunk, sizes)))


def test_nothing_follows_the_end_marker() -> None:
    assert PatchSizes().expected_tokens(State.ENDED, 0) == 0.0


def test_before_any_was_seen() -> None:
    """Another chunk has begun: as many chunks are left as a whole patch is thought to have."""
    expected = PRIOR_NUM_CHUNKS * PRIOR_CHUNK_CHARS / CHARS_PER_TOKEN
    assert expected == PatchSizes().expected_tokens(State.UPDATING, 0)
    between = (PRIOR_NUM_CHUNKS - 1) * PRIOR_CHUNK_CHARS / CHARS_PER_TOKEN
    assert between == PatchSizes().expected_tokens(State.BETWEEN, 0)
    adding = between + PRIOR_FILE_CHARS / CHARS_PER_TOKEN
    assert adding == PatchSizes().expected_tokens(State.ADDING, 0)


def test_what_is_here_of_the_open_part_is_not_expected_again() -> None:
    sizes = PatchSizes()
    whole, part = (sizes.expected_tokens(State.UPDATING, chars) for chars in (0, 35))
    assert whole - part == 35 / CHARS_PER_TOKEN
    beyond = sizes.expected_tokens(State.UPDATING, 10_000)
    assert beyond == sizes.expected_tokens(State.BETWEEN, 0)


def test_small_patches_of_one_chunk_make_little_be_expected() -> None:
    """With such a model the default limit of 100 tokens is no longer reached."""
    sizes = PatchSizes()
    assert sizes.expected_tokens(State.UPDATING, 0) >= 100
    for _ in range(10):
        sizes.learn([_update(60)])
    assert sizes.expected_tokens(State.UPDATING, 0) < 100


def test_large_chunks_of_this_very_patch_count() -> None:
    sizes = PatchSizes()
    small = sizes.expected_tokens(State.UPDATING, 0, [_chunk(20)])
    large = sizes.expected_tokens(State.UPDATING, 0, [_chunk(2000)])
    assert small < sizes.expected_tokens(State.UPDATING, 0) < large


def test_added_files_are_learnt_apart() -> None:
    sizes = PatchSizes()
    before = sizes.expected_tokens(State.ADDING, 0)
    for _ in range(4):
        sizes.learn([AddFile("f", ("x" * 4998,))])
    assert sizes.expected_tokens(State.ADDING, 0) > before
    assert sizes.expected_tokens(State.UPDATING, 0) < 300
