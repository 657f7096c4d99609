"""WebSocket frames from server to client, written as one buffer per batch.

A server frame is a header of 2 to 10 bytes and the payload as it is (RFC 6455 section 5.2; only
clients mask). Building it here lets a batch of events leave in one write, from a plain callback;
aiohttp's own send is a coroutine and a write per frame.
"""

from collections.abc import Sequence
from struct import Struct

_TEXT = 0x81  # FIN and opcode 1
_SHORT = Struct("!BB").pack
_MEDIUM = Struct("!BBH").pack
_LONG = Struct("!BBQ").pack


def text_frames(payloads: Sequence[bytes]) -> bytes:
    """One unmasked, unfragmented text frame per payload, back to back."""
    if len(payloads) == 1 and 126 <= (size := len(payloads[0])) < 65536:
        return _MEDIUM(_TEXT, 126, size) + payloads[0]  # a token
    pieces: list[bytes] = []
    for payload in payloads:
        size = len(payload)
        if size < 126:
            pieces.append(_SHORT(_TEXT, size))
        elif size < 65536:
            pieces.append(_MEDIUM(_TEXT, 126, size))
        else:
            pieces.append(_LONG(_TEXT, 127, size))
        pieces.append(payload)
    return b"".join(pieces)
