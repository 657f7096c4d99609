"""Where the engine stands before a request: which of its context it has seen, what is left to read."""

from typing import NamedTuple

from tightloop.engine.interface import Node
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.tools import Tool
from tightloop.server.conversations import Record
from tightloop.server.fitting import most_tokens
from tightloop.server.known_histories import Known, KnownHistories, Path


class Standing(NamedTuple):
    """``above`` is the engine's parent; the first ``first`` items of the request are its context.

    ``tools`` came as items of that context. ``known`` is the turn it goes on from, ``before`` the path
    up to the request, or with all of it: see ``path``.
    """

    above: Node | None
    first: int
    tools: tuple[Tool, ...]
    before: Path | None
    known: Known | None
    is_whole: bool

    def path(self, request: ResponseRequest) -> Path | None:
        """The path of the whole context with the items of ``request``.

        None where nobody could come back with it. Not needed before the response has ended.
        """
        if self.is_whole or self.before is None:
            return self.before
        return self.before.then(request.input)

    def most_tokens(self, request: ResponseRequest, setup: bytes | None) -> int | None:
        """What the prompt's tokens cannot be more than; None when that cannot be told.

        Where the prompt before was counted it has grown by what was added, and a token holds at least
        a byte. Only a request with the same ``setup`` (``fitting.setup_of``) goes on from it.
        """
        known = self.known
        if known is None or self.above is None or known.num_tokens is None:
            return None
        if setup is None or known.setup != setup:
            return None
        answer = self.above.items[known.num_given :]
        new = request.input[self.first :]
        return known.num_tokens + most_tokens(answer) + most_tokens(new)


def standing(
    histories: KnownHistories, request: ResponseRequest, parent: Record | None, scope: str
) -> Standing:
    """Where ``request`` goes on from: from its ``parent``, else from what its input begins with.

    ``scope`` is the client, whose own turns are looked through. Hidden from it: see
    ``known_histories``.
    """
    if parent is not None:
        known = parent.known if parent.known and parent.known.scope == scope else None
        before = known.end if known is not None else None
        return Standing(parent.engine_node, 0, parent.tools, before, known, is_whole=False)
    match, path = histories.match(request.input, scope)
    if match is None:
        return Standing(None, 0, (), path, None, is_whole=True)
    tools = match.known.tools
    return Standing(match.node, match.num_items, tools, path, match.known, is_whole=True)
