"""``tightloop doctor``: what this machine allows a sandbox to do, and how to allow what is missing.

Every line was found out by trying. The end is 0 when the configured policy can be kept.
"""

import argparse
import asyncio
import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import orjson

from tightloop.agent.terminal.printable import printable
from tightloop.trace.log import state_directory

if TYPE_CHECKING:
    from tightloop.sandbox.policies import NamedPolicy
    from tightloop.sandbox.probes import Check

HELP = "try what this machine allows a sandbox to do, and name the fix for what it does not"

MET, NOT_MET, BAD_CONFIG = 0, 1, 2
_NAME_WIDTH = 24
_STATUS_WIDTH = 7


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    add = parser.add_argument
    add("--policy", metavar="NAME", help="policy to check (default: the configuration's)")
    add("--config", type=Path, metavar="FILE", help="configuration (default: see docs/sandbox.md)")
    add("--state-dir", type=Path, metavar="DIR", help="where workspaces would be kept")
    add("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """0 when the configured policy can be kept, 1 when not, 2 for a wrong configuration."""
    from tightloop.sandbox.policies import PolicyError, load_policy

    try:
        policy = load_policy(arguments.policy, arguments.config)
    except PolicyError as error:
        if arguments.json:
            _print_json({"error": str(error), "is_met": False})
        print(f"tightloop doctor: {printable(str(error))}", file=sys.stderr)
        return BAD_CONFIG
    state_dir = (arguments.state_dir or state_directory()).absolute()
    return asyncio.run(_examine(policy, state_dir, is_json=arguments.json))


async def _examine(policy: "NamedPolicy", state_dir: Path, *, is_json: bool) -> int:
    from tightloop.sandbox.probes import Status, examine

    checks: list[Check] = []
    trying = Trying(sys.stderr)
    async for check in examine(policy, state_dir, trying.show):
        checks.append(check)
        trying.clear()
        if not is_json:
            print(row(check, _width()), flush=True)
    is_met = all(check.status is not Status.FAIL for check in checks)
    if is_json:
        _print_json(
            {"policy": policy.name, "is_met": is_met, "checks": [asdict(one) for one in checks]}
        )
    else:
        print(_verdict(policy.name, is_met, checks))
    return MET if is_met else NOT_MET


class Trying:
    """What is being tried, on a terminal, until the next line takes its place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_shown = False

    def show(self, name: str) -> None:
        """This takes a while."""
        if self._stream.isatty():
            self._is_shown = True
            print(f"\r\x1b[Ktrying: {name} ...", end="", file=self._stream, flush=True)

    def clear(self) -> None:
        """The line is empty again."""
        if self._is_shown:
            self._is_shown = False
            print("\r\x1b[K", end="", file=self._stream, flush=True)


def row(check: "Check", width: int) -> str:
    """One line of the table, wrapped under its own column; the fix below it."""
    indent = " " * (_STATUS_WIDTH + _NAME_WIDTH)
    lines = _wrapped(check.seen, "", width - len(indent))
    if check.fix:
        lines += _wrapped(check.fix, "fix: ", width - len(indent))
    head = f"{check.status:<{_STATUS_WIDTH}}{check.name:<{_NAME_WIDTH}}"
    return head + f"\n{indent}".join(lines)


def _wrapped(text: str, label: str, width: int) -> list[str]:
    clean = label + printable(" ".join(text.split()))
    return textwrap.wrap(
        clean, max(width, 20), break_on_hyphens=False, subsequent_indent=" " * len(label)
    )


def _verdict(policy: str, is_met: bool, checks: "list[Check]") -> str:
    num_fixes = sum(bool(check.fix) for check in checks)
    if not is_met:
        return f"\npolicy {policy} cannot be kept on this machine: see the lines marked FAIL"
    rest = f"; {num_fixes} lines name something that could be better" if num_fixes else ""
    return f"\npolicy {policy} can be kept on this machine{rest}"


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def _print_json(report: dict[str, object]) -> None:
    print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
