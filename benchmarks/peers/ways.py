"""Ways to ask: a gateway, an API and how the connection and the history are treated."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.lab.processes import apart, pause
from benchmarks.peers.bodies import Bodies, create
from benchmarks.peers.client import HttpClient, WebSocketClient, checked, num_reconnected
from benchmarks.peers.gateways import Door
from benchmarks.peers.reply import BadReply, HttpReply, Token, WebSocketReply
from tightloop.trace.clock import now_ns

APIS = ("chat", "responses", "responses new", "websocket")
"""Everything resent on a kept connection, over two APIs; the same on a new connection each time;
and only what is new, on a WebSocket."""

TURNS = 8
"""Follow-up turns on a WebSocket before the conversation is opened anew, so that its size stays
near the nominal one."""

SETTLE_S = 0.002
"""What a gateway does after an answer's last byte belongs to that answer."""

FIRST_ANSWER_LIMIT_S = 20.0

PINNED = ", pinned"
"""What the name of a gateway ends with where it was moved to a core of its own for each turn."""

_ID = re.compile(rb'"id": ?"(resp_[^"]+)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer. ``cpu_ns`` is the gateway's, all processes and threads.

    ``is_reconnected``: the kept connection had been closed; connecting anew is in the time.
    """

    sent_ns: int
    tokens: list[Token]
    cpu_ns: int
    num_sent_bytes: int
    is_reconnected: bool = False

    @property
    def ttft_us(self) -> float:
        """From the start of the sending to the first token read."""
        return (self.tokens[0].arrived_ns - self.sent_ns) / 1e3


class Way:
    """``measure`` as often as wanted; ``close`` at the end."""

    def __init__(self, gateway: str, door: Door, api: str, size: str) -> None:
        self.gateway, self.api = gateway, api
        self._door = door
        is_websocket = api == "websocket"
        model = door.websocket_model if is_websocket else door.model
        # Not what this gateway has been sent another way: ours compares bodies with those before.
        self._bodies = Bodies(size, model, mark=f"{gateway} {api}")
        self._client: HttpClient | WebSocketClient | None = None
        self._previous = ""
        self._num_turns = 0

    @staticmethod
    def is_offered(door: Door, api: str) -> bool:
        """Whether the gateway has that API."""
        path = {"chat": door.chat, "websocket": door.websocket}.get(api, door.responses)
        return bool(path)

    def prepare(self, num_tokens: int) -> None:
        """Connect and, on a WebSocket, have a conversation to follow. Raises ``BadReply``."""
        try:
            client = self._connected()
            if self.api == "websocket" and (not self._previous or self._num_turns >= TURNS):
                reply = client.ask(client.ready(create(self._bodies.opening())))[1]
                checked(reply, num_tokens)
                self._keep(reply)
                self._num_turns = 0
        except (BadReply, OSError) as error:
            self.close()
            raise BadReply(str(error)) from error

    def measure(self, num_tokens: int) -> Sample:
        """One answer of ``num_tokens`` tokens, after ``prepare``. Raises ``BadReply``."""
        client = self._connected()
        try:
            body = self._body()
            request = client.ready(body)
            program = self._door.program
            num_before = num_reconnected(client)
            before_ns = program.cpu_ns() if program else 0
            sent_ns, reply = client.ask(request)
            pause(SETTLE_S)
            spent_ns = program.cpu_ns() - before_ns if program else 0
            tokens = checked(reply, num_tokens)
            self._keep(reply)
        except (BadReply, OSError) as error:
            self.close()
            raise BadReply(str(error)) from error
        is_reconnected = num_reconnected(client) > num_before
        return Sample(sent_ns, tokens, spent_ns, len(body), is_reconnected)

    def rss_mb(self) -> float:
        """Resident memory of the gateway now; 0 where there is none."""
        return self._door.program.rss_bytes() / 1e6 if self._door.program else 0.0

    def warm_up(self, num: int, num_tokens: int) -> None:
        """Unmeasured answers; the first may take time to come. Raises ``BadReply``."""
        deadline_ns = now_ns() + round(FIRST_ANSWER_LIMIT_S * 1e9)
        for number in range(num):
            while True:
                try:
                    self.prepare(num_tokens)
                    self.measure(num_tokens)
                    break
                except BadReply:
                    if number or now_ns() > deadline_ns:
                        raise
                    pause(0.25)  # routers find their workers in the background

    def _connected(self) -> HttpClient | WebSocketClient:
        if self._client is None:
            door = self._door
            if self.api == "websocket":
                self._client = WebSocketClient(door.port, door.websocket, door.key)
            else:
                path = door.chat if self.api == "chat" else door.responses
                is_kept = self.api != "responses new"
                self._client = HttpClient(door.port, path, door.key, is_kept=is_kept)
        return self._client

    def _body(self) -> bytes:
        if self.api == "chat":
            return self._bodies.chat()
        if self.api != "websocket":
            return self._bodies.responses()
        self._num_turns += 1
        return create(self._bodies.following(self._previous))

    def _keep(self, reply: HttpReply | WebSocketReply) -> None:
        """Remember which response a WebSocket's next turn follows."""
        if isinstance(reply, WebSocketReply):
            found = _ID.search(list(reply.payload())[-1][1])
            if found is None:
                raise BadReply(f"no response id in {reply.text()[:200]!r}")
            self._previous = found[1].decode()

    def close(self) -> None:
        """Forget connection and conversation."""
        if self._client is not None:
            self._client.close()
        self._client, self._previous = None, ""


class PinnedWay(Way):
    """As ``Way``, while the gateway has a core to itself, and upstream and client share another.

    The move comes just before the turn, whose time contains what it costs in caches.
    """

    def __init__(self, gateway: str, door: Door, api: str, size: str, upstream: Sequence[int]):
        super().__init__(f"{gateway}{PINNED}", door, api, size)
        self._upstream = upstream

    def measure(self, num_tokens: int) -> Sample:
        """See ``Way.measure``."""
        servers = self._door.program.pids if self._door.program else []
        with apart(servers, self._upstream):
            return super().measure(num_tokens)
