"""Compressed request bodies, where a host takes them and where it pays.

A conversation's bodies begin with the same pieces turn after turn, and deflate works from front to
back: the compressor is kept as it was after those pieces, so a turn compresses only what is new.
"""

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tightloop.engine.remote.bodies import Body

if TYPE_CHECKING:
    from zlib import _Compress

MIN_BYTES: Final = 16 << 10
"""Less than this fits into the first flight of a new connection: nothing is won."""

THREAD_BYTES: Final = 256 << 10
"""More than this is compressed in a thread: it takes milliseconds (1.3 for 208 kB)."""

LEVEL: Final = 1
"""Level 6 makes a fifth less of it and takes three times as long."""

MAX_KEPT: Final = 64
"""Conversations whose compressor is kept; each holds about 270 kB besides what came out of it."""

REFUSED: Final = frozenset({400, 415, 422})
"""Answers of hosts that could not read a compressed body."""

_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(slots=True)
class _Kept:
    pieces: Sequence[bytes]
    compressor: "_Compress"
    out: list[bytes]


class PrefixCompressor:
    """gzip of bodies whose beginning was compressed before."""

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.num_bytes_read = 0
        """Of bodies, without what did not have to be compressed again."""

    async def compressed(self, key: str, body: Body) -> bytes:
        """The gzip of ``body``, which belongs to the conversation ``key``."""
        # Taken out: two requests of one conversation at a time must not share a compressor.
        known = self._kept.pop(key, None)
        if known is None or not _begins_with(body.stable, known.pieces):
            known = _Kept((), zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP), [])
        new = b"".join(body.stable[len(known.pieces) :])
        self.num_bytes_read += len(new) + len(body.tail)
        if len(new) > THREAD_BYTES:
            known.out.append(await asyncio.to_thread(known.compressor.compress, new))
        else:
            known.out.append(known.compressor.compress(new))
        last = known.compressor.copy()
        packed = b"".join((*known.out, last.compress(body.tail), last.flush()))
        self._kept[key] = _Kept(body.stable, known.compressor, known.out)
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)
        return packed


def _begins_with(pieces: Sequence[bytes], beginning: Sequence[bytes]) -> bool:
    """Cheap where the pieces are the same objects, as those of one conversation are."""
    return len(beginning) <= len(pieces) and all(
        known is piece or known == piece for known, piece in zip(beginning, pieces, strict=False)
    )


class Compression:
    """Whether a host is sent compressed bodies: said by the option, or found out.

    ``mode`` is ``on``, ``off`` or ``auto``. In ``auto`` the first large body is tried; only a host
    that then takes the same body plain is one that takes none compressed.
    """

    def __init__(self, mode: str, *, is_near: bool) -> None:
        self._mode = mode
        self._is_near = is_near
        self._is_taken: bool | None = None
        self._compressor = PrefixCompressor()

    @property
    def is_taken(self) -> bool | None:
        """What is known of the host; None before the first try."""
        return self._is_taken

    async def encoded(self, key: str, body: Body, is_documented: bool | None) -> bytes | None:
        """The compressed body, or None to send it plain.

        ``is_documented`` is ``HostKind.gzip``. In ``auto`` nothing is compressed for a host on this
        machine: copying is cheaper.
        """
        if self._mode == "off" or body.num_bytes < MIN_BYTES:
            return None
        if self._mode == "auto" and (
            self._is_near or is_documented is False or self._is_taken is False
        ):
            return None
        return await self._compressor.compressed(key, body)

    def is_doubtful(self, status: int) -> bool:
        """Whether an answer with ``status`` may mean that the host cannot read compressed bodies."""
        return self._mode == "auto" and self._is_taken is None and status in REFUSED

    def learn(self, is_taken: bool) -> None:
        """The host took a compressed body, or took the same one only plain; the first word counts."""
        if self._is_taken is None:
            self._is_taken = is_taken
