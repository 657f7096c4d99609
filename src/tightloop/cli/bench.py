"""``tightloop bench turn``: measure follow-up turns against any OpenAI-compatible endpoint."""

import argparse
import asyncio
import ipaddress
import os
import sys
from urllib.parse import urlsplit

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tightloop.bench.bugs import BenchError
from tightloop.bench.turn import VARIANTS, Plan, TurnResult, first_model, run_turns, size_name
from tightloop.bench.turn_view import as_dict, print_report

HELP = "measure the follow-up turns of any OpenAI-compatible endpoint"

FAILED, BAD_USAGE = 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what can be measured: so far one thing."""
    experiments = parser.add_subparsers(dest="experiment", metavar="WHAT", required=True)
    turn = experiments.add_parser(
        "turn",
        help="time to first token of follow-up turns, by transport and size of history",
        description="Measure the follow-up turns of an agent loop: after a history, one tool output"
        " of 4 kB each, over every transport that the endpoint has, in random order.",
    )
    _configure_turn(turn)


def _configure_turn(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    default = "http://127.0.0.1:8099/v1"
    add("--url", type=_url, default=default, help=f"the endpoint's API (default {default})")
    add("--model", metavar="M", help="default: the first that the endpoint lists")
    add("--api", choices=("responses", "chat"), default="responses", help="default responses")
    add(
        "--transport",
        choices=(*VARIANTS, "all"),
        default="all",
        help="http-new opens a connection per turn (default: all that the endpoint has)",
    )
    add(
        "--history",
        type=_sizes,
        default=(1_000, 10_000, 50_000),
        metavar="N,...",
        help="tokens at four bytes each (default 1k,10k,50k)",
    )
    add("--rounds", type=_positive, default=10, metavar="N", help="turns per row (default 10)")
    add("--seed", type=int, default=1, metavar="N", help="of the order (default 1)")
    add(
        "--max-output-tokens", type=_positive, default=128, metavar="N", help="a turn (default 128)"
    )
    add(
        "--api-key-env",
        default="TIGHTLOOP_API_KEY",
        metavar="NAME",
        help="variable with the key (default TIGHTLOOP_API_KEY)",
    )
    add("--yes", action="store_true", help="go on although a host that is not this one may charge")
    add("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """0 measured, 1 more than half of the requests failed, 2 cannot start."""
    progress = Console(stderr=True, highlight=False)
    try:
        result = asyncio.run(_measure(arguments, progress))
    except BenchError as error:
        print(f"tightloop bench: {error}", file=sys.stderr)
        return BAD_USAGE
    if arguments.json:
        print(orjson.dumps(as_dict(result)).decode())
    else:
        print_report(Console(highlight=False), result)
    if result.is_mostly_failed:
        counts = f"{result.num_failed} of {result.num_requests}"
        print(f"tightloop bench: {counts} requests failed", file=sys.stderr)
        return FAILED
    return 0


async def _measure(arguments: argparse.Namespace, console: Console) -> TurnResult:
    variants: tuple[str, ...] = VARIANTS if arguments.transport == "all" else (arguments.transport,)
    if arguments.api == "chat":
        variants = tuple(name for name in variants if name != "ws")
        if not variants:
            raise BenchError("--transport ws: Chat Completions has no WebSocket; use http")
    key = os.environ.get(arguments.api_key_env)
    plan = Plan(
        url=arguments.url,
        model=arguments.model or await first_model(arguments.url, key),
        api=arguments.api,
        variants=variants,
        histories=arguments.history,
        rounds=arguments.rounds,
        seed=arguments.seed,
        run_mark=os.urandom(8).hex(),
        max_output_tokens=arguments.max_output_tokens,
        api_key=key,
    )
    if not _is_loopback(plan.url):
        _ask_for_consent(plan, console, is_given=arguments.yes)
    return await _with_progress(plan, console)


def _ask_for_consent(plan: Plan, console: Console, *, is_given: bool) -> None:
    cost = (
        f"up to {plan.num_requests} requests with about {plan.num_input_tokens / 1e6:.2g} M input"
        f" tokens in all go to {plan.url}"
    )
    if not is_given:
        raise BenchError(
            f"{cost}; its owner may charge for them. Add --yes to go on, or lower --rounds and"
            " --history"
        )
    console.print(cost, soft_wrap=True)


async def _with_progress(plan: Plan, console: Console) -> TurnResult:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Drawn between requests only: a drawing thread would run during the turns that are measured.
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("connecting", total=plan.num_requests)
        last_size = 0

        def on_progress(name: str, size: int, done: int) -> None:
            nonlocal last_size
            text = f"{size_name(size)} of history"
            total = max(done, plan.num_requests)
            bar.update(task, description=f"{text}, {name}", completed=done, total=total)
            if console.is_terminal:
                bar.refresh()
            elif size != last_size:
                console.print(f"{text}: request {done} of {total}")
            last_size = size

        return await run_turns(plan, on_progress)


def _is_loopback(url: str) -> bool:
    """Whether the URL's host is this one, by its name or address alone."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(text: str) -> str:
    """The API's root: ``ws`` is mapped to ``http``, a missing path becomes ``/v1``."""
    scheme, separator, rest = text.rstrip("/").partition("://")
    names = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
    if not separator or scheme not in names or not rest:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http or ws URL")
    return f"{names[scheme]}://{rest}" + ("" if "/" in rest else "/v1")


def _sizes(text: str) -> tuple[int, ...]:
    """Sizes like ``1k,50k,800``, each once, in the order given."""
    return tuple(dict.fromkeys(_size(part.strip()) for part in text.split(",")))


def _size(text: str) -> int:
    digits = text.lower().removesuffix("k")
    factor = 1000 if digits != text.lower() else 1
    if not digits.isascii() or not digits.isdigit() or not 1 <= int(digits) * factor <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no size from 1 to 1000k")
    return int(digits) * factor


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)
