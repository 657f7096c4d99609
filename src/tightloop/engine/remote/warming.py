"""Prefill hints for a host with a prefix cache: requests for one token, whose answer nobody reads.

They cost money, so they are sent only where the option ``warms_up`` is on, and never two at a time for
one conversation: of the hints that come meanwhile only the newest is sent, as it contains the others.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from tightloop.engine.interface import GenerationRequest
from tightloop.engine.remote.call import Call
from tightloop.engine.remote.hosts import ConversationKeys

Ask = Callable[[GenerationRequest, Call], Awaitable[None]]


class Warmer:
    """``ask`` runs one request to its end and never raises but for a cancellation."""

    def __init__(self, ask: Ask, keys: ConversationKeys) -> None:
        self._ask = ask
        self._keys = keys
        self._waiting: dict[str, GenerationRequest | None] = {}
        """By conversation with a request under way: the newest hint since."""

    async def hint(self, request: GenerationRequest, call: Call) -> None:
        """The host has read ``request``'s input, or will with the request that is under way."""
        key = self._keys.of(request)
        if key in self._waiting:
            self._waiting[key] = request
            return
        self._waiting[key] = None
        try:
            newest: GenerationRequest | None = request
            while newest is not None:
                await self._ask(_one_token(newest), call.aside())
                newest, self._waiting[key] = self._waiting[key], None
        finally:
            del self._waiting[key]


def _one_token(request: GenerationRequest) -> GenerationRequest:
    """``generate`` stays False: it tells that nobody waits for the answer."""
    return replace(request, max_output_tokens=1, prediction=None, output_format=None)
