"""Who has which conversation, and how much it usually says. Bounded; what is forgotten costs no result."""

from collections import OrderedDict

from tightloop.engine.interface import GenerationRequest, Node

MAX_NODES = 50_000
MAX_KEYS = 10_000
_WEIGHT = 0.3
"""Of the newest answer in the average: an agent's turns change with what it is at."""


class Session:
    """One conversation with all its forks. ``key`` is the same for as long as it lasts."""

    __slots__ = ("keeper", "key", "recent_output")

    def __init__(self, key: str) -> None:
        self.key = key
        self.keeper: str | None = None
        """The member that answered last."""
        self.recent_output: float | None = None

    def note_output(self, num_tokens: int) -> None:
        """An answer had so many tokens."""
        before = self.recent_output
        self.recent_output = (
            float(num_tokens) if before is None else before + _WEIGHT * (num_tokens - before)
        )


class _Place:
    __slots__ = ("member", "session")

    def __init__(self, session: Session, member: str) -> None:
        self.session = session
        self.member = member


class SessionBook:
    """Sessions by the nodes of their conversations and by the client's cache keys.

    A node's own member counts before the session's last one: two forks may live in two places.
    """

    def __init__(self, *, max_nodes: int = MAX_NODES, max_keys: int = MAX_KEYS) -> None:
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._by_key: OrderedDict[str, Session] = OrderedDict()
        self._max_nodes = max_nodes
        self._max_keys = max_keys

    def session(self, request: GenerationRequest) -> Session:
        """The session that a request belongs to: its parent's, or its cache key's, or a new one."""
        parent = request.parent
        if parent is not None:
            place = self._places.get(parent.id)
            if place is not None:
                self._places.move_to_end(parent.id)
                return place.session
        if request.cache_key:
            return self._keyed(request.cache_key)
        return Session(request.response_id if parent is None else _root(parent).id)

    def keeper(self, request: GenerationRequest, session: Session) -> str | None:
        """The member that has the conversation of ``request`` warm."""
        if request.parent is not None:
            place = self._places.get(request.parent.id)
            if place is not None:
                return place.member
        return session.keeper

    def place(self, response_id: str, session: Session, member: str) -> None:
        """``member`` makes the response; whatever continues it is best asked there."""
        session.keeper = member
        known = self._places.get(response_id)
        if known is not None:
            known.member = member
            return
        self._places[response_id] = _Place(session, member)
        if len(self._places) > self._max_nodes:
            self._places.popitem(last=False)

    def _keyed(self, key: str) -> Session:
        session = self._by_key.get(key)
        if session is None:
            session = self._by_key[key] = Session(key)
            if len(self._by_key) > self._max_keys:
                self._by_key.popitem(last=False)
        else:
            self._by_key.move_to_end(key)
        return session


def _root(node: Node) -> Node:
    while node.parent is not None:
        node = node.parent
    return node
