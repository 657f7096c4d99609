"""One way of asking a host: over a chat, over Responses, over its WebSocket."""

from typing import Protocol

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.remote.call import Call


class Api(Protocol):
    """One way of asking a host."""

    async def converse(self, request: GenerationRequest, model: str, call: Call) -> None:
        """The answer goes to ``call``, its last delta a ``Finished``.

        Raises ``EngineError`` and ``ApiError`` for a refusal, ``UpstreamError`` for a connection that
        broke, ``TimeoutError`` for silence, ``RemoteProtocolError`` for what cannot be read.
        """

    async def close(self) -> None:
        """What it holds is released. May be called twice."""
