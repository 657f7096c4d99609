"""The upstream behind every gateway: ignores the prompt, streams clock readings at a set pace.

One process, one thread, no HTTP library: what it adds to a figure is small and the same for all.
It speaks Chat Completions and Responses over server-sent events, and Responses over WebSocket; answers
``/health`` and ``/v1/models``; and gives a router that renders prompts beforehand an empty rendering.
Standard input takes commands, one a line, each answered by one line of JSON: ``pace RATE NUM``
(tokens a second, 0 for as fast as they are taken, and tokens an answer), and ``counts``. It ends with
its standard input.
"""

import asyncio
import base64
import hashlib
import json
import os
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.peers.pacer import SECOND_NS, Pacer
from benchmarks.peers.stub_events import ChatWords, ResponsesWords, Words
from tightloop.trace.clock import now_ns

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BURST = 32
"""Tokens in one write when there is no pace: enough to be cheap, too few to stand in the way."""

MODELS = {"object": "list", "data": [{"id": "stub", "object": "model", "owned_by": "nobody"}]}
RENDERED = {"request_id": "r", "token_ids": [1], "prompt_token_ids": [1]}
LOOKED_AT = 4096
"""Bytes at a WebSocket message's beginning that are read; the rest is counted."""


@dataclass(slots=True)
class Pace:
    """``rate`` in tokens a second, 0 for no pace; ``num`` tokens an answer."""

    rate: float = 1000.0
    num: int = 6


@dataclass(slots=True)
class State:
    """What all connections share."""

    pacer: Pacer
    pace: Pace = field(default_factory=Pace)
    num_answers: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Requests and bytes of their bodies, by path."""


class Stream:
    """One answer on its way out; ``done`` is called after its last byte."""

    def __init__(
        self, state: State, transport: asyncio.Transport, words: Words, done: Callable[[], None]
    ) -> None:
        self.is_paused = False
        self._pacer, self._transport, self._words, self._done = state.pacer, transport, words, done
        self._num = state.pace.num
        self._num_sent = 0
        self._period_ns = SECOND_NS / state.pace.rate if state.pace.rate else 0.0
        self._start_ns = 0

    def start(self) -> None:
        """The first token goes out with the head."""
        self._start_ns = now_ns()
        first = min(self._num, 1)
        self._transport.write(self._words.opening() + self._words.tokens(0, first))
        self._num_sent = first
        if self._num_sent >= self._num:
            self._end()
        elif self._period_ns:
            self._pacer.at(self._due_ns(), self._tick)
        else:
            self.resume()

    def _due_ns(self) -> int:
        return self._start_ns + int(self._num_sent * self._period_ns)

    def _tick(self, time_ns: int) -> int | None:
        if self._transport.is_closing():
            return None
        due = min(int((time_ns - self._start_ns) / self._period_ns) + 1, self._num)
        if due > self._num_sent:
            self._transport.write(self._words.tokens(self._num_sent, due - self._num_sent))
            self._num_sent = due
        if self._num_sent < self._num:
            return self._due_ns()
        self._end()
        return None

    def resume(self) -> None:
        """Write on, without a pace, until told to pause."""
        self.is_paused = False
        loop = asyncio.get_running_loop()
        if not self._period_ns:
            loop.call_soon(self._burst)

    def _burst(self) -> None:
        if self.is_paused or self._transport.is_closing() or self._num_sent >= self._num:
            return
        num = min(BURST, self._num - self._num_sent)
        self._transport.write(self._words.tokens(self._num_sent, num))
        self._num_sent += num
        if self._num_sent >= self._num:
            self._end()
        else:
            self.resume()

    def _end(self) -> None:
        self._transport.write(self._words.ending(self._num))
        self._done()


class Connection(asyncio.Protocol):
    """One client: HTTP requests in turn, or a WebSocket after an upgrade."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._stream: Stream | None = None
        self._take: Callable[[], bool] = self._take_head
        self._path = ""
        self._num_missing = 0
        self._num_body = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio has set TCP_NODELAY."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        """The gateway takes no more for now."""
        if self._stream:
            self._stream.is_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        if self._stream:
            self._stream.resume()

    def data_received(self, data: bytes) -> None:
        """Take whatever is complete."""
        self._buffer += data
        while self._buffer and self._take():
            pass

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        line, *lines = head.split(b"\r\n")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (each.partition(b":") for each in lines)
        }
        self._path = line.split()[1].decode("latin-1").partition("?")[0]
        self._num_body = 0
        if fields.get(b"upgrade", b"").lower() == b"websocket":
            self._upgrade(fields[b"sec-websocket-key"])
        elif b"chunked" in fields.get(b"transfer-encoding", b""):
            self._take = self._take_chunk_size
        else:
            self._num_missing = int(fields.get(b"content-length", b"0"))
            self._take = self._take_body
            self._take_body()
        if fields.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _take_body(self) -> bool:
        self._skip()
        if self._num_missing:
            return False
        self._take = self._take_head
        self._respond()
        return True

    def _skip(self) -> None:
        num = min(self._num_missing, len(self._buffer))
        del self._buffer[:num]
        self._num_missing -= num
        self._num_body += num

    def _take_chunk_size(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        size = int(bytes(self._buffer[:end]).partition(b";")[0], 16)
        del self._buffer[: end + 2]
        self._num_missing = size + 2  # its line end
        self._take = self._take_chunk if size else self._take_last
        return True

    def _take_chunk(self) -> bool:
        self._skip()
        if self._num_missing:
            return False
        self._num_body -= 2
        self._take = self._take_chunk_size
        return True

    def _take_last(self) -> bool:
        if not self._take_chunk():
            return False
        self._take = self._take_head
        self._respond()
        return True

    def _respond(self) -> None:
        self._count(self._path)
        if self._path.endswith("/render"):
            self._json(RENDERED)
        elif self._path.endswith("/chat/completions"):
            self._state.num_answers += 1
            self._send(ChatWords(self._state.num_answers))
        elif self._path.endswith("/responses"):
            self._state.num_answers += 1
            self._send(ResponsesWords(self._state.num_answers, is_websocket=False))
        else:
            self._json(MODELS if self._path.endswith("/models") else {"status": "ok"})

    def _count(self, name: str) -> None:
        self._state.counts[f"{name} requests"] += 1
        self._state.counts[f"{name} bytes"] += self._num_body

    def _send(self, words: Words) -> None:
        def done() -> None:
            self._stream = None

        self._stream = Stream(self._state, self._transport, words, done)
        self._stream.start()

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    def _upgrade(self, key: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._transport.write(head + b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)
        self._take = self._take_frame

    def _take_frame(self) -> bool:
        """One whole frame from a client, which is always masked."""
        buffer = self._buffer
        if len(buffer) < 6:
            return False
        first, size, at = buffer[0], buffer[1] & 0x7F, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            if len(buffer) < at + 4:
                return False
            size = int.from_bytes(buffer[2:at], "big")
        end = at + 4 + size
        if len(buffer) < end:
            return False
        mask = bytes(buffer[at : at + 4])
        beginning = unmasked(bytes(buffer[at + 4 : min(end, at + 4 + LOOKED_AT)]), mask)
        del buffer[:end]
        self._num_body += size
        self._frame(first, beginning)
        return True

    def _frame(self, first: int, beginning: bytes) -> None:
        kind, is_last = first & 0x0F, first & 0x80
        if kind == 8:
            self._transport.write(b"\x88\x00")
            self._transport.close()
        elif kind == 9:
            self._transport.write(b"\x8a%c%s" % (len(beginning), beginning))
        elif kind in (0, 1, 2) and is_last:
            self._message(beginning)

    def _message(self, beginning: bytes) -> None:
        self._count("websocket")
        self._num_body = 0
        self._state.num_answers += 1
        words = ResponsesWords(self._state.num_answers, is_websocket=True)
        if b'"generate":false' in beginning:
            self._transport.write(words.opening() + words.ending(0))
        else:
            self._send(words)


def unmasked(data: bytes, mask: bytes) -> bytes:
    """A frame's payload as it was before masking, or the other way round."""
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return mixed.to_bytes(len(data), "big")


def command(state: State, line: str) -> object:
    """Carry out one line of standard input; what it returns is printed as JSON."""
    word, *words = line.split()
    if word == "pace" and len(words) == 2:
        state.pace = Pace(float(words[0]), int(words[1]))
        return {"rate": state.pace.rate, "num": state.pace.num}
    if word == "counts" and not words:
        counts = dict(state.counts)
        state.counts.clear()
        return counts
    raise ValueError(f"the upstream knows 'pace RATE NUM' and 'counts', not {line!r}")


@dataclass(slots=True)
class Listening:
    """Open ports by scheme."""

    ports: dict[str, int] = field(default_factory=dict)
    servers: list[asyncio.Server] = field(default_factory=list)

    def close(self) -> None:
        """No new connections."""
        for server in self.servers:
            server.close()


async def listen(state: State, certificate: str | None) -> Listening:
    """Open the ports: plain HTTP, and with TLS where there is a certificate and its key."""
    loop = asyncio.get_running_loop()
    schemes: dict[str, ssl.SSLContext | None] = {"http": None}
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        schemes["https"] = context
    listening = Listening()
    for scheme, context_ in schemes.items():
        server = await loop.create_server(
            lambda: Connection(state), "127.0.0.1", 0, ssl=context_, backlog=2048
        )
        listening.servers.append(server)
        listening.ports[scheme] = int(server.sockets[0].getsockname()[1])
    return listening


async def serve(certificate: str | None) -> None:
    """Print the ports, then obey standard input until it ends."""
    loop = asyncio.get_running_loop()
    state = State(Pacer(loop))
    ended = asyncio.Event()
    lines = bytearray()

    def readable() -> None:
        data = os.read(0, 4096)
        if not data:
            loop.remove_reader(0)
            ended.set()
        lines.extend(data)
        while b"\n" in lines:
            line, _, rest = bytes(lines).partition(b"\n")
            lines[:] = rest
            print(json.dumps(command(state, line.decode())), flush=True)

    listening = await listen(state, certificate)
    print(json.dumps(listening.ports), flush=True)
    loop.add_reader(0, readable)
    await ended.wait()
    listening.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else None))
