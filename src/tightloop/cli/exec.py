"""``tightloop exec "PROMPT"``: one turn of the agent on a private view of a repository.

The repository is changed only with ``--apply``; otherwise the result is printed as a diff, and
kept as a patch file with the command that applies it. Standard output carries the diff alone, or
with ``--json`` one event a line; everything for a person goes to standard error.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from tightloop.agent.turn import Limits
from tightloop.cli.option_values import early_end, positive, positive_seconds
from tightloop.cli.outcome import BAD_USAGE, INTERRUPTED, Outcome, Report
from tightloop.harness.backend import UsageError
from tightloop.harness.settings import Settings
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.policies import PolicyError, load_policy
from tightloop.trace.log import state_directory

HELP = "let the agent work on a repository once, without questions"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    add = parser.add_argument
    add("prompt", nargs="?", help="the task; '-', or nothing with a pipe, reads standard input")
    add(
        "--repo", type=Path, default=Path(), metavar="DIR", help="directory to work on (default: .)"
    )
    add(
        "--model",
        metavar="M",
        help="patchling (default), PATH.gguf, hf:..., remote:MODEL@URL; or a server's model",
    )
    add("--server", metavar="URL", help="use a Responses endpoint instead of an engine in here")
    add("--transport", choices=("ws", "http"), default="ws", help="to the server (default: ws)")
    add(
        "--api-key-env",
        metavar="NAME",
        help="variable with the key (default: TIGHTLOOP_API_KEY for a server, OPENAI_API_KEY for"
        " a remote host)",
    )
    add("--json", action="store_true", help="print events, one JSON object a line")
    add("--apply", action="store_true", help="write the result into the repository")
    add(
        "--max-turns",
        type=positive,
        default=50,
        metavar="N",
        help="responses at most (default: 50)",
    )
    add(
        "--timeout",
        type=positive_seconds,
        default=1800.0,
        metavar="S",
        help="seconds at most (default: 1800)",
    )
    add("--sandbox", metavar="KIND", help="bubblewrap, landlock or none (default: the strongest)")
    add(
        "--policy",
        metavar="NAME",
        help="what commands may do: read-only, workspace-write, network, full-access, or one of the"
        " configuration (default: the configuration's, else workspace-write)",
    )
    add("--config", type=Path, metavar="FILE", help="configuration (default: see docs/sandbox.md)")
    add("--state-dir", type=Path, metavar="DIR", help="for logs, patches and workspaces")
    add(
        "--early-end",
        type=early_end,
        default=Limits().cancel_min_tokens,
        metavar="N",
        help="end a response when a call in it cannot succeed any more and N more tokens are"
        " expected of it; 'never' lets all of them finish (default: 100)",
    )
    add(
        "--no-speculation",
        action="store_true",
        help="run tests only when the model asks for them, not in a copy as soon as a patch is done",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb: 0 done, 1 failed or given up, 2 cannot start, 130 interrupted."""
    report = Report(arguments.json)
    # What the run comes to says all; a library's warnings beside it are for servers.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    try:
        prompt = _read_prompt(arguments.prompt)
        if not arguments.repo.is_dir():
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


async def _run(arguments: argparse.Namespace, prompt: str, report: Report) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, _current_task().cancel)
    from tightloop.harness.thread import open_thread

    settings = _settings(arguments)
    policy = load_policy(settings.policy, settings.config)
    if policy.is_read_only and arguments.apply:
        raise UsageError(f"--apply: the policy {policy.name!r} changes nothing")
    async with open_thread(settings, report, log_labels={"prompt": prompt}) as thread:
        outcome = Outcome(report, thread)
        try:
            result = await thread.agent.run_turn(prompt)
        except asyncio.CancelledError:
            await outcome.keep_interrupted(thread.agent.last_result)
            raise
        return await outcome.deliver(result, is_wanted=arguments.apply)


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        repo=arguments.repo,
        state_dir=arguments.state_dir or state_directory(),
        model=arguments.model,
        server=arguments.server,
        transport=arguments.transport,
        api_key_env=arguments.api_key_env,
        sandbox=arguments.sandbox,
        policy=arguments.policy,
        config=arguments.config,
        limits=Limits(arguments.max_turns, arguments.timeout, arguments.early_end),
        speculates=not arguments.no_speculation,
    )


def _read_prompt(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise UsageError("give a prompt, or '-' and the prompt on standard input")
    prompt = sys.stdin.read() if given is None or given == "-" else given
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    return prompt


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None, "called from a coroutine"
    return task
