"""The measured server, a process of its own: tightloop's, mostly with an engine that needs no model.

Prints one JSON line with its URL and ends with its standard input. With ``--certificate`` it
listens with TLS, through ``TlsFront`` in the same event loop, because tightloop's server speaks
plain HTTP and leaves TLS to whatever stands in front of it.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.net import namespaces
from benchmarks.net.tls_front import TlsFront
from tightloop.engine.interface import Engine, GenerationRequest, ModelInfo
from tightloop.engine.paced import PacedEngine
from tightloop.engine.registry import create_engine
from tightloop.engine.script_file import load_script
from tightloop.engine.scripted import Answer, ScriptedEngine, call_answer
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store


def answer(_request: GenerationRequest) -> Answer:
    """A short tool call, whatever was asked: its cost does not depend on the history."""
    return call_answer("exec_command", {"cmd": "python -m pytest -q"}, "call_next")


class AnsweringEngine(ScriptedEngine):
    """Says that it reads outputs early, so that clients send them: the bytes are what is measured."""

    def models(self) -> Sequence[ModelInfo]:
        """See ``Engine.models``."""
        return [replace(model, prefills_early=True) for model in super().models()]


def make_engine(script: Path | None, tokens_per_s: float | None, model: str | None) -> Engine:
    """At once the same short call, or a script at a rate, or a real model."""
    if model is not None:
        return create_engine(model)
    if script is None:
        return AnsweringEngine(answer)
    played = load_script(script)
    return PacedEngine(played, tokens_per_s) if tokens_per_s else ScriptedEngine(played)


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    engine = make_engine(arguments.script, arguments.tokens_per_s, arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(engine, Store(Path(folder) / "responses.sqlite3"))
        server = Server(endpoint, Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
        url = await server.start()
        front: TlsFront | None = None
        if arguments.certificate is not None:
            port = int(url.removesuffix("/v1").rpartition(":")[2])
            front = TlsFront(
                arguments.host,
                port,
                arguments.certificate,
                arguments.key,
                arguments.congestion_control,
            )
            await front.start()
            url = f"https://{arguments.host}:{front.port}/v1"
        gc.collect()
        gc.freeze()  # as ``tightloop serve`` does
        print(json.dumps({"url": url}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        if front is not None:
            await front.stop()
        await server.stop(grace_s=0)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--congestion-control", default="")
    parser.add_argument("--keep-window", action="store_true", help="no slow start after idling")
    parser.add_argument("--script", type=Path)
    parser.add_argument("--tokens-per-s", type=float)
    parser.add_argument("--model", help="a GGUF file")
    arguments = parser.parse_args()
    namespaces.end_with_parent()
    if arguments.keep_window:
        namespaces.set_ipv4("tcp_slow_start_after_idle", "0")
    asyncio.run(serve(arguments))


if __name__ == "__main__":
    main()
