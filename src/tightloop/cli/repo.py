"""``tightloop repo preload|list|gc``: what is kept ready so that a run need not wait for it."""

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from tightloop.cli.option_values import positive, size_bytes
from tightloop.sandbox.interface import SandboxError
from tightloop.trace.clock import now_ns, unix_s
from tightloop.trace.log import state_directory

HELP = "keep repositories ready: make their bases and environments, list them, remove old ones"

DONE, FAILED, BAD_USAGE = 0, 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the three things that can be done."""
    actions = parser.add_subparsers(dest="action", metavar="WHAT", required=True)
    preload = actions.add_parser(
        "preload",
        help="make a repository's base and run its set-up",
        description="Make what workspaces of a repository are laid over: a base of its present"
        " state, and what the set-up commands of its .tightloop.toml leave. They run in a sandbox,"
        " with network; nothing that runs later has any.",
        epilog="See docs/workspaces.md for .tightloop.toml.",
    )
    _configure_preload(preload)
    shown = actions.add_parser(
        "list", help="what there is", description="List bases and environments, last used first."
    )
    gc = actions.add_parser(
        "gc",
        help="remove what is old or too much",
        description="Remove bases and environments that no workspace uses: expired ones, those"
        " beyond the limits, and those of repositories that are gone.",
    )
    _configure_gc(gc)
    for child in (preload, shown, gc):
        child.add_argument("--json", action="store_true", help="print one JSON object")
        child.add_argument("--state-dir", type=Path, metavar="DIR", help="where they are kept")


def _configure_preload(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("repository", nargs="?", type=Path, default=Path(), metavar="DIR", help="(default: .)")
    add("--commit", metavar="REV", help="the base of this commit instead, without a set-up")
    add(
        "--setup",
        action="append",
        metavar="COMMAND",
        help="run this instead of what .tightloop.toml says, and remember it for this repository;"
        " may be repeated",
    )
    add("--no-setup", action="store_true", help="run no set-up, and forget a remembered one")
    add(
        "--secret",
        action="append",
        default=[],
        metavar="NAME",
        help="let the set-up see this variable of yours; may be repeated",
    )
    add("--again", action="store_true", help="run the set-up although its result has not expired")
    add("--background", action="store_true", help="return at once; the log says how it went")
    add("--sandbox", metavar="KIND", help="bubblewrap, landlock or none (default: the strongest)")


def _configure_gc(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-age", type=positive, default=14, metavar="DAYS", help="unused for (default: 14)")
    add(
        "--max-size",
        type=size_bytes,
        default=20 * 10**9,
        metavar="SIZE",
        help="of all together (default: 20GB)",
    )
    add("--keep", type=positive, default=8, metavar="N", help="per repository (default: 8)")
    add("--all", action="store_true", help="everything that is not in use")


def run(arguments: argparse.Namespace) -> int:
    """0 done, 1 the set-up failed, 2 bad usage or configuration."""
    from tightloop.sandbox.set_up import SetUpFailed

    state_dir = Path(os.path.realpath(arguments.state_dir or state_directory()))
    actions = {"preload": _preload, "list": _list, "gc": _gc}
    try:
        return actions[arguments.action](arguments, state_dir)
    except SetUpFailed as error:
        return _fail(str(error), FAILED)
    except SandboxError as error:
        return _fail(str(error), BAD_USAGE)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), BAD_USAGE)


def _fail(message: str, status: int) -> int:
    print(f"tightloop repo: {message}", file=sys.stderr)
    return status


# -- preload


def _preload(arguments: argparse.Namespace, state_dir: Path) -> int:
    repository = Path(os.path.realpath(arguments.repository))
    if not repository.is_dir():
        raise SandboxError(f"{str(arguments.repository)!r} is not a directory")
    if not _is_in_git(repository):
        raise SandboxError(
            f"{str(repository)!r} is not a git repository: 'git init' there, or name one"
        )
    if arguments.no_setup and arguments.setup:
        raise SandboxError("--setup and --no-setup contradict each other: give one of them")
    if arguments.commit and (arguments.setup or arguments.secret or arguments.again):
        raise SandboxError("--commit makes a base only: leave the options of the set-up out")
    if arguments.background:
        return _in_background(arguments, repository, state_dir)
    from tightloop.sandbox import own_namespace

    own_namespace.enter(state_dir)
    said = asyncio.run(_make(arguments, repository, state_dir))
    if arguments.json:
        print(orjson.dumps(said).decode())
    return DONE


def _is_in_git(directory: Path) -> bool:
    """Whether it is a work tree or in one; anything else may hold whatever, such as ``/tmp``."""
    return any((place / ".git").exists() for place in (directory, *directory.parents))


async def _make(arguments: argparse.Namespace, repository: Path, state_dir: Path) -> dict[str, Any]:
    from tightloop.sandbox import environments
    from tightloop.sandbox.bases import find_base, make_base, read_record, tree_state
    from tightloop.sandbox.set_up import SetUp, granted

    started_ns = now_ns()
    state = tree_state(repository, exclude=state_dir, commit=arguments.commit)
    found = find_base(state, state_dir / "bases")
    base = found if found is not None else make_base(state, state_dir / "bases")
    record = read_record(base)
    said: dict[str, Any] = {"base": str(base), "base_is_new": found is None}
    if record is not None:
        said |= {"base_bytes": record.size_bytes, "base_files": record.num_files}
    _say(arguments, "base", base.name, found is None, started_ns)
    if arguments.no_setup:
        environments.choose_set_up(repository, state_dir, None)
    elif arguments.setup:
        chosen = _from_options(arguments)
        environments.choose_set_up(repository, state_dir, chosen)
    if arguments.no_setup or arguments.commit:
        return said
    set_up: SetUp | None = environments.chosen_set_up(repository, state_dir)
    if set_up is None:
        return said
    started_ns = now_ns()
    values = granted(set_up, arguments.secret, dict(os.environ))
    made, is_new = await environments.make_environment(
        *(state, base, state_dir, set_up, values),
        is_again=arguments.again,
        isolation=arguments.sandbox,
        on_output=_show,
    )
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    _say(arguments, "environment", made.directory, is_new, started_ns)
    return said | {
        "environment": str(state_dir / "environments" / made.directory),
        "environment_is_new": is_new,
        "environment_bytes": made.size_bytes,
        "environment_files": made.num_files,
        "expires_s": made.expires_s,
    }


def _from_options(arguments: argparse.Namespace) -> Any:
    from tightloop.sandbox.set_up import SetUp

    try:
        return SetUp(commands=tuple(arguments.setup), secrets=tuple(arguments.secret))
    except ValueError as error:
        raise SandboxError(f"--setup: {error}") from error


def _show(piece: bytes) -> None:
    """The set-up's own words; not standard output, which is for results."""
    sys.stderr.buffer.write(piece)
    sys.stderr.buffer.flush()


def _say(
    arguments: argparse.Namespace, kind: str, name: str, is_new: bool, started_ns: int
) -> None:
    if not arguments.json:
        took = f"made in {(now_ns() - started_ns) / 1e9:.2f} s" if is_new else "was there already"
        print(f"{kind} {name[:25]}: {took}", flush=True)


def _in_background(arguments: argparse.Namespace, repository: Path, state_dir: Path) -> int:
    words = ["preload", str(repository), "--state-dir", str(state_dir)]
    for option in ("commit", "sandbox"):
        if value := getattr(arguments, option):
            words += [f"--{option}", value]
    for option in ("setup", "secret"):
        for value in getattr(arguments, option) or ():
            words.append(f"--{option}={value}")
    words += [
        f"--{option.replace('_', '-')}"
        for option in ("no_setup", "again", "json")
        if getattr(arguments, option)
    ]
    log = state_dir / "preload.log"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tightloop", "repo", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    process.returncode = DONE  # it outlives this process, and nobody here waits for it
    if arguments.json:
        print(orjson.dumps({"pid": process.pid, "log": str(log)}).decode())
    else:
        print(f"preloading in process {process.pid}, log: {log}")
    return DONE


# -- list and gc


def _list(arguments: argparse.Namespace, state_dir: Path) -> int:
    from tightloop.sandbox.collecting import holdings

    rows = [_row(holding) for holding in holdings(state_dir)]
    if arguments.json:
        print(orjson.dumps({"holdings": rows}).decode())
        return DONE
    if not rows:
        print(f"nothing is kept in {state_dir}; 'tightloop repo preload' makes a base")
        return DONE
    _print_table(rows)
    return DONE


def _gc(arguments: argparse.Namespace, state_dir: Path) -> int:
    from tightloop.sandbox.collecting import Limits, collect
    from tightloop.sandbox.layouts import empty_trash

    limits = Limits(arguments.max_age * 86400.0, arguments.max_size, arguments.keep)
    if arguments.all:
        limits = Limits(max_bytes=0, num_per_repository=0)
    rows = [_row(holding) for holding in collect(state_dir, limits)]
    empty_trash(state_dir)
    freed = sum(row["bytes"] for row in rows)
    if arguments.json:
        print(orjson.dumps({"removed": rows, "freed_bytes": freed}).decode())
        return DONE
    if rows:
        _print_table(rows)
    print(f"removed {len(rows)}, {_size(freed)}")
    return DONE


def _row(holding: Any) -> dict[str, Any]:
    record = holding.record
    state = record.commit[:12] if record.commit else "no commit"
    if record.num_changed:
        state += f" + {record.num_changed} changed" if record.commit else ""
    return {
        "kind": holding.kind,
        "repository": record.repository,
        "state": state,
        "bytes": record.size_bytes,
        "files": record.num_files,
        "made_s": record.made_s,
        "last_used_s": round(holding.last_used_s),
        "expires_s": record.expires_s or None,
        "in_use": holding.is_used,
        "directory": str(holding.directory),
    }


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    now_s = unix_s()
    lines = [("KIND", "STATE", "SIZE", "FILES", "MADE", "USED", "", "REPOSITORY")]
    for row in rows:
        expires_s = row["expires_s"]
        marks = ["in use"] if row["in_use"] else []
        if expires_s:
            left_s = expires_s - now_s
            marks.append(f"expires in {_age(left_s)}" if left_s > 0 else "expired")
        lines.append(
            (
                *(row["kind"], row["state"], _size(row["bytes"]), str(row["files"])),
                *(_age(now_s - row["made_s"]), _age(now_s - row["last_used_s"])),
                *(", ".join(marks), row["repository"]),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(7)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        print("  ".join([*cells, line[7]]))


def _size(num_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} B"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
