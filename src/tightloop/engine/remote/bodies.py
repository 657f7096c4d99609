"""Bodies of Chat Completions requests, made of pieces that were worded in earlier turns.

A body is ``stable`` pieces, which the next turn of the conversation repeats, and a ``tail``. What a
turn costs here depends on its new items, and on copying bytes.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Raw

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.remote.hosts import HostKind
from tightloop.engine.remote.kept import Transcripts
from tightloop.engine.tool_names import offered
from tightloop.protocol.chat_messages import Transcript
from tightloop.protocol.chat_request import encode_tools, request_fields
from tightloop.protocol.requests import Tool

NUM_TOOLS_KEPT: Final = 16
"""Lists of tools: about one for each kind of client."""

_COMMA: Final = b","
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Body:
    """A request body in pieces; ``b"".join([*stable, tail])`` is its JSON."""

    stable: Sequence[bytes]
    tail: bytes

    @property
    def num_bytes(self) -> int:
        """Of the JSON."""
        return sum(map(len, self.stable)) + len(self.tail)

    def joined(self) -> bytes:
        """The JSON."""
        return b"".join((*self.stable, self.tail))


def opened(fields: dict[str, Any], name: str) -> bytes:
    """The beginning of a JSON object with ``fields``, up to the first element of the list ``name``."""
    return _encode(fields)[:-1] + (
        b',"%b":[' % name.encode() if fields else b'"%b":[' % name.encode()
    )


class KeptTools:
    """The JSON of the latest lists of tools, known by identity: decoders keep the list they know."""

    def __init__(self, encode: Callable[[Sequence[Tool]], Raw]) -> None:
        self._encode = encode
        self._known: OrderedDict[int, tuple[Sequence[Tool], Raw]] = OrderedDict()

    def encoded(self, given: Sequence[Tool], callable_tools: Sequence[Tool]) -> Raw:
        """The JSON of ``callable_tools``, which are those of ``given`` that can be called."""
        known = self._known.get(id(given))
        if known is None:
            # The list is kept with its JSON, so its id cannot become another one's.
            known = self._known[id(given)] = (given, self._encode(callable_tools))
            if len(self._known) > NUM_TOOLS_KEPT:
                self._known.popitem(last=False)
        return known[1]


class ChatBodies:
    """Makes the bodies for one host."""

    def __init__(self, *, include_reasoning: bool = False) -> None:
        empty = Transcript(include_reasoning=include_reasoning)
        self._transcripts = Transcripts(empty)
        self._tools = KeptTools(encode_tools)

    def body(
        self, request: GenerationRequest, model: str, kind: HostKind, extra: dict[str, Any]
    ) -> Body:
        """The body for ``request`` with further fields ``extra``.

        Raises ``ApiError`` and ``EngineError`` for what a chat cannot say.
        """
        tools, sampling = offered(request), request.sampling
        fields = request_fields(
            tools,
            tool_choice=request.tool_choice,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            max_output_tokens=request.max_output_tokens,
            stop=sampling.stop,
            parallel_tool_calls=request.parallel_tool_calls,
            output_format=request.output_format,
            reasoning_effort=request.reasoning_effort,
            prediction=request.prediction if kind.prediction else None,
            limit_field=kind.limit_field,
            encoded_tools=self._tools.encoded(request.tools, tools) if tools else None,
        )
        words = self._transcripts.of(request)
        system = words.system(request.instructions)
        # Tools in front: they stay the same, so a compressed body need not have them packed again.
        head = {"model": model, "tools": fields.pop("tools", None)}
        stable = [opened({key: value for key, value in head.items() if value}, "messages") + system]
        for piece in words.pieces():
            # The kept pieces go in as they are: they are not copied here, and known again by identity.
            if system or len(stable) > 1:
                stable.append(_COMMA)
            stable.append(piece)
        last = words.open_piece()
        if last and (system or len(stable) > 1):
            last = b"," + last
        return Body(stable, last + b"]," + _encode({**fields, **extra})[1:])
