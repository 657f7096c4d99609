"""Compressed bodies: what comes out, what is not done again, what is learned of a host."""

import gzip
from collections.abc import AsyncIterator, Mapping

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.engine.remote.bodies import Body
from tightloop.engine.remote.compression import MIN_BYTES, Compression, PrefixCompressor
from tightloop.engine.remote.errors import Refusal
from tightloop.engine.remote.host import Host, is_near
from tightloop.engine.remote.options import RemoteOptions
from tightloop.engine.remote.upstream import read_whole

pieces = st.lists(st.binary(max_size=40), max_size=5)


@given(pieces, pieces, st.binary(max_size=40), st.binary(max_size=40))
async def test_any_body_comes_out_as_it_was(
    first: list[bytes], more: list[bytes], tail: bytes, other: bytes
) -> None:
    """Grown, forked, of another conversation, or the same once more."""
    compressor = PrefixCompressor(max_kept=2)
    for key, stable, end in (
        ("a", first, tail),
        ("a", first + more, other),
        ("a", first, tail),
        ("b", more, tail),
        ("c", more, tail),
        ("a", more + first, other),
    ):
        body = Body(stable, end)
        assert gzip.decompress(await compressor.compressed(key, body)) == body.joined()


async def test_a_turn_compresses_only_what_is_new() -> None:
    """Also where the beginning was long enough for a thread."""
    compressor = PrefixCompressor()
    history = [b"x" * 400_000]
    await compressor.compressed("a", Body(history, b"tail"))
    before = compressor.num_bytes_read
    packed = await compressor.compressed("a", Body([*history, b"new"], b"tail"))
    assert compressor.num_bytes_read - before == 7
    assert gzip.decompress(packed).endswith(b"xnewtail")


LARGE = Body([b"x" * MIN_BYTES], b"")


@pytest.mark.parametrize(
    ("mode", "near", "documented", "expected"),
    [
        ("auto", False, None, True),
        ("auto", False, True, True),
        ("auto", False, False, False),
        ("auto", True, True, False),
        ("on", True, False, True),
        ("off", False, True, False),
    ],
)
async def test_where_bodies_are_compressed(
    mode: str, near: bool, documented: bool | None, expected: bool
) -> None:
    compression = Compression(mode, is_near=near)
    assert (await compression.encoded("k", LARGE, documented) is not None) == expected
    assert await compression.encoded("k", Body([b"short"], b""), documented) is None


class Picky:
    """A host that answers by whether the body is compressed."""

    def __init__(self, packed: int, plain: int) -> None:
        self.statuses = {True: packed, False: plain}
        self.encodings: list[bool] = []

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> "Said":
        is_packed = headers.get("Content-Encoding") == "gzip"
        assert (gzip.decompress(body) if is_packed else body) == LARGE.joined()
        self.encodings.append(is_packed)
        return Said(self.statuses[is_packed])

    async def get(self, path: str, headers: Mapping[str, str]) -> "Said":
        raise AssertionError("nothing is asked for here")

    async def warm(self, num: int, path: str) -> list["Said"]:
        return []

    async def close(self) -> None:
        """Nothing is open."""


class Said:
    headers: Mapping[str, str] = {}

    def __init__(self, status: int) -> None:
        self.status = status

    async def pieces(self) -> AsyncIterator[bytes]:
        yield orjson.dumps({"error": "because"})

    async def finish(self) -> None:
        """Nothing more comes."""

    def close(self) -> None:
        """Nothing to stop."""


def picky(packed: int, plain: int) -> tuple[Host, Picky]:
    host = Host("https://host.example/v1", RemoteOptions(), "A_KEY")
    upstream = Picky(packed, plain)
    host.upstream = upstream  # type: ignore[assignment]
    return host, upstream


@pytest.mark.parametrize("status", [400, 415, 422])
async def test_a_host_that_takes_bodies_only_plain_is_remembered(status: int) -> None:
    """It is asked again at once, so nobody notices."""
    host, upstream = picky(status, 200)
    for _ in range(2):
        reply = await host.ask("/x", LARGE, "k", "who")
        assert await read_whole(reply, 99)
    assert upstream.encodings == [True, False, False]
    assert host.compression.is_taken is False


async def test_a_host_that_takes_them_is_remembered() -> None:
    """A later 400 is then about the request."""
    host, upstream = picky(200, 200)
    await host.ask("/x", LARGE, "k", "who")
    upstream.statuses[True] = 400
    with pytest.raises(Refusal, match="who answered 400: because"):
        await host.ask("/x", LARGE, "k", "who")
    assert upstream.encodings == [True, True]


async def test_a_request_that_is_bad_either_way_says_nothing_about_the_host() -> None:
    host, upstream = picky(400, 400)
    with pytest.raises(Refusal):
        await host.ask("/x", LARGE, "k", "who")
    assert upstream.encodings == [True, False]
    assert host.compression.is_taken is None


async def test_other_failures_are_not_asked_again() -> None:
    host, upstream = picky(503, 200)
    with pytest.raises(Refusal):
        await host.ask("/x", LARGE, "k", "who")
    assert upstream.encodings == [True]


def test_this_machine_is_near() -> None:
    names = ("localhost", "127.0.0.1", "::1", "10.0.0.1", "host.example")
    assert [is_near(name) for name in names] == [True, True, True, False, False]
