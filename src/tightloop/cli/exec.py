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
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightloop.agent import events as said
from tightloop.agent.loop import Agent
from tightloop.agent.prompt import Surroundings, opening, project_rules
from tightloop.agent.terminal.printable import printable
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import Tool, ToolContext
from tightloop.agent.turn import Limits
from tightloop.cli.backend import Backend, UsageError, open_backend
from tightloop.cli.decisions import DecisionLog
from tightloop.cli.option_values import early_end, positive, positive_seconds
from tightloop.cli.outcome import BAD_USAGE, INTERRUPTED, Outcome, Report
from tightloop.cli.reading_commands import ReadingCommands
from tightloop.cli.side_notes import SideNotes
from tightloop.client.session import Session
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.policies import FULL_ACCESS, NETWORK, NamedPolicy, PolicyError, load_policy
from tightloop.trace.log import RunLog, new_log_path, state_directory

if TYPE_CHECKING:
    from tightloop.agent.workbench import Workbench
    from tightloop.sandbox.workspace import Workspace

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
    state_dir = arguments.state_dir or state_directory()
    from tightloop.cli.workshop import open_workshop
    from tightloop.sandbox.login_environment import LoginShell
    from tightloop.sandbox.way_out import way_out
    from tightloop.sandbox.workspace import open_workspace

    policy = load_policy(arguments.policy, arguments.config)
    if policy.is_read_only and arguments.apply:
        raise UsageError(f"--apply: the policy {policy.name!r} changes nothing")
    kind = policy.kind(arguments.sandbox)
    decisions, notes = DecisionLog(report), SideNotes(report)
    async with AsyncExitStack() as stack:
        login = await LoginShell.begin(state_dir)  # it runs beside what follows
        stack.push_async_callback(login.close)
        workspace = await open_workspace(arguments.repo, state_dir=state_dir)
        stack.push_async_callback(workspace.discard)
        # Before the engine: the sandbox warms its tests while a model is loaded.
        socket = await stack.enter_async_context(way_out(policy, decisions))
        workshop = await open_workshop(
            stack,
            workspace,
            workspace.completed(policy.policy(workspace.path, socket)),
            kind=kind,
            source=await login.environment(),
            state_dir=state_dir,
            speculates=not arguments.no_speculation,
            note=notes,
        )
        sandbox = workshop.sandbox
        backend = await open_backend(
            stack,
            model=arguments.model,
            server=arguments.server,
            transport=arguments.transport,
            api_key_env=arguments.api_key_env,
        )
        labels: dict[str, Any] = {
            "model": backend.model,
            "backend": backend.description,
            "isolation": sandbox.kind,
            "policy": policy.name,
            "workspace": workspace.kind,
        }
        redactor = sandbox.redactor
        log = _open_log(state_dir, workspace, redactor.text, {"prompt": prompt, **labels})
        stack.callback(log.close)
        decisions.attach(log)
        stack.callback(decisions.detach)
        report.note(" | ".join(f"{name} {printable(value)}" for name, value in labels.items()))
        if policy.needs_proxy:
            report.note(f"network: {', '.join(_hosts(policy))}; nothing else")
        if login.problem:
            report.note(f"variables of the login shell are unknown: {printable(login.problem)}")
        if sandbox.kind == "none":
            report.note("no isolation: commands can read and change whatever you can")
        elif sandbox.not_stronger:
            report.note(f"weaker isolation than possible: {printable(sandbox.not_stronger)}")
        if sandbox.lacks:
            report.note(f"one layer of isolation is missing: {sandbox.lacks}")
        if workspace.note:
            report.note(printable(workspace.note))

        def listen(event: said.Event) -> None:
            if not isinstance(event, said.ItemUpdated):
                log.write("event", event=event)
            report.listen(event)

        bench = workshop.bench
        context = ToolContext(
            workspace.path,
            bench,
            redact=redactor.text,
            on_patch=bench.follow,
            on_changed=bench.changed,
        )
        agent = _assemble(arguments, backend, context, policy, listen, bench)
        outcome = Outcome(report, workspace, log, state_dir)
        places = {"log": str(log.path), "patch": str(outcome.patch_path)}
        listen(said.ThreadStarted(agent.thread_id, labels | places))
        notes.attach(log)
        stack.callback(notes.detach)
        try:
            result = await agent.run_turn(prompt)
        except asyncio.CancelledError:
            await outcome.keep_interrupted(agent.last_result)
            raise
        none_ahead = "" if arguments.no_speculation else bench.none_ahead
        return await outcome.deliver(result, is_wanted=arguments.apply, none_ahead=none_ahead)


def _open_log(
    state_dir: Path,
    workspace: "Workspace",
    redact: Callable[[str], str],
    labels: dict[str, Any],
) -> RunLog:
    repository = str(workspace.repository)
    path = new_log_path(state_dir, "exec")
    return RunLog(path, redact=redact, verb="exec", repository=repository, **labels)


def _hosts(policy: NamedPolicy) -> tuple[str, ...]:
    """The hosts of a policy, as a person wrote them."""
    return tuple(str(rule) for rule in policy.hosts)


def _assemble(
    arguments: argparse.Namespace,
    backend: Backend,
    context: ToolContext,
    policy: NamedPolicy,
    listen: said.Listener,
    bench: "Workbench",
) -> Agent:
    tools: list[Tool] = (
        [ReadingCommands()] if policy.is_read_only else [ExecCommand(), ApplyPatch()]
    )
    definitions = [tool.definition() for tool in tools]
    has_network = policy.level in (NETWORK, FULL_ACCESS)
    surroundings = Surroundings(
        context.workspace, context.sandbox.kind, has_network, hosts=_hosts(policy)
    )
    rules = project_rules(arguments.repo)
    for rule in rules:
        bench.read_rules(rule.text)
    return Agent(
        Session(backend.transport, model=backend.model, tools=definitions),
        tools,
        context,
        opening=[opening(surroundings, rules)],
        limits=Limits(arguments.max_turns, arguments.timeout, arguments.early_end),
        listener=listen,
        overseer=bench,
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
