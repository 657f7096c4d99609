"""``tightloop demo``: fix held-out bugs over both paths and show where the time went."""

import argparse
import asyncio
import signal
import sys

import orjson
from rich.console import Console

from tightloop.bench.bugs import BenchError, Bug, choose, load_bugs
from tightloop.bench.demo import DemoResult, run_demo
from tightloop.bench.demo_view import heading, pair_line, print_report
from tightloop.bench.paths import FixRun
from tightloop.sandbox.interface import SandboxError
from tightloop.trace.latency import RoundTrip
from tightloop.trace.log import RunLog, new_log_path, state_directory

HELP = "fix real bugs with the bundled network: classic path against tight path"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "--bugs", type=int, default=10, metavar="N", help="how many bugs (default 10)"
    )
    parser.add_argument("--seed", type=int, default=1, help="which bugs are drawn (default 1)")
    parser.add_argument(
        "--json", action="store_true", help="last line of output: one JSON object with all medians"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo. 0 when it ran, whatever was fixed; 2 when it could not run."""
    console = Console(stderr=arguments.json, highlight=False)
    known = load_bugs()
    if not 1 <= arguments.bugs <= len(known):
        print(
            f"tightloop demo: --bugs must be from 1 to {len(known)}, got {arguments.bugs}",
            file=sys.stderr,
        )
        return 2
    bugs = choose(known, arguments.bugs, arguments.seed)
    from tightloop.sandbox import own_namespace

    try:
        # Before the loop and its threads: an ordinary user's workspace is an overlay then, too.
        own_namespace.enter(state_directory())
        result = asyncio.run(_run(bugs, arguments.seed, console))
    except (SandboxError, BenchError) as error:
        print(f"tightloop demo: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"tightloop demo: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except asyncio.CancelledError:
        print("tightloop demo: interrupted", file=sys.stderr)
        return 130
    print_report(console, result)
    if arguments.json:
        print(orjson.dumps(result.as_dict()).decode())
    return 0


async def _run(bugs: list[Bug], seed: int, console: Console) -> DemoResult:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # as with Ctrl-C, leave nothing behind
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    log = RunLog(new_log_path(state_directory(), "demo"), verb="demo", seed=seed)
    runs: dict[str, FixRun] = {}
    with console.status("starting the server and the sandbox") as status:

        def on_ready(result: DemoResult) -> None:
            console.print(heading(result))
            console.print(
                f"bugs       {len(bugs)} held-out ones, seed {seed}; every fix is checked cold\n"
            )

        def on_progress(path: str, number: int, bug: Bug, run: FixRun | None) -> None:
            if run is None:
                status.update(f"{number + 1}/{len(bugs)} {bug.id} over the {path} path")
                return
            runs[path] = run
            _log_run(log, run)
            if len(runs) == 2:
                console.print(pair_line(number, len(bugs), runs["classic"], runs["tight"]))
                runs.clear()

        try:
            result = await run_demo(bugs, "patchling", on_progress, on_ready)
        finally:
            log.close()
    console.print(f"\nlog: {log.path}", style="dim", soft_wrap=True)
    return result


def _log_run(log: RunLog, run: FixRun) -> None:
    trips: list[RoundTrip] = run.turn.round_trips
    log.write(
        "fix", path=run.path, bug=run.bug.id, is_fixed=run.is_fixed, setup_s=run.setup_s,
        wall_s=run.turn.wall_s, status=run.turn.status.value, text=run.turn.text,
        ledger=run.ledger, round_trips=trips, spans=run.turn.spans,
    )  # fmt: skip
