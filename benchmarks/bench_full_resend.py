"""What a turn costs the server whose client sends its whole conversation again: one JSON object.

Clients that keep the conversation themselves, over the Responses API, Chat Completions and Anthropic
Messages, each on one kept connection; beside them a client that sends only what is new
(``previous_response_id``, ``store: true`` and no disk). Every turn adds one message of 4 kB. Measured
per turn: time from the first byte sent to the first token's event, and CPU of the server's threads.

Engines: ``scripted`` answers at once and reads nothing: what is left is transport, decoding and looking
for what is known. ``tokens`` is a token engine with the real chat family and the tokeniser of a model
file, whose network costs nothing: rendering and tokenising are added.

With ``--against SRC`` a second server runs the package in another source tree, such as a checkout of an
older version; turns of both are interleaved. Usage: ``python benchmarks/bench_full_resend.py
[--against /path/to/src] [--engine tokens] [--turns 30]``.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZES = {"1k": 18_800, "10k": 53_000, "50k": 209_000, "200k": 789_000}
"""Nominal tokens and bytes of JSON; coding-agent histories measure about 4 bytes a token."""

DIALECTS = ("responses", "chat", "messages", "incremental")
NUM_WARMUP = 4
NEW_BYTES = 4096
NUM_TOOLS = 10


# ---------------------------------------------------------------------- the server's process


async def serve(kind: str, model_file: str) -> None:
    """Serve on a free port, whose URL is printed, until SIGTERM."""
    from tightloop.engine.interface import Engine
    from tightloop.engine.scripted import ScriptedEngine, text_answer
    from tightloop.governance.keys import KeyRing
    from tightloop.server.access import Access
    from tightloop.server.app import Server
    from tightloop.server.endpoint import Endpoint

    engine: Engine
    if kind == "scripted":
        engine = ScriptedEngine(lambda _request: text_answer("ok"), name="m")
    else:
        engine = token_engine(model_file)
    server = Server(Endpoint(engine), Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    print(server.url, flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    await server.stop(grace_s=0)


def token_engine(model_file: str) -> Any:
    """The chat family over a file's tokeniser and a network that says ``ok`` and stops."""
    from tightloop.engine.families.chat import ChatFamily
    from tightloop.engine.llama_cpp.backend import LlamaCppBackend
    from tightloop.engine.scripted_backend import ScriptedBackend
    from tightloop.engine.token_engine import TokenEngine

    def load() -> Any:
        real = LlamaCppBackend(model_file, num_context=512, num_sequences=1)
        word, end = real.tokenize("ok", special=False)[0], min(real.eos_tokens)

        class Tokens(ScriptedBackend):
            num_vocab = real.num_vocab
            eos_tokens = real.eos_tokens

            def tokenize(self, text: str, *, special: bool) -> list[int]:
                return real.tokenize(text, special=special)

            def token_bytes(self, token: int) -> bytes:
                return real.token_bytes(token)

        return Tokens(
            lambda held: end if held[-1] == word else word,
            context_window=1 << 20,
            num_cells=1 << 23,
            num_sequences=32,
            metadata={"tokenizer.ggml.model": "gpt2"},
        )

    return TokenEngine(load, ChatFamily, name="m")


# ---------------------------------------------------------------------- the client


class Talk:
    """One conversation on one connection, in one dialect."""

    def __init__(self, url: str, dialect: str, num_bytes: int, name: str) -> None:
        self.dialect = dialect
        self._host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        self._peer = socket.create_connection((self._host, int(port)))
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._source = Path(argparse.__file__).read_text()
        self._number = 0
        self._parent: str | None = None
        self._elements = [self._user(f"{name}: fix the failing test")]
        while len(json.dumps(self._elements)) < num_bytes:
            self._elements += [self._assistant("looking"), self._user(self._text())]

    def turn(self) -> tuple[float, int]:
        """Seconds to the first token of one more turn, and the size of what was sent."""
        from tightloop.trace import clock

        path, body = self._request()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        begun = clock.now_ns()
        self._peer.sendall(head + body)
        seen, first = b"", 0
        while not seen.endswith(b"0\r\n\r\n"):
            piece = self._peer.recv(1 << 16)
            if not piece:
                raise SystemExit(f"the server closed: {seen[-300:]!r}")
            seen += piece
            if not first and (b'delta":"ok"' in seen or b'"ok"' in seen):
                first = clock.now_ns()
        if not first:
            raise SystemExit(f"no token in {seen[-500:]!r}")
        if self.dialect == "incremental":
            self._parent = seen.split(b'"id":"', 1)[1].split(b'"', 1)[0].decode()
        self._elements += [self._assistant("ok"), self._user(self._text())]
        return (first - begun) / 1e9, len(body)

    def _request(self) -> tuple[str, bytes]:
        fields: dict[str, Any] = {"model": "m", "stream": True}
        if self.dialect in ("responses", "incremental"):
            path, field, fields["tools"] = "/v1/responses", "input", tools("parameters")
            fields["store"] = self.dialect == "incremental"
        elif self.dialect == "chat":
            path, field = "/v1/chat/completions", "messages"
            named = [{"type": "function", "function": tool} for tool in tools("parameters")]
            fields["tools"] = named
        else:
            path, field, fields["tools"] = "/v1/messages", "messages", tools("input_schema")
            fields["max_tokens"] = 1000
        elements = self._elements
        if self._parent is not None:
            fields["previous_response_id"] = self._parent
            elements = elements[-1:]
        model = fields.pop("model")
        whole = {"model": model, field: elements, **fields}
        return path, json.dumps(whole, separators=(",", ":")).encode()

    def _text(self) -> str:
        self._number += 1
        start = self._number * 1009 % (len(self._source) - NEW_BYTES)
        return f"{self._number}\n" + self._source[start : start + NEW_BYTES]

    def _user(self, text: str) -> dict[str, Any]:
        return {"role": "user", "content": text}

    def _assistant(self, text: str) -> dict[str, Any]:
        return {"role": "assistant", "content": text}


def tools(schema: str) -> list[dict[str, Any]]:
    """Ten tools, about 1 kB each."""
    fields = {"type": "object", "properties": {"cmd": {"type": "string"}}}
    text = "run one command in the workspace " * 25
    found = []
    for number in range(NUM_TOOLS):
        tool = {"name": f"tool_{number}", "description": text, schema: fields}
        found.append({"type": "function", **tool} if schema == "parameters" else tool)
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of every thread of a process, by scheduler accounting."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            total += int((thread / "schedstat").read_text().split()[0])
    return total


@contextlib.contextmanager
def running(source: str, engine: str, model_file: str) -> Iterator[tuple[int, str]]:
    """A server of the package in ``source``: its process id and URL."""
    command = [sys.executable, __file__, "--serve", "--engine", engine, "--model", model_file]
    environment = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.terminate()


def measure(
    servers: dict[str, tuple[int, str]], size: int, num_turns: int, dialects: list[str]
) -> dict[str, Any]:
    """Each dialect against each server at one size of history, turns interleaved."""
    talks = {
        (version, dialect): Talk(url, dialect, size, f"{version} {dialect} {size}")
        for version, (_, url) in servers.items()
        for dialect in dialects
    }
    times: dict[tuple[str, str], list[tuple[float, int]]] = {key: [] for key in talks}
    num_bytes = {}
    for number in range(NUM_WARMUP + num_turns):
        order = random.sample(list(talks), len(talks))
        for key in order:
            pid = servers[key[0]][0]
            before = cpu_ns(pid)
            ttft_s, num_bytes[key] = talks[key].turn()
            if number >= NUM_WARMUP:
                times[key].append((ttft_s, cpu_ns(pid) - before))
    return {
        dialect: {
            version: {
                "ttft_us": spread([ttft_s * 1e6 for ttft_s, _ in times[version, dialect]]),
                "server_cpu_us": spread([cpu / 1e3 for _, cpu in times[version, dialect]]),
                "request_bytes": num_bytes[version, dialect],
            }
            for version in servers
        }
        for dialect in dialects
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and 90th percentile."""
    return {
        "median": round(statistics.median(values)),
        "p90": round(sorted(values)[int(0.9 * len(values))]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--against", help="a source tree of another version")
    parser.add_argument("--engine", choices=["scripted", "tokens"], default="scripted")
    parser.add_argument("--model", default="", help="a model file, for its tokeniser")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--dialects", nargs="*", default=list(DIALECTS), choices=DIALECTS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    own = Path(__file__).parent.parent / "src"
    model_file = arguments.model or str(own / "tightloop/models/patchling.gguf")
    if arguments.serve:
        asyncio.run(serve(arguments.engine, model_file))
        return
    sources = {"now": str(own)}
    if arguments.against:
        sources["before"] = arguments.against
    results = {}
    for size in arguments.sizes:  # new servers for each, so that none remembers the others
        with contextlib.ExitStack() as stack:
            servers = {
                version: stack.enter_context(running(source, arguments.engine, model_file))
                for version, source in sources.items()
            }
            results[size] = measure(servers, SIZES[size], arguments.turns, arguments.dialects)
    print(json.dumps({"engine": arguments.engine, "turns": arguments.turns, "results": results}))


if __name__ == "__main__":
    main()
