"""One connection over HTTP/1.1, against bytes that a host may send, cut anywhere."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.remote import answer
from tightloop.engine.remote.answer import MAX_HELD_BYTES
from tightloop.engine.remote.http1_line import (
    MAX_HEAD_BYTES,
    PART_BYTES,
    Http1Reply,
    Line,
    UnansweredError,
)
from tightloop.engine.remote.upstream import Take, UpstreamError, read_whole

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport to nobody: what was written, and whether it reads or was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading_paused = False
        self.is_aborted = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False


class End:
    """A line on such a wire, and how often it said that it is free."""

    def __init__(self, *, silence_s: float = 600.0, keep_alive_s: float = 600.0) -> None:
        self.num_free = 0
        self.num_lost = 0
        self.line = Line(self._free, self._lost, silence_s=silence_s, keep_alive_s=keep_alive_s)
        self.wire = Wire()
        self.line.connection_made(self.wire)

    def _free(self, _line: Line) -> None:
        self.num_free += 1

    def _lost(self, _line: Line) -> None:
        self.num_lost += 1

    async def asked(self, *said: bytes, body: bytes = b"{}") -> Http1Reply:
        """The reply, after the host said ``said``, each in a read of its own."""
        asking = asyncio.create_task(self.line.ask(HEAD, body))
        await asyncio.sleep(0)
        for part in said:
            self.line.data_received(part)
        return await asking

    def cut(self, error: Exception | None = None) -> None:
        self.line.eof_received()
        self.line.connection_lost(error)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def into(pieces: list[bytes], *, is_enough: bool = False) -> Take:
    """A reader that keeps what it is given."""

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return is_enough

    return take


async def collected(reply: Http1Reply) -> bytes:
    return await read_whole(reply, 1 << 30)


async def test_a_packet_is_handed_over_in_the_call_that_brought_it() -> None:
    """All that one read brought is one piece, and no turn of the event loop lies between."""
    end = End()
    reply = await end.asked(CHUNKED)
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return piece.endswith(b"enough")

    pouring = asyncio.create_task(reply.pour(take))
    await asyncio.sleep(0)
    end.line.data_received(chunk(b"one ") + chunk(b"two"))
    assert pieces == [b"one two"]
    end.line.data_received(chunk(b"enough"))
    end.line.data_received(chunk(b"more"))
    assert pieces == [b"one two", b"enough"]
    await pouring
    end.line.data_received(b"0\r\n\r\n")
    await reply.finish()
    assert (end.num_free, end.wire.is_aborted) == (1, False)


async def test_what_came_before_somebody_reads_is_kept_for_them() -> None:
    end = End()
    reply = await end.asked(CHUNKED + chunk(b"a"), chunk(b"b") + b"0\r\n\r\n")
    pieces: list[bytes] = []
    await reply.pour(into(pieces))
    assert pieces == [b"ab"]
    assert end.num_free == 1


async def test_nothing_is_handed_over_after_a_cancel() -> None:
    end = End()
    reply = await end.asked(CHUNKED)
    pieces: list[bytes] = []
    pouring = asyncio.create_task(reply.pour(into(pieces)))
    await asyncio.sleep(0)
    pouring.cancel()
    end.line.data_received(chunk(b"late"))
    with pytest.raises(asyncio.CancelledError):
        await pouring
    reply.close()
    assert pieces == []
    assert end.wire.is_aborted


async def test_what_a_reader_raises_comes_out_where_it_waits() -> None:
    end = End()
    reply = await end.asked(CHUNKED)

    def take(_piece: bytes) -> bool:
        raise ValueError("cannot be read")

    pouring = asyncio.create_task(reply.pour(take))
    await asyncio.sleep(0)
    end.line.data_received(chunk(b"x"))
    end.line.data_received(chunk(b"y"))
    with pytest.raises(ValueError, match="cannot be read"):
        await pouring
    reply.close()
    reply.close()
    assert end.wire.is_aborted


BODIES = [
    (OK + b"Content-Length: 5\r\n\r\nhello", True),
    (CHUNKED + chunk(b"he") + chunk(b"llo") + b"0\r\nX-Trailer: 1\r\n\r\n", True),
    (CHUNKED + b"5;name=value\r\nhello\r\n0\r\n\r\n", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nLink: x\r\n\r\n" + CHUNKED + chunk(b"hello") + b"0\r\n\r\n", True),
    (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
    (OK + b"Content-Length: 5\r\n\r\nhello" + EMPTY, False),
    (CHUNKED + chunk(b"hello") + b"0\r\n\r\n" + b"?", False),
]  # fmt: skip


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BODIES), st.lists(st.integers(0, 500), max_size=12))
def test_any_cut_gives_the_same_answer(case: tuple[bytes, bool], cuts: list[int]) -> None:
    """And the connection is kept only where its next answer would begin at a known place."""
    data, is_kept = case

    async def run() -> None:
        end = End()
        asking = asyncio.create_task(end.line.ask(HEAD, b"{}"))
        await asyncio.sleep(0)
        for piece in pieces_of(data, cuts):
            if not end.wire.is_aborted:
                end.line.data_received(piece)
        reply = await asking
        assert reply.status == 200
        assert await collected(reply) == b"hello"
        assert end.wire.is_aborted == (not is_kept)
        end.cut()

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"", b"HTTP/1.1 ", OK, CHUNKED, CHUNKED + b"5\r\nhel", EMPTY]),
    st.lists(st.binary(max_size=30), max_size=4),
)
def test_whatever_a_host_sends(start: bytes, rest: list[bytes]) -> None:
    """There is an answer or an ``UpstreamError``, nothing else, and one end of the line."""

    async def run() -> None:
        end = End()
        asking = asyncio.create_task(end.line.ask(HEAD, b"{}"))
        await asyncio.sleep(0)
        for piece in (start, *rest):
            if piece and not end.wire.is_aborted:
                end.line.data_received(piece)
        end.cut()
        with suppress(UpstreamError):
            await collected(await asking)
        assert end.num_lost == 1

    asyncio.run(run())


async def test_a_body_may_end_with_its_connection() -> None:
    end = End()
    reply = await end.asked(OK + b"\r\nhel", b"lo")
    end.cut()
    assert await collected(reply) == b"hello"
    assert end.num_free == 0


async def test_such_a_body_is_broken_when_the_connection_is() -> None:
    end = End()
    reply = await end.asked(OK + b"\r\nhel")
    end.line.connection_lost(ConnectionResetError("reset"))
    with pytest.raises(UpstreamError, match="reset"):
        await collected(reply)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (CHUNKED + chunk(b"a"), "closed it"),
        (OK + b"Content-Length: 9\r\n\r\na", "closed it"),
        (CHUNKED + chunk(b"a") + b"zz\r\n", "broke HTTP/1.1"),
    ],
)
async def test_an_answer_that_breaks_off_is_no_answer(said: bytes, text: str) -> None:
    """What came before is handed over first."""
    end = End()
    reply = await end.asked(said)
    end.cut()
    pieces: list[bytes] = []
    with pytest.raises(UpstreamError, match=text):
        await reply.pour(into(pieces))
    assert pieces == [b"a"]
    assert end.num_free == 0


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\n?"], "gzip answer"),
        ([b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"], "protocol unask"),
        ([OK, *([b"X: " + b"x" * 999 + b"\r\n"] * (MAX_HEAD_BYTES // 999 + 1))], "no body"),
        ([b"HTTP/1.1 102 \r\n\r\n"] * (MAX_HEAD_BYTES // 16), "no body"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"], "Content-Length"),
        ([b"SSH-2.0-OpenSSH\r\n"], "broke HTTP/1.1"),
    ],
)  # fmt: skip
async def test_heads_that_are_not_taken(said: list[bytes], text: str) -> None:
    end = End()
    with pytest.raises(UpstreamError, match=text):
        await end.asked(*said)
    assert end.wire.is_aborted


async def test_trailers_have_an_end() -> None:
    end = End()
    line = b"X: " + b"x" * 999 + b"\r\n"
    reply = await end.asked(
        CHUNKED + chunk(b"a") + b"0\r\n", *([line] * (MAX_HEAD_BYTES // 999 + 1))
    )
    with pytest.raises(UpstreamError, match="no body"):
        await collected(reply)
    assert reply.headers == {"transfer-encoding": "chunked"}


async def test_a_free_line_that_says_something_is_given_up() -> None:
    """It would be taken for the next answer."""
    end = End()
    await collected(await end.asked(EMPTY))
    assert end.line.is_usable
    end.line.data_received(EMPTY)
    assert end.wire.is_aborted
    assert not end.line.is_usable


async def test_a_line_that_closed_before_any_byte_says_so() -> None:
    for said, kind in (([], UnansweredError), ([b"H"], UpstreamError)):
        end = End()
        asking = asyncio.create_task(end.asked(*said))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        end.cut()
        with pytest.raises(UpstreamError) as caught:
            await asking
        assert type(caught.value) is kind


async def test_an_answer_that_nobody_reads_is_not_taken_in_without_end() -> None:
    end = End()
    reply = await end.asked(CHUNKED)
    end.line.data_received(chunk(b"x" * MAX_HELD_BYTES))
    assert not end.wire.is_reading_paused
    end.line.data_received(chunk(b"y"))
    assert end.wire.is_reading_paused
    pieces = reply.pieces()
    assert len(await anext(pieces)) == MAX_HELD_BYTES + 1
    assert not end.wire.is_reading_paused
    end.line.data_received(chunk(b"z" * MAX_HELD_BYTES) + chunk(b"z") + b"0\r\n\r\n")
    assert not end.wire.is_reading_paused  # it has ended: the line is for the next request
    assert end.num_free == 1


async def test_a_large_body_goes_as_fast_as_the_host_takes_it() -> None:
    end = End()
    body = b"x" * (3 * PART_BYTES)
    end.line.pause_writing()
    asking = asyncio.create_task(end.line.ask(HEAD, body))
    await asyncio.sleep(0)
    assert len(end.wire.written) == len(HEAD) + PART_BYTES
    end.line.resume_writing()
    await asyncio.sleep(0)
    end.line.data_received(EMPTY)
    await collected(await asking)
    assert end.wire.written == HEAD + body
    assert end.num_free == 1


async def test_an_answer_ends_the_sending() -> None:
    """A host that answers 413 need not read the rest; the connection then is of no more use."""
    end = End()
    end.line.pause_writing()
    asking = asyncio.create_task(end.line.ask(HEAD, b"x" * (3 * PART_BYTES)))
    await asyncio.sleep(0)
    end.line.data_received(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
    reply = await asking
    assert (reply.status, await collected(reply)) == (413, b"no")
    assert len(end.wire.written) == len(HEAD) + PART_BYTES
    assert end.wire.is_aborted


async def test_silence_ends_an_answer() -> None:
    end = End(silence_s=0.01)
    with pytest.raises(TimeoutError, match="nothing came"):
        await end.asked()
    again = End(silence_s=0.01)
    reply = await again.asked(CHUNKED + chunk(b"a"))
    with pytest.raises(TimeoutError, match="nothing came"):
        await collected(reply)


class Hands:
    """Time that stands still until it is moved, and the timers that are set in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now_s)
        monkeypatch.setattr(loop, "call_later", self._call_later)

    def _call_later(self, after_s: float, call: Callable[[], object]) -> asyncio.Handle:
        self.timers.append((self.now_s + after_s, call))
        return asyncio.Handle(call, (), asyncio.get_running_loop())

    def fire(self) -> None:
        ((self.now_s, call),) = self.timers
        self.timers.clear()
        call()


async def test_one_timer_looks_when_something_last_came(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        hands = Hands(patch)
        end = End(silence_s=60.0, keep_alive_s=60.0)
        asking = asyncio.create_task(end.line.ask(HEAD, b"{}"))
        await asyncio.sleep(0)
        hands.now_s += 50.0
        end.line.data_received(CHUNKED)
        end.line.data_received(chunk(b"a"))
        assert len(hands.timers) == 1
        hands.fire()  # 10 s of silence
        assert [at for at, _ in hands.timers] == [210.0]
        end.line.data_received(b"0\r\n\r\n")
        hands.fire()
        assert not end.wire.is_aborted
        hands.fire()  # 60 s without a request
        assert end.wire.is_aborted
    assert await collected(await asking) == b"a"


async def test_a_pause_of_ours_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        hands = Hands(patch)
        end = End(silence_s=60.0)
        reply = await end.asked(CHUNKED + chunk(b"x" * (MAX_HELD_BYTES + 1)))
        hands.fire()
        assert [at for at, _ in hands.timers] == [220.0]
        assert not end.wire.is_aborted
    reply.close()


async def test_finish_reads_the_rest() -> None:
    end = End()
    reply = await end.asked(CHUNKED)
    finishing = asyncio.create_task(reply.finish())
    await asyncio.sleep(0)
    end.line.data_received(chunk(b"rest") + b"0\r\n\r\n")
    await finishing
    assert end.num_free == 1


async def test_finish_gives_up_on_a_rest_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "DRAIN_TIMEOUT_S", 0.01)
    end = End()
    reply = await end.asked(CHUNKED)
    await reply.finish()
    assert end.wire.is_aborted


async def test_a_free_line_that_the_host_closes_is_no_longer_one() -> None:
    end = End()
    await collected(await end.asked(EMPTY))
    end.cut()
    assert not end.line.is_usable
    assert end.num_lost == 1
    with pytest.raises(UnansweredError):
        await end.line.ask(HEAD, b"{}")


@pytest.mark.parametrize(
    "said", [(), (CHUNKED + chunk(b"a"),), (EMPTY,), (OK + b"\r\nto the end",)]
)
async def test_a_line_that_ended_is_no_work_for_the_collector(said: tuple[bytes, ...]) -> None:
    """Thousands of conversations later it would stop the program to look for them."""
    ends: list[weakref.ref[Any]] = []

    async def life() -> None:
        end = End()
        ends.append(weakref.ref(end.line))
        ends.append(weakref.ref(end.line._head))
        if said:
            ends.append(weakref.ref(await end.asked(*said)))
        end.cut()
        del end.line  # which knows ``end``

    gc.disable()
    try:
        await life()
        await asyncio.sleep(0)  # the loop lets go of the task that asked
        assert [end() for end in ends if end() is not None] == []
    finally:
        gc.enable()
