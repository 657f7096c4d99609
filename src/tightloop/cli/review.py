"""``tightloop review [TARGET]``: a model reads a change and says what is wrong with it; nothing is written.

Standard output carries the findings, one after the other, or with ``--json`` one JSON object; everything
else for a person goes to standard error.
"""

import argparse
import asyncio
import logging
import sys
from dataclasses import replace

import msgspec

from tightloop.agent.turn import Status
from tightloop.cli.outcome import BAD_USAGE, DONE, FAILED, INTERRUPTED, Report
from tightloop.cli.thread_options import add_thread_options, thread_settings
from tightloop.harness.backend import UsageError
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.policies import PolicyError
from tightloop.trace.log import state_directory

HELP = "let a model look for faults in a change, without changing anything"
_SEVERITIES = ("error", "warning", "note")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    add = parser.add_argument
    add(
        "target",
        nargs="?",
        default="uncommitted",
        help="uncommitted (default), branch[:BASE] (what HEAD has since it left BASE), commit:NAME",
    )
    add("--focus", default="", metavar="TEXT", help="what to look at in particular")
    add("--json", action="store_true", help="print one JSON object")
    add(
        "--fail-on",
        choices=_SEVERITIES,
        metavar="SEVERITY",
        help="end with 1 if there is a finding as bad as this: error, warning or note",
    )
    add_thread_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb: 0 done, 1 failed or found what ``--fail-on`` names, 2 cannot start, 130 interrupted."""
    report = Report(is_json=False)
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    try:
        if arguments.repo is not None and not arguments.repo.is_dir():
            raise UsageError(f"--repo: {str(arguments.repo)!r} is not a directory")
        from tightloop.sandbox import own_namespace

        own_namespace.enter(arguments.state_dir or state_directory())
        return asyncio.run(_run(arguments, report))
    except (UsageError, SandboxError, PolicyError, ValueError) as error:
        print(f"tightloop review: {error}", file=sys.stderr)
        return BAD_USAGE
    except OSError as error:
        print(f"tightloop review: {error.strerror or error}", file=sys.stderr)
        return BAD_USAGE
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("tightloop review: interrupted", file=sys.stderr)
        return INTERRUPTED


async def _run(arguments: argparse.Namespace, report: Report) -> int:
    from tightloop.harness.review import (
        SEVERITIES,
        review_as_json,
        review_lines,
        review_thread,
    )
    from tightloop.harness.reviewed import SESSION, ReviewTarget
    from tightloop.harness.thread import open_thread

    target = ReviewTarget.parse(arguments.target)
    if target.kind == SESSION:
        raise ValueError("a session is reviewed in its own conversation, by /review")
    settings = replace(thread_settings(arguments, verb="review"), speculates=False)
    async with open_thread(settings, report, log_labels={"review": arguments.target}) as thread:
        review = await review_thread(thread, target, report.listen, request=arguments.focus)
        thread.log.write("review", review=review_as_json(review))
    if arguments.json:
        report.write(msgspec.json.encode(review_as_json(review)) + b"\n")
    else:
        report.write("".join(f"{line}\n" for line in review_lines(review)).encode())
    if review.result.status is not Status.COMPLETED:
        return FAILED
    worst = SEVERITIES.index(arguments.fail_on) if arguments.fail_on else -1
    found = any(SEVERITIES.index(one.severity) <= worst for one in review.findings)
    return FAILED if found else DONE
