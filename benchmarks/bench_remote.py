"""What a turn costs on the way to a remote host: prints one JSON object.

The host is a stub in a process of its own, on loopback. Of the client, which is ``RemoteEngine``, is
measured the CPU time of its thread per turn (submit to the last delta), the bytes of the request, and
the wall time to the first delta. Variants are interleaved in random order; medians with the 10th and
90th percentiles. A turn adds one tool output of 4 kB to a history of 10,000, 50,000 or 200,000 tokens.

- ``whole``: Chat Completions, every message worded and encoded again (as it was before)
- ``pieces``: Chat Completions, only the new items worded
- ``gzip``: the same, compressed; only what is new is compressed again
- ``gzip whole``: the same with the whole body compressed each time
- ``socket``: the Responses WebSocket of this project's own server, only the new items sent
- ``http1``, ``http2``: 256 tokens at 1000 a second over TLS, with little history
"""

import argparse
import asyncio
import json
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import orjson

from tightloop.client.inbox import Inbox, Switchboard
from tightloop.engine.interface import GenerationRequest, Node
from tightloop.engine.remote import RemoteEngine, RemoteOptions
from tightloop.engine.remote.bodies import Body
from tightloop.engine.scripted import ScriptedEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol.chat_request import build_request
from tightloop.protocol.deltas import Delta, Finished, TextDelta
from tightloop.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    TextPart,
    user_message,
)
from tightloop.protocol.requests import FunctionTool
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.trace import clock

HISTORIES = {"10k": 10_000, "50k": 50_000, "200k": 200_000}
BYTES_PER_TOKEN = 4
NEW_BYTES = 4_000
NUM_TOKENS = 256
TOKENS_PER_S = 1000
NUM_WARMUP = 5
NUM_TOOLS = 13
MAX_TURNS = 6
"""After as many a conversation begins anew, and its first turn, which sends everything, is not counted."""

SOURCE = "".join(
    path.read_text("utf-8") for path in sorted(Path(__file__).parent.parent.glob("src/**/*.py"))
)

Variant = tuple[str, str]


# ---------------------------------------------------------------------- the host's side


def event(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"


TOKEN = event(content=" word")
END = event("stop") + b"data: [DONE]\n\n"
LISTING = b'{"data":[{"id":"m"}]}'


def paced(num: int, say: Callable[[bytes], None], end: Callable[[], None]) -> None:
    """``num`` tokens at deadlines, or all at once when it is one."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    def step(n: int) -> None:
        say(TOKEN)
        if n + 1 < num:
            loop.call_at(start_s + (n + 1) / TOKENS_PER_S, step, n + 1)
        else:
            say(END)
            end()

    step(0)


class Http1(asyncio.Protocol):
    """Reads a request, answers a stream; nothing else is understood."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            _, _, rest = head.partition(b"content-length: ")
            length = int(rest.split(b"\r\n")[0]) if rest else 0
            if len(self._data) < end + 4 + length:
                return
            del self._data[: end + 4 + length]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"get"):
            kind = b"Content-Type: application/json\r\nContent-Length: %d" % len(LISTING)
            self._transport.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n" + LISTING)
            return
        kind = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked"
        self._transport.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n")
        num = NUM_TOKENS if b"x-delay" in head or b"/many/" in head else 1
        paced(num, self._say, lambda: self._transport.write(b"0\r\n\r\n"))

    def _say(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


class Http2(asyncio.Protocol):
    """The same over HTTP/2."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._transport: Any = None
        self._gets: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(1 << 24)
        self._write()

    def data_received(self, data: bytes) -> None:
        for one in self._h2.receive_data(data):
            if isinstance(one, h2.events.RequestReceived):
                if dict(one.headers or ()).get(":method") == "GET":  # type: ignore[call-overload]
                    self._gets.add(one.stream_id or 0)
            elif isinstance(one, h2.events.DataReceived):
                self._h2.acknowledge_received_data(
                    one.flow_controlled_length or 0, one.stream_id or 0
                )
            elif isinstance(one, h2.events.StreamEnded):
                self._answer(one.stream_id or 0)
        self._write()

    def _answer(self, stream_id: int) -> None:
        is_get = stream_id in self._gets
        kind = "application/json" if is_get else "text/event-stream"
        self._h2.send_headers(stream_id, [(":status", "200"), ("content-type", kind)])
        if is_get:
            self._h2.send_data(stream_id, LISTING, end_stream=True)
            return

        def say(data: bytes) -> None:
            self._h2.send_data(stream_id, data)
            self._write()

        def end() -> None:
            self._h2.end_stream(stream_id)
            self._write()

        paced(NUM_TOKENS, say, end)

    def _write(self) -> None:
        self._transport.write(self._h2.data_to_send())


def certificate(folder: Path) -> Path:
    path = folder / "loopback.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command = ["openssl", "req", "-x509", *key, "-days", "2", *name, "-keyout", str(path)]
    subprocess.run([*command, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


async def serve(pem: Path) -> None:
    """The stub's process: says its ports in one line, ends with its standard input."""
    loop = asyncio.get_running_loop()
    ports: dict[str, int] = {}
    for name, protocol, alpn in (
        ("plain", Http1, None),
        ("tls1", Http1, "http/1.1"),
        ("tls2", Http2, "h2"),
    ):
        context = None
        if alpn is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            context.set_alpn_protocols([alpn])
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context)
        ports[name] = server.sockets[0].getsockname()[1]
    ours = Server(
        Endpoint(ScriptedEngine(lambda _: [TextDelta(" word")], name="m")),
        Access(KeyRing(), "127.0.0.1"),
        host="127.0.0.1",
        port=0,
    )
    url = await ours.start()
    print(json.dumps({"ports": ports, "ours": url}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await ours.stop(grace_s=0)


# ---------------------------------------------------------------------- the client's side


class WholeBodies:
    """As bodies were made before: everything is worded and encoded each time."""

    def body(self, request: GenerationRequest, model: str, _kind: Any, extra: Any) -> Body:
        made = build_request(request.context(), request.instructions, request.tools, model=model)
        return Body([], orjson.dumps({**made, **extra}))


class WholeCompressor:
    """gzip without a kept beginning."""

    async def compressed(self, _key: str, body: Body) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return packer.compress(body.joined()) + packer.flush()


class Counting:
    """Bytes of the bodies that go through an upstream."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.num_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def post(self, path: str, body: bytes, headers: Any) -> Any:
        self.num_bytes = len(body)
        return await self._inner.post(path, body, headers)


TOOLS = tuple(
    FunctionTool(f"tool_{n}", "x" * 1500, {"type": "object", "properties": {}})
    for n in range(NUM_TOOLS)
)


def history(num_tokens: int, name: str) -> Node:
    """Rounds of a call and its output of 4 kB, a node each."""
    node: Node | None = None
    for n in range(max(1, num_tokens * BYTES_PER_TOKEN // NEW_BYTES)):
        before: list[Item] = (
            [user_message("fix it")] if n == 0 else [FunctionCallOutput(f"c{n - 1}", output(n))]
        )
        call = FunctionCall(f"c{n}", "tool_1", '{"cmd":"cat x.py"}')
        node = Node(f"{name}_{n}", node, (*before, call))
    assert node is not None
    return node


def output(n: int) -> str:
    """4 kB of source text, another for each ``n``: what compressors meet."""
    start = n * 3_989 % (len(SOURCE) - NEW_BYTES)
    return f"run {n}\n{SOURCE[start : start + NEW_BYTES]}"[:NEW_BYTES]


class Sink:
    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.first_ns = 0
        self.texts: list[str] = []
        self.finished: Finished | None = None

    def __call__(self, deltas: Sequence[Delta]) -> None:
        self.first_ns = self.first_ns or clock.now_ns()
        self.texts += [delta.text for delta in deltas if isinstance(delta, TextDelta)]
        last = deltas[-1]
        if isinstance(last, Finished):
            self.finished = last
            self.done.set()


class Conversation:
    """Turns of one variant at one size of history."""

    def __init__(self, engine: RemoteEngine, num_tokens: int, name: str) -> None:
        self.engine = engine
        self.name = name
        self.num_turns = 0
        self._num_tokens = num_tokens
        self.node = history(num_tokens, name)

    async def turn(self) -> tuple[float, float]:
        """CPU time and time to the first delta, in microseconds; the conversation grows by it."""
        if self.num_turns % MAX_TURNS == 0:  # so that its size stays what it is called
            self.node = history(self._num_tokens, f"{self.name}_{self.num_turns}")
            await self._turn()
        return await self._turn()

    async def _turn(self) -> tuple[float, float]:
        self.num_turns += 1
        call = self.node.items[-1]
        items: tuple[Item, ...] = (user_message(output(self.num_turns)),)
        if isinstance(call, FunctionCall):
            items = (FunctionCallOutput(call.call_id, output(self.num_turns)),)
        name = f"{self.name}_turn_{self.num_turns}"
        request = GenerationRequest(name, "m", self.node, items, "Be brief. " * 400, TOOLS)
        sink = Sink()
        await asyncio.sleep(0.002)
        cpu_ns, wall_ns = time.thread_time_ns(), clock.now_ns()
        self.engine.submit(request, sink)
        await sink.done.wait()
        cpu_us = (time.thread_time_ns() - cpu_ns) / 1e3
        finished = sink.finished
        assert finished is not None
        assert finished.error_code is None, finished.error_message
        said = Message("assistant", (TextPart("output_text", "".join(sink.texts)),))
        self.node = Node(name, self.node, (*items, said))
        return cpu_us, (sink.first_ns - wall_ns) / 1e3


async def engines(where: dict[str, Any], pem: Path) -> dict[str, RemoteEngine]:
    plain = f"http://127.0.0.1:{where['ports']['plain']}/v1"
    trust = ssl.create_default_context(cafile=pem)
    trust2 = ssl.create_default_context(cafile=pem)
    made = {
        "whole": RemoteEngine("m", plain, options=RemoteOptions(gzip="off")),
        "pieces": RemoteEngine("m", plain, options=RemoteOptions(gzip="off")),
        "gzip": RemoteEngine("m", plain, options=RemoteOptions(gzip="on")),
        "gzip whole": RemoteEngine("m", plain, options=RemoteOptions(gzip="on")),
        "socket": RemoteEngine(
            "m", where["ours"], options=RemoteOptions(api="responses-ws", host_kind="tightloop")
        ),
        "http1": RemoteEngine(
            "m",
            f"https://127.0.0.1:{where['ports']['tls1']}/many/v1",
            options=RemoteOptions(gzip="off"),
            ssl_context=trust,
        ),
        "http2": RemoteEngine(
            "m",
            f"https://127.0.0.1:{where['ports']['tls2']}/many/v1",
            options=RemoteOptions(gzip="off", http="2"),
            ssl_context=trust2,
        ),
    }
    made["whole"]._chat._bodies = WholeBodies()  # type: ignore[assignment]
    made["gzip whole"].host.compression._compressor = WholeCompressor()  # type: ignore[assignment]
    for engine in made.values():
        await engine.start()
    return made


async def measure(where: dict[str, Any], pem: Path, num_turns: int) -> dict[str, Any]:
    made = await engines(where, pem)
    talks: dict[Variant, Conversation] = {}
    for label, num_tokens in HISTORIES.items():
        for name in ("whole", "pieces", "gzip", "gzip whole", "socket"):
            key = f"{name}-{label}".replace(" ", "_")
            talks[name, label] = Conversation(made[name], num_tokens, key)
    for name in ("http1", "http2"):
        talks[name, "1k"] = Conversation(made[name], 1_000, name)
    samples: dict[Variant, list[tuple[float, float]]] = defaultdict(list)
    for n in range(num_turns + NUM_WARMUP):
        order = list(talks)
        random.shuffle(order)
        for variant in order:
            sample = await talks[variant].turn()
            if n >= NUM_WARMUP:
                samples[variant].append(sample)
    sizes = await request_bytes(talks)
    for engine in made.values():
        await engine.close()
    return {
        f"{name}, {label}": {
            "cpu_us": spread([cpu for cpu, _ in samples[name, label]]),
            "first_delta_us": spread([first for _, first in samples[name, label]]),
            "request_bytes": sizes[name, label],
        }
        for name, label in talks
    }


async def making(num: int = 60) -> dict[str, dict[str, int]]:
    """CPU time of making one body alone, hot: worded whole, in pieces, and packed on top."""
    from tightloop.engine.remote.bodies import ChatBodies
    from tightloop.engine.remote.compression import PrefixCompressor
    from tightloop.engine.remote.hosts import HOST_KINDS

    kind, result = HOST_KINDS["other"], {}
    for label, num_tokens in HISTORIES.items():
        whole, pieces = WholeBodies(), ChatBodies()
        packer, whole_packer = PrefixCompressor(), WholeCompressor()
        node = history(num_tokens, f"making_{label}")
        times: dict[str, list[float]] = defaultdict(list)
        for n in range(num + NUM_WARMUP):
            items = (user_message(output(n)),)
            request = GenerationRequest(f"m{n}", "m", node, items, "Be brief. " * 400, TOOLS)
            start_ns = time.thread_time_ns()
            whole.body(request, "m", kind, {}).joined()
            times["whole"].append((time.thread_time_ns() - start_ns) / 1e3)
            start_ns = time.thread_time_ns()
            body = pieces.body(request, "m", kind, {})
            body.joined()
            times["pieces"].append((time.thread_time_ns() - start_ns) / 1e3)
            start_ns = time.thread_time_ns()
            await packer.compressed("k", body)
            times["gzip"].append((time.thread_time_ns() - start_ns) / 1e3)
            start_ns = time.thread_time_ns()
            await whole_packer.compressed("k", body)
            times["gzip whole"].append((time.thread_time_ns() - start_ns) / 1e3)
            if n % MAX_TURNS == 0:
                node = history(num_tokens, f"making_{label}_{n}")
                pieces.body(replace(request, parent=node, response_id="x"), "m", kind, {})
                first = pieces.body(replace(request, parent=node), "m", kind, {})
                await packer.compressed("k", first)
            else:
                said = Message("assistant", (TextPart("output_text", "word"),))
                node = Node(f"m{n}", node, (*items, said))
        result[label] = {
            name: round(statistics.median(taken[NUM_WARMUP:])) for name, taken in times.items()
        }
    return result


async def request_bytes(talks: dict[Variant, Conversation]) -> dict[Variant, int]:
    """What one more turn sends, of the body or of the frame."""
    sizes: dict[Variant, int] = {}
    opened = Switchboard._opened
    for variant, talk in talks.items():
        host = talk.engine.host
        counting = Counting(host.upstream)
        host.upstream = counting
        frames: list[bytes] = []

        def spy(
            board: Switchboard, inbox: Inbox, request: Any, frames: list[bytes] = frames
        ) -> bytes:
            frames.append(opened(board, inbox, request))
            return frames[-1]

        Switchboard._opened = spy  # type: ignore[method-assign, assignment]
        await talk.turn()
        Switchboard._opened = opened  # type: ignore[method-assign]
        host.upstream = counting._inner
        sizes[variant] = len(frames[-1]) if frames else counting.num_bytes
    return sizes


def spread(values: list[float]) -> dict[str, int]:
    cuts = statistics.quantiles(values, n=10)
    return {
        "median": round(statistics.median(values)),
        "p10": round(cuts[0]),
        "p90": round(cuts[-1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--turns", type=int, default=60, help="turns of each variant")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        asyncio.run(serve(given.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        pem = certificate(Path(folder))
        stub = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(pem)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert stub.stdout is not None
        assert stub.stdin is not None
        try:
            where = json.loads(stub.stdout.readline())
            figures = asyncio.run(measure(where, pem, given.turns))
        finally:
            stub.stdin.close()
            stub.wait()
    alone = asyncio.run(making())
    figures["making a body alone, cpu_us"] = alone
    print(json.dumps({"turns": given.turns, "tokens": NUM_TOKENS, "variants": figures}, indent=1))


if __name__ == "__main__":
    main()
