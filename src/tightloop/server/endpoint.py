"""An engine behind the Responses protocol, for a network server or for a client in this process."""

import asyncio
import contextlib
from collections.abc import Callable

from tightloop.client.in_memory import Receiver
from tightloop.engine.interface import Engine
from tightloop.server.backstage import HEARTBEAT_S, RESUME_GRACE_S, Backstage
from tightloop.server.conversation_book import ConversationBook
from tightloop.server.conversations import Conversations
from tightloop.server.lanes import Session
from tightloop.server.store import Store
from tightloop.server.turns import PLAIN, Manner
from tightloop.trace import clock

CLOSE_S = 5.0
"""How long ``close`` waits for what it has cancelled; only an engine that is broken takes it."""


class Endpoint:
    """The one meeting point of engine, conversations and connections.

    Order: ``start``, any number of ``open``, ``close``. Without a ``store``, responses with
    ``store: true`` last as long as this object. ``manner`` is that of connections which come without
    one. Implements ``client.in_memory.Endpoint``::

        transport = InMemoryTransport(endpoint)
    """

    def __init__(
        self,
        engine: Engine,
        store: Store | None = None,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        now_ns: Callable[[], int] = clock.now_ns,
        resume_grace_s: float = RESUME_GRACE_S,
        manner: Manner = PLAIN,
    ) -> None:
        self.engine = engine
        self.conversations = Conversations(store)
        self.book = ConversationBook(self.conversations, store)
        self.backstage = Backstage(
            engine, self.conversations, self.book, heartbeat_s, now_ns, resume_grace_s
        )
        self._store = store
        self._manner = manner
        self._sessions: set[Session] = set()

    async def start(self) -> None:
        """Open the store and load the model. Raises ``StoreError`` or ``EngineError``."""
        if self._store is not None:
            await self._store.open()
        await self.engine.start()

    def open(self, receive: Receiver, manner: Manner | None = None) -> Session:
        """A new connection whose events go to ``receive``."""
        session = Session(self.backstage, receive, self._sessions.discard, manner or self._manner)
        self._sessions.add(session)
        return session

    async def drained(self, within_s: float) -> None:
        """Return when no response is running, or when the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.backstage.drained()

    async def cut_short(self) -> None:
        """Cancel what still runs, and return once its readers have been told."""
        for turn in list(self.backstage.running.values()):
            turn.cancel()
        await self.drained(CLOSE_S)

    async def close(self) -> None:
        """End every connection, the engine and the store. May be called twice."""
        for session in list(self._sessions):
            session.close()
        for turn in list(self.backstage.running.values()):
            turn.cancel()  # an engine only ends what has reached it
        await self.engine.close()
        await self.drained(CLOSE_S)
        if self.backstage.commits:
            await asyncio.wait(self.backstage.commits)
        await self.conversations.close()
