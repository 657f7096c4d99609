"""``tightloop exec "PROMPT"``: the agent at work on a private view of a repository, without questions.

The repository is changed only with ``--apply``; otherwise the result is printed as a diff, and
kept as a patch file with the command that applies it. Standard output carries the diff alone, with
``--output-schema`` the last message alone, or with ``--json`` one event a line; everything for a person goes
to standard error.
"""

import argparse
import asyncio
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightloop.agent.terminal.printable import printable
from tightloop.agent.turn import TurnResult
from tightloop.cli.outcome import BAD_USAGE, INTERRUPTED, Outcome, Report
from tightloop.cli.racing_options import add_racing_options, wanted_mode, with_planner
from tightloop.cli.thread_options import add_thread_options, thread_settings
from tightloop.harness.backend import UsageError
from tightloop.harness.settings import Settings
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.policies import PolicyError, load_policy
from tightloop.trace.log import state_directory

if TYPE_CHECKING:
    from tightloop.harness.output_schema import OutputSchema
    from tightloop.harness.past import Past
    from tightloop.harness.racing import modes
    from tightloop.harness.thread import Thread
    from tightloop.protocol.items import Part

HELP = "let the agent work on a repository, without questions"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    add = parser.add_argument
    add("prompt", nargs="?", help="the task; '-', or nothing with a pipe, reads standard input")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--resume",
        metavar="ID",
        help="go on with a conversation of before; 'last' is the newest about this directory;"
        " also spelt 'exec resume ID' and 'exec resume --last'",
    )
    which.add_argument(
        "--fork", metavar="ID", help="begin a new conversation with what that one has said and done"
    )
    add(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="show this picture with the prompt; may be repeated",
    )
    add("--apply", action="store_true", help="write the result into the repository")
    add("--json", action="store_true", help="print events, one JSON object a line")
    add(
        "--input-format",
        choices=("text", "jsonl"),
        default="text",
        help="jsonl: standard input brings messages, steers and interrupts, one JSON object a line,"
        " while the run goes on; see docs/exec.md",
    )
    add(
        "--output-schema",
        type=Path,
        metavar="FILE",
        help="JSON schema that the last message must match; it is printed instead of the diff",
    )
    add(
        "-o",
        "--output-last-message",
        type=Path,
        metavar="FILE",
        help="write the agent's last message into this file",
    )
    add_thread_options(parser)
    add_racing_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb: 0 done, 1 failed or given up, 2 cannot start, 130 interrupted."""
    report = Report(arguments.json)
    # What the run comes to says all; a library's warnings beside it are for servers.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    try:
        if arguments.resume == "":
            raise UsageError(
                "name the conversation: exec resume ID PROMPT, or exec resume --last PROMPT"
            )
        prompt = _read_prompt(arguments)
        if arguments.repo is not None and not arguments.repo.is_dir():
            raise UsageError(f"--repo: {str(arguments.repo)!r} is not a directory")
        from tightloop.sandbox import own_namespace

        # Before the loop and its threads: an ordinary user's workspace is an overlay then, too.
        own_namespace.enter(arguments.state_dir or state_directory())
        return asyncio.run(_run(arguments, prompt, report))
    except (UsageError, SandboxError, PolicyError) as error:
        report.fail(str(error))
        return BAD_USAGE
    except OSError as error:
        report.fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return BAD_USAGE
    except (asyncio.CancelledError, KeyboardInterrupt):
        report.fail("interrupted")
        return INTERRUPTED


async def _run(arguments: argparse.Namespace, prompt: str | None, report: Report) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, _current_task().cancel)
    from tightloop.harness.racing.modes import open_mode
    from tightloop.harness.thread import open_thread

    wanted = wanted_mode(arguments)
    settings, past = _start(arguments)
    if past is not None:
        report.note(_about(past))
    policy = load_policy(settings.policy, settings.config)
    if policy.is_read_only and arguments.apply:
        raise UsageError(f"--apply: the policy {policy.name!r} changes nothing")
    schema = _schema(arguments.output_schema)
    is_fork = arguments.fork is not None
    labels = {"prompt": prompt}
    async with open_thread(
        settings, report, past=past, is_fork=is_fork, log_labels=labels
    ) as thread:
        if thread.gate.mode == "read-only" and arguments.apply:
            raise UsageError("--apply: the approval mode 'read-only' changes nothing")
        outcome = Outcome(report, thread, schema, arguments.output_last_message)
        try:
            async with open_mode(thread, wanted) as mode:
                result = await _turns(arguments, thread, mode, prompt, outcome)
        except asyncio.CancelledError:
            await outcome.keep_interrupted()
            raise
        return await outcome.deliver(result, is_wanted=arguments.apply)


def _start(arguments: argparse.Namespace) -> "tuple[Settings, Past | None]":
    """What to open, and what goes on in it."""
    settings = with_planner(thread_settings(arguments, verb="exec"), arguments)
    wanted = arguments.fork if arguments.fork is not None else arguments.resume
    if wanted is None:
        return settings, None
    from tightloop.harness.resuming import choose, resumed_settings

    past = choose(settings.state_dir, wanted, arguments.repo)
    settings = resumed_settings(settings, past)
    if arguments.transport is not None:
        settings = replace(settings, transport=arguments.transport)
    return settings, past


def _about(past: "Past") -> str:
    """What goes on, for a person."""
    files = [printable(change.path) for change in past.changes]
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    work = f"; not applied yet: {', '.join(files[:3])}{more}" if files else ""
    turns = f"{past.num_turns} turn{'' if past.num_turns == 1 else 's'}"
    return f"going on with {past.id[:8]} ({printable(past.title)}), {turns}{work}"


def _schema(path: Path | None) -> "OutputSchema | None":
    if path is None:
        return None
    from tightloop.harness.output_schema import load_schema

    return load_schema(path)


async def _turns(
    arguments: argparse.Namespace,
    thread: "Thread",
    mode: "modes.Mode",
    prompt: str | None,
    outcome: Outcome,
) -> TurnResult:
    """Every turn of the run; the result of the last one."""
    options = outcome.turn_options
    if arguments.input_format == "text":
        assert prompt is not None, "was read"
        parts = _pictures(arguments.image, thread)
        try:
            return await mode.run_turn(prompt, parts=parts, **options)
        finally:  # what it cost stands in the log also when it was interrupted
            if thread.agent.last_result is not None:
                outcome.log_turn(thread.agent.last_result)
    from tightloop.cli.stdin_lines import LineReader
    from tightloop.harness.conductor import Conductor

    conductor = Conductor(thread, outcome.report.listen, **options)
    if prompt is not None:
        conductor.queue(prompt)
    LineReader(conductor.take, conductor.end).start()
    last = await conductor.run(outcome.log_turn)
    if last is None:
        raise UsageError("--input-format jsonl: no message came on standard input")
    return last


def _pictures(paths: list[Path], thread: "Thread") -> "list[Part]":
    """The files as parts of a message. Raises UsageError where the model cannot see."""
    if not paths:
        return []
    from tightloop.agent.tools.images import ImageError, image_part

    if thread.toolbox.reads_images is False:
        raise UsageError(f"--image: the model {thread.labels['model']!r} reads text only")
    try:
        return [image_part(path) for path in paths]
    except ImageError as error:
        raise UsageError(f"--image: {error}") from error


def _read_prompt(arguments: argparse.Namespace) -> str | None:
    given: str | None = arguments.prompt
    if arguments.input_format == "jsonl":
        if arguments.image:
            raise UsageError("--image goes with a prompt, and not with --input-format jsonl")
        if not arguments.json:
            raise UsageError("--input-format jsonl needs --json: its receipts are events")
        if given == "-":
            raise UsageError("--input-format jsonl: standard input brings lines, and no prompt")
        if given is None:
            return None
    elif given is None and sys.stdin.isatty():
        raise UsageError("give a prompt, or '-' and the prompt on standard input")
    prompt = sys.stdin.read() if given is None or given == "-" else given
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    return prompt


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None, "called from a coroutine"
    return task
