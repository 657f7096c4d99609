"""Options of every verb that opens a conversation on a repository."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tightloop.cli.limit_options import add_limit_options, limits_of

if TYPE_CHECKING:
    from tightloop.harness.settings import Settings


def add_thread_options(parser: argparse._ActionsContainer) -> None:
    """Where to work, with which backend, and what commands may do."""
    add = parser.add_argument
    add(
        "--repo",
        type=Path,
        metavar="DIR",
        help="directory to work on (default: ., or that of the conversation that goes on)",
    )
    add(
        "--model",
        metavar="M",
        help="patchling (default), PATH.gguf, hf:..., remote:MODEL@URL; or a server's model",
    )
    add("--server", metavar="URL", help="use a Responses endpoint instead of an engine in here")
    add("--transport", choices=("ws", "http"), help="to the server (default: ws)")
    add(
        "--api-key-env",
        metavar="NAME",
        help="variable with the key (default: TIGHTLOOP_API_KEY for a server, OPENAI_API_KEY for"
        " a remote host)",
    )
    add_limit_options(parser)
    add("--sandbox", metavar="KIND", help="bubblewrap, landlock or none (default: the strongest)")
    add(
        "--policy",
        metavar="NAME",
        help="what commands may do: read-only, workspace-write, network, full-access, or one of the"
        " configuration (default: the configuration's, else workspace-write)",
    )
    add(
        "--approval",
        choices=("read-only", "ask", "auto", "full"),
        metavar="MODE",
        help="what runs without a question: read-only, ask, auto or full; exec declines what it would"
        " have to ask (default: the configuration's, else auto; see docs/approvals.md)",
    )
    add("--config", type=Path, metavar="FILE", help="configuration (default: see docs/sandbox.md)")
    add("--state-dir", type=Path, metavar="DIR", help="for logs, patches and workspaces")
    add(
        "--no-speculation",
        action="store_true",
        help="run tests only when the model asks for them, not in a copy as soon as a patch is done",
    )


def thread_settings(arguments: argparse.Namespace, *, verb: str) -> "Settings":
    """What the options come to."""
    from tightloop.harness.settings import Settings
    from tightloop.trace.log import state_directory

    return Settings(
        repo=arguments.repo or Path(),
        state_dir=arguments.state_dir or state_directory(),
        model=arguments.model,
        server=arguments.server,
        transport=arguments.transport or "ws",
        api_key_env=arguments.api_key_env,
        sandbox=arguments.sandbox,
        policy=arguments.policy,
        config=arguments.config,
        approval=arguments.approval,
        limits=limits_of(arguments),
        speculates=not arguments.no_speculation,
        verb=verb,
    )
