"""How a dialect's events are made and framed; everything else about a turn is the same for all."""

from collections.abc import Callable
from dataclasses import dataclass

from tightloop.protocol import sse
from tightloop.protocol.outgoing import MakeStream
from tightloop.protocol.response_stream import ResponseStream


@dataclass(frozen=True, slots=True)
class Dialect:
    """``frame`` wraps one event's JSON for the wire; ``done`` follows the last one.

    ``resumes``: the answer has an id under which its stream can be read again.
    """

    make_stream: MakeStream
    frame: Callable[[bytes], bytes]
    done: bytes = b""
    resumes: bool = False


RESPONSES = Dialect(ResponseStream, sse.frame, sse.DONE, resumes=True)
"""The Responses API."""
