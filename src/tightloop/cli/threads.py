"""``tightloop threads list|remove|gc``: the conversations that ``--resume`` and ``--fork`` can go on with."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tightloop.agent.terminal.printable import printable
from tightloop.cli.option_values import positive
from tightloop.harness.backend import UsageError
from tightloop.trace.clock import unix_s
from tightloop.trace.log import state_directory

if TYPE_CHECKING:
    from tightloop.harness.listing import Summary

HELP = "list the conversations that can go on, remove old ones"

DONE, FAILED, BAD_USAGE = 0, 1, 2
_SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the three things that can be done."""
    actions = parser.add_subparsers(dest="action", metavar="WHAT", required=True)
    shown = actions.add_parser(
        "list",
        help="what there is",
        description="List the conversations about this directory, the newest first.",
        epilog="Go on with one by 'tightloop exec --resume ID PROMPT'; the beginning of an id will do.",
    )
    shown.add_argument("--all", action="store_true", help="about any directory")
    shown.add_argument("--repo", type=Path, default=Path(), metavar="DIR", help="(default: .)")
    shown.add_argument(
        "--limit", type=positive, default=_SHOWN, metavar="N", help=f"at most (default: {_SHOWN})"
    )
    remove = actions.add_parser(
        "remove",
        help="remove some",
        description="Remove conversations, with work of theirs that was not applied.",
    )
    remove.add_argument("ids", nargs="+", metavar="ID")
    gc = actions.add_parser(
        "gc",
        help="remove what is old or too much",
        description="Remove conversations that have not been used for long, and the oldest beyond a"
        " number. The same happens by itself, with the defaults, whenever a conversation ends.",
    )
    gc.add_argument(
        "--max-age", type=positive, default=60, metavar="DAYS", help="unused for (default: 60)"
    )
    gc.add_argument("--keep", type=positive, default=200, metavar="N", help="(default: 200)")
    gc.add_argument("--all", action="store_true", help="every one that is not open")
    for child in (shown, remove, gc):
        child.add_argument("--json", action="store_true", help="print one JSON object")
        child.add_argument("--state-dir", type=Path, metavar="DIR", help="where they are kept")


def run(arguments: argparse.Namespace) -> int:
    """0 done, 1 something could not be removed, 2 bad usage."""
    state_dir = Path(os.path.realpath(arguments.state_dir or state_directory()))
    actions = {"list": _list, "remove": _remove, "gc": _gc}
    try:
        return actions[arguments.action](arguments, state_dir)
    except UsageError as error:
        return _fail(str(error), BAD_USAGE)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), BAD_USAGE)


def _fail(message: str, status: int) -> int:
    print(f"tightloop threads: {printable(message)}", file=sys.stderr)
    return status


def _list(arguments: argparse.Namespace, state_dir: Path) -> int:
    from tightloop.harness.listing import list_past

    about = None if arguments.all else arguments.repo
    found = list_past(state_dir, about, arguments.limit)
    if arguments.json:
        print(orjson.dumps({"threads": [_row(one) for one in found]}).decode())
    elif found:
        _print_table(found, has_repository=arguments.all)
    elif arguments.all:
        print(f"no conversation is kept in {state_dir}")
    else:
        place = os.path.realpath(arguments.repo)
        print(f"no conversation about {printable(place)} is kept; --all shows those about others")
    return DONE


def _row(one: "Summary") -> dict[str, Any]:
    return {
        "thread_id": one.id,
        "repository": str(one.repository),
        "model": one.model,
        "started": one.started,
        "last_used_s": one.used_s,
        "title": one.title,
        "num_turns": one.num_turns,
        "unapplied": list(one.changed),
        "is_open": one.is_open,
    }


def _print_table(found: "Sequence[Summary]", *, has_repository: bool) -> None:
    now_s = unix_s()
    lines = [("ID", "USED", "TURNS", "UNAPPLIED", "", "TITLE")]
    for one in found:
        title = printable(one.title) or "(nothing was said)"
        if has_repository:
            title = f"{printable(str(one.repository))}: {title}"
        num_files = f"{len(one.changed)} file{'' if len(one.changed) == 1 else 's'}"
        lines.append(
            (
                *(one.id[:8], f"{_age(now_s - one.used_s)} ago", str(one.num_turns)),
                *(num_files if one.changed else "-", "open" if one.is_open else "", title),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    columns = [column for column in range(5) if widths[column]]  # nothing may be open
    for line in lines:
        cells = [line[column].ljust(widths[column]) for column in columns]
        print("  ".join([*cells, line[5]]))


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def _remove(arguments: argparse.Namespace, state_dir: Path) -> int:
    from tightloop.harness.expiry import remove
    from tightloop.harness.past import find

    ids = [find(state_dir, one).stem for one in arguments.ids]  # all are known before one goes
    kept = [one for one in ids if not remove(state_dir, one)]
    removed = [one for one in ids if one not in kept]
    if arguments.json:
        print(orjson.dumps({"removed": removed, "open": kept}).decode())
    else:
        print(f"removed {len(removed)}")
    if kept:
        return _fail(f"open in another process, so it stays: {', '.join(kept)}", FAILED)
    return DONE


def _gc(arguments: argparse.Namespace, state_dir: Path) -> int:
    from tightloop.harness.expiry import Limits, collect

    limits = Limits(arguments.max_age * 86400.0, arguments.keep)
    removed = collect(state_dir, Limits(num_kept=0) if arguments.all else limits)
    if arguments.json:
        print(orjson.dumps({"removed": removed}).decode())
    else:
        print(f"removed {len(removed)}")
    return DONE
