"""``tightloop serve``: models over the Responses API, HTTP and WebSocket on one port.

Everything heavy is imported when it is needed, so that a mistake in the options is told at once.
"""

import argparse
import asyncio
import errno
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tightloop.cli.event_loop import LOOPS
from tightloop.cli.event_loop import run as run_on
from tightloop.cli.option_values import port, positive, size_bytes

if TYPE_CHECKING:
    from tightloop.engine.fleet.plan import FleetPlan
    from tightloop.engine.interface import Engine
    from tightloop.engine.registry import EngineOptions
    from tightloop.server.app import Server

HELP = "serve models over the Responses API, HTTP and WebSocket on one port"

DEFAULT_PORT = 8099
STORE_NAME = "responses.sqlite3"
LOG_LEVELS = ("error", "warning", "info", "debug")


class StartError(Exception):
    """The server cannot start; the text is one line for the person who tried."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    add = parser.add_argument
    add(
        "--model",
        action="append",
        metavar="NAME",
        help="what to serve: patchling (bundled), a .gguf file, hf:OWNER/REPO/FILE@REVISION,"
        " vllm:DIRECTORY, remote:MODEL@URL, scripted, or scripted:SCRIPT.json (default patchling). May be repeated:"
        " each is served under its own name",
    )
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="serve what a TOML file says: models with several backends, tiers, prices, policies",
    )
    add("--check", action="store_true", help="print what --config or --model mean, and end")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add(
        "--port",
        type=port,
        default=DEFAULT_PORT,
        help=f"port to listen on, 0 for any free one (default {DEFAULT_PORT})",
    )
    add(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where stored responses are kept (default: tightloop in the XDG state directory)",
    )
    add(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="accept this key, may be repeated; also TIGHTLOOP_API_KEYS (comma list)."
        " Required unless the address is a loopback one",
    )
    add("--api-key-file", type=Path, metavar="FILE", help="accept the keys in FILE, one a line")
    add("--context", type=positive, metavar="N", help="context window in tokens (local models)")
    add("--threads", type=positive, metavar="N", help="threads for a local model")
    add(
        "--drafts",
        choices=("auto", "off"),
        help="whether a local model checks several guessed tokens in a step where its own figures"
        " say that this is faster; answers are the same but for near-ties, which a step of several tokens may"
        " round the other way (default auto)",
    )
    add(
        "--warm-memory",
        type=size_bytes,
        metavar="SIZE",
        help="what conversations that nobody waits for may take in a local model's context, such as"
        " 2GiB (default: all there is)",
    )
    add(
        "--saved-memory",
        type=size_bytes,
        metavar="SIZE",
        help="what they may take beside it when they have made room, 0 to keep none (default 256MiB)",
    )
    add(
        "--upstream-key-env",
        metavar="NAME",
        help="variable with the key of a remote host (default OPENAI_API_KEY)",
    )
    add(
        "--loop",
        choices=LOOPS,
        default="auto",
        help="event loop: uvloop where it is installed (auto), or which one",
    )
    add("--log", choices=LOG_LEVELS, default="warning", help="what to log (default warning)")
    add("--json-ready", action="store_true", help="print the start line as one JSON object")
    add("--ready-file", type=Path, metavar="FILE", help="write that JSON object to FILE when ready")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM: 0. 2 when the server could not start."""
    if arguments.check:
        return _check(arguments)
    logging.basicConfig(level=arguments.log.upper(), format="%(levelname)s %(name)s: %(message)s")
    try:
        run_on(_serve(arguments), arguments.loop)
    except ImportError as error:
        if error.name != "uvloop":
            raise
        print(
            "tightloop serve: --loop uvloop: the package uvloop is not installed", file=sys.stderr
        )
        return 2
    except StartError as error:
        print(f"tightloop serve: {error}", file=sys.stderr)
        return 2
    return 0


def _check(arguments: argparse.Namespace) -> int:
    """Print what would be served: 0, or 2 with what is wrong."""
    from tightloop.engine.fleet.assembly import table_of
    from tightloop.engine.interface import EngineError

    try:
        print(table_of(_plan(arguments)))
    except (EngineError, StartError) as error:
        print(f"tightloop serve: {error}", file=sys.stderr)
        return 2
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    from tightloop.server.collecting import IdleCollections, without_collections

    store_path = _state_dir(arguments) / STORE_NAME
    with without_collections():
        server = _server(arguments, store_path)
    collections = IdleCollections(lambda: not server.num_running)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # the second one ends the process at once
        if server.num_running:
            print(
                f"ending: {server.num_running} running, waiting {server.grace_s:.0f} s at most;"
                " once more ends it now",
                file=sys.stderr,
                flush=True,
            )

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        with without_collections():
            await _start(server, arguments)
        collections.start()
        _announce(server, arguments, store_path)
        await stop.wait()
    finally:
        collections.stop()
        await server.stop()


def _server(arguments: argparse.Namespace, store_path: Path) -> "Server":
    from tightloop.governance.keys import BadKeyError, load_keys
    from tightloop.server.access import Access

    try:
        keys = load_keys(arguments.api_key, os.environ, arguments.api_key_file)
        access = Access(keys, arguments.host)
    except BadKeyError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"cannot read {arguments.api_key_file}: {error.strerror}") from error
    except ValueError as error:
        raise StartError(str(error)) from error
    engine = _engine(arguments)

    from tightloop.server.app import Server
    from tightloop.server.endpoint import Endpoint
    from tightloop.server.store import Store

    endpoint = Endpoint(engine, Store(store_path))
    return Server(endpoint, access, host=arguments.host, port=arguments.port)


def _engine(arguments: argparse.Namespace) -> "Engine":
    from tightloop.engine.interface import EngineError
    from tightloop.engine.registry import create_engine

    names = _names(arguments)
    try:
        if arguments.config is None and len(names) == 1:
            return create_engine(names[0], _options(arguments))
        from tightloop.engine.fleet.assembly import build_fleet

        return build_fleet(_plan(arguments))
    except EngineError as error:
        raise StartError(str(error)) from error


def _plan(arguments: argparse.Namespace) -> "FleetPlan":
    from tightloop.engine.fleet.plan import plan_of_names, read_plan

    if arguments.config is None:
        return plan_of_names(_names(arguments), _options(arguments))
    given = {
        "--model": arguments.model,
        "--context": arguments.context,
        "--threads": arguments.threads,
        "--drafts": arguments.drafts,
        "--warm-memory": arguments.warm_memory,
        "--saved-memory": arguments.saved_memory,
        "--upstream-key-env": arguments.upstream_key_env,
    }
    for name, value in given.items():
        if value is not None:
            raise StartError(f"{name} does not go with --config; write it into {arguments.config}")
    return read_plan(arguments.config)


def _names(arguments: argparse.Namespace) -> list[str]:
    from tightloop.engine.registry import DEFAULT

    return arguments.model or [DEFAULT]


def _options(arguments: argparse.Namespace) -> "EngineOptions":
    from tightloop.engine.registry import DEFAULT_KEY_ENV, EngineOptions

    return EngineOptions(
        num_context=arguments.context,
        num_threads=arguments.threads,
        has_drafts=arguments.drafts != "off",
        api_key_env=arguments.upstream_key_env or DEFAULT_KEY_ENV,
        warm_bytes=arguments.warm_memory,
        saved_bytes=arguments.saved_memory,
    )


async def _start(server: "Server", arguments: argparse.Namespace) -> None:
    from tightloop.engine.interface import EngineError
    from tightloop.server.store import StoreError

    try:
        await server.start()
    except (EngineError, StoreError) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        place = f"{arguments.host}:{arguments.port}"
        if error.errno == errno.EADDRINUSE:
            text = f"{place} is in use; end the other program or choose another --port"
        else:
            text = f"cannot listen on {place}: {error.strerror or error}"
        raise StartError(text) from error


def _announce(server: "Server", arguments: argparse.Namespace, store_path: Path) -> None:
    """Say that the server is ready: for a person, for a script, or both."""
    ready = json.dumps(
        {
            "url": server.url,
            "model": server.models[0],
            "models": server.models,
            "store": str(store_path),
            "pid": os.getpid(),
        }
    )
    if arguments.ready_file is not None:
        _write_whole(arguments.ready_file, ready + "\n")
    names = ", ".join(server.models)
    line = f"serving {names} at {server.url}, responses kept in {store_path}"
    print(ready if arguments.json_ready else line, flush=True)


def _write_whole(path: Path, text: str) -> None:
    """Whoever sees the file sees all of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        raise StartError(f"cannot write --ready-file {path}: {error.strerror}") from error


def _state_dir(arguments: argparse.Namespace) -> Path:
    if arguments.state_dir is not None:
        chosen: Path = arguments.state_dir
        return chosen
    from tightloop.trace.log import state_directory

    return state_directory()
