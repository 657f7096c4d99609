"""What both versions of HTTP share: an answer on its way from a connection to one reader."""

import asyncio

import pytest

from tightloop.engine.remote.answer import MAX_HELD_BYTES, Answer
from tightloop.engine.remote.upstream import UpstreamError, read_whole


class Wired(Answer):
    """An answer whose connection is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.num_given_up = 0
        self.pauses: list[bool] = []

    def give_up(self) -> None:
        self.num_given_up += 1

    def pause_reading(self, is_paused: bool) -> None:
        self.pauses.append(is_paused)


def begun() -> Wired:
    answer = Wired()
    answer.begin(200, {"content-type": "x"})
    return answer


async def test_the_head_is_waited_for_and_can_fail() -> None:
    answer = Wired()
    waiting = asyncio.create_task(answer.head())
    await asyncio.sleep(0)
    assert not answer.has_begun
    answer.begin(204, {})
    await waiting
    lost = Wired()
    waiting = asyncio.create_task(lost.head())
    await asyncio.sleep(0)
    lost.end(UpstreamError("gone"))
    with pytest.raises(UpstreamError, match="gone"):
        await waiting


async def test_pieces_are_poured_within_the_call_that_brings_them() -> None:
    """First what had come before, then each piece by itself, until the reader has enough."""
    answer, taken = begun(), list[bytes]()

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return piece == b"enough"

    answer.take(b"be")
    answer.take(b"fore")
    pouring = asyncio.create_task(answer.pour(take))
    await asyncio.sleep(0)
    for piece in (b"a", b"enough", b"rest"):
        answer.take(piece)
    assert taken == [b"before", b"a", b"enough"]
    await pouring
    answer.end(None)
    assert await read_whole(answer, 99) == b"rest"


async def test_a_fault_ends_it_after_what_came() -> None:
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return False

    answer = begun()
    answer.take(b"half")
    answer.end(UpstreamError("cut"))
    with pytest.raises(UpstreamError, match="cut"):
        await answer.pour(take)
    assert taken == [b"half"]
    with pytest.raises(UpstreamError, match="cut"):
        await read_whole(answer, 99)


async def test_what_nobody_reads_pauses_the_connection() -> None:
    """And whoever reads lets it go on; so does the end."""
    answer = begun()
    answer.take(b"x" * MAX_HELD_BYTES)
    assert answer.pauses == []
    answer.take(b"y")
    answer.take(b"z")
    assert answer.pauses == [True]
    assert len(await anext(answer.pieces())) == MAX_HELD_BYTES + 2
    assert answer.pauses == [True, False]


async def test_closing_gives_it_up_once_and_not_after_its_end() -> None:
    answer = begun()
    answer.close()
    answer.close()
    assert answer.num_given_up == 1
    ended = begun()
    ended.end(None)
    ended.close()
    assert ended.num_given_up == 0
