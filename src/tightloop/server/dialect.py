"""How a dialect's events are made and framed; everything else about a turn is the same for all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightloop.protocol import sse
from tightloop.protocol.items import Item
from tightloop.protocol.outgoing import MakeStream
from tightloop.protocol.response_stream import ResponseStream


@dataclass(frozen=True, slots=True)
class Dialect:
    """``frame`` wraps one event's JSON for the wire; ``done`` follows the last one.

    ``resumes``: the answer has an id under which its stream can be read again. ``resent`` gives the
    items that an answer comes back as, where the dialect cannot say them as they were.
    """

    make_stream: MakeStream
    frame: Callable[[bytes], bytes]
    done: bytes = b""
    resumes: bool = False
    resent: Callable[[Sequence[Item]], Sequence[Item]] | None = None


RESPONSES = Dialect(ResponseStream, sse.frame, sse.DONE, resumes=True)
"""The Responses API."""
