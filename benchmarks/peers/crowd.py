"""Many paced streams at the same time, read by one thread."""

import select
import socket
from dataclasses import dataclass

from benchmarks.lab.processes import pause
from benchmarks.peers.bodies import Bodies, create
from benchmarks.peers.client import READ_BYTES, HttpClient, WebSocketClient, connect, pong
from benchmarks.peers.gateways import Door
from benchmarks.peers.reply import BadReply, HttpReply, Token, WebSocketReply, failure, tokens
from tightloop.trace.clock import now_ns

SIZE = "1k"
RAMP_S, RAMP_PER_STREAM_S = 0.5, 0.01
"""The requests are spread over so much time at least, so that what they cost is over when measuring
begins."""

WINDOW_S = 1.5
SETTLE_S, TAIL_S = 0.2, 0.4


@dataclass(frozen=True, slots=True)
class Streamed:
    """``lateness_us`` of each token in the window, from when it was due upstream until read.

    ``share`` of the tokens due in the window came in it; ``cpu_us`` is the gateway's per token.
    """

    lateness_us: list[float]
    share: float
    cpu_us: float


class Member:
    """One stream."""

    def __init__(self, door: Door, api: str, number: int) -> None:
        self.reply: HttpReply | WebSocketReply
        if api == "websocket":
            bodies = Bodies(SIZE, door.websocket_model, number)
            client = WebSocketClient(door.port, door.websocket, door.key)
            self.line, self.reply = client.line, WebSocketReply()
            self.request = client.ready(create(bodies.opening()))
        else:
            bodies = Bodies(SIZE, door.model, number)
            path = door.chat if api == "chat" else door.responses
            body = bodies.chat() if api == "chat" else bodies.responses()
            self.line, self.reply = connect(door.port), HttpReply()
            self.request = HttpClient(door.port, path, door.key).ready(body)
        self.is_over = False

    def read(self) -> None:
        """Take what is there."""
        try:
            data = self.line.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not data or self.reply.feed(data, now_ns()):
            self.is_over = True
        elif isinstance(self.reply, WebSocketReply) and self.reply.pongs:
            self.line.sendall(pong(self.reply.pongs.pop()))


def ramp_s(num: int) -> float:
    """How long it takes to start ``num`` streams."""
    return max(RAMP_S, RAMP_PER_STREAM_S * num)


def num_tokens(rate: float, num: int) -> int:
    """Tokens an answer needs so that none of ``num`` streams ends within the window."""
    return int(rate * (ramp_s(num) + WINDOW_S + TAIL_S))


def stream(door: Door, api: str, num: int, rate: float) -> Streamed:
    """``num`` streams of ``rate`` tokens a second. Raises ``BadReply`` when any fails."""
    members: list[Member] = []
    try:
        members = [Member(door, api, number) for number in range(num)]
        return _stream(door, members, rate)
    except OSError as error:
        raise BadReply(str(error)) from error
    finally:
        for member in members:
            member.line.close()
        pause(0.1)  # the gateway notices that they are gone


def _stream(door: Door, members: list[Member], rate: float) -> Streamed:
    poll = select.epoll()
    by_descriptor = {member.line.fileno(): member for member in members}
    waiting = list(reversed(members))
    start_ns = now_ns()
    each_ns = ramp_s(len(members)) * 1e9 / len(members)
    begin_ns = start_ns + round((ramp_s(len(members)) + SETTLE_S) * 1e9)
    end_ns = begin_ns + round(WINDOW_S * 1e9)
    program = door.program
    before_ns = -1
    try:
        while (time_ns := now_ns()) < end_ns:
            sent = len(members) - len(waiting)
            if waiting and time_ns >= start_ns + sent * each_ns:
                member = waiting.pop()
                member.line.sendall(member.request)
                poll.register(member.line.fileno(), select.EPOLLIN)
            if before_ns < 0 and time_ns >= begin_ns:
                before_ns = program.cpu_ns() if program else 0
            for descriptor, _ in poll.poll(0.001 if waiting else 0.02):
                member = by_descriptor[descriptor]
                member.read()
                if member.is_over:
                    poll.unregister(descriptor)
        spent_ns = program.cpu_ns() - before_ns if program else 0
    finally:
        poll.close()
    return _figures(members, rate, begin_ns, end_ns, spent_ns)


def _figures(
    members: list[Member], rate: float, begin_ns: int, end_ns: int, spent_ns: int
) -> Streamed:
    lateness: list[float] = []
    for member in members:
        if text := failure(member.reply):
            raise BadReply(text)
        if isinstance(member.reply, HttpReply) and member.reply.status not in (0, 200):
            raise BadReply(f"status {member.reply.status}")
        lateness += late(tokens(member.reply), rate, begin_ns, end_ns)
    asked = len(members) * rate * (end_ns - begin_ns) / 1e9
    if not lateness:
        raise BadReply("no token came in the measured time")
    return Streamed(lateness, len(lateness) / asked, spent_ns / 1e3 / len(lateness))


def late(found: list[Token], rate: float, begin_ns: int, end_ns: int) -> list[float]:
    """How late each token that came in the window was, in microseconds."""
    period_ns = 1e9 / rate
    first_ns = found[0].stamp_ns if found else 0
    return [
        (token.arrived_ns - (first_ns + number * period_ns)) / 1e3
        for number, token in enumerate(found)
        if begin_ns <= token.arrived_ns < end_ns
    ]
