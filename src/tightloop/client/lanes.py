"""Several conversations at once over what connects one of them: lanes where a server has them.

=========================== ==========================================================
the conversation's way      its forks go
=========================== ==========================================================
WebSocket to one of ours,   over the same connection, each on a lane (``stream_id``) of
or in this process          its own; the server keeps their context, nothing is sent twice
WebSocket to another host   over a connection each, since lanes may be unknown there
HTTP                        over the same pool: requests are independent, and whole anyway
=========================== ==========================================================
"""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from tightloop.client.session import Session
from tightloop.client.transport import HintingTransport, Transport

MAX_NAMES = 24
"""Names in use at a time; a server has room for 32 on a connection, and for 16 responses at once."""


@runtime_checkable
class Repeatable(Protocol):
    """A ``Transport`` of which there can be another."""

    def sibling(self) -> Transport:
        """Another way to the same server, with the same key, not connected yet."""


class Lanes:
    """Forks of sessions, so that all of them can be answered at once. ``close`` ends what they need.

    One object for each connection: lanes are numbered here.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._opened: list[Transport] = []

    async def fork(self, session: Session, options: Mapping[str, Any] | None = None) -> Session:
        """A fork of ``session`` that waits for nobody else's responses; see ``Session.fork``.

        Raises what ``Transport.connect`` raises.
        """
        transport = session.transport
        await transport.connect()  # only then it is known what its server offers
        if isinstance(transport, HintingTransport) and transport.capabilities:
            return session.fork(
                stream_id=f"fork-{next(self._numbers) % MAX_NAMES}", options=options
            )
        if not transport.supports_continuation or not isinstance(transport, Repeatable):
            return session.fork(options=options)
        sibling = transport.sibling()
        self._opened.append(sibling)
        await sibling.connect()
        return session.fork(transport=sibling, options=options)

    async def close(self) -> None:
        """The connections that were opened for forks are closed."""
        opened, self._opened = self._opened, []
        async with asyncio.TaskGroup() as group:
            for transport in opened:
                group.create_task(transport.close())
