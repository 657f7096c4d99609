"""Options for several attempts at a task, and for a planner."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from tightloop.cli.option_values import positive
from tightloop.harness.backend import UsageError
from tightloop.harness.settings import Settings

if TYPE_CHECKING:
    from tightloop.harness.racing.modes import Wanted


def add_racing_options(parser: argparse._ActionsContainer) -> None:
    """Whether to race, to try again, or to plan first."""
    add = parser.add_argument
    add(
        "--race",
        type=positive,
        metavar="N",
        help="work on the task N times at once, each in its own copy; the first whose tests pass wins",
    )
    add(
        "--retry",
        type=positive,
        metavar="N",
        help="begin again from the beginning when the tests do not pass, N attempts at most",
    )
    add(
        "--at-once",
        type=positive,
        metavar="K",
        help="of a race, so many at a time (default: two for each core)",
    )
    add("--planner", metavar="M", help="a second model, which reads and plans for the first")
    add("--planner-server", metavar="URL", help="the Responses endpoint that serves it")
    add("--planner-key-env", metavar="NAME", help="variable with the planner's key")


def with_planner(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """The settings with the planner that the options name, if they do."""
    return replace(
        settings,
        planner=arguments.planner,
        planner_server=arguments.planner_server,
        planner_key_env=arguments.planner_key_env,
    )


def wanted_mode(arguments: argparse.Namespace) -> "Wanted":
    """What the options come to. Raises UsageError for those that do not go together."""
    from tightloop.harness.racing.modes import RACE, RETRY, SINGLE, Wanted

    several = arguments.race or arguments.retry
    if arguments.race and arguments.retry:
        raise UsageError("--race and --retry: give one of them")
    if arguments.at_once and not arguments.race:
        raise UsageError("--at-once goes with --race")
    if arguments.planner_server and not arguments.planner:
        raise UsageError("--planner-server goes with --planner")
    for name in ("race", "retry", "planner"):
        if getattr(arguments, name) and arguments.input_format == "jsonl":
            raise UsageError(f"--{name} takes one prompt, and no --input-format jsonl")
        if getattr(arguments, name) and arguments.approval in ("ask", "read-only"):
            raise UsageError(
                f"--{name} needs an approval mode that asks nothing: auto or full, "
                f"got {arguments.approval}"
            )
    mode = RACE if arguments.race else RETRY if arguments.retry else SINGLE
    try:
        return Wanted(mode, several or 1, arguments.at_once)
    except ValueError as error:
        raise UsageError(f"--{mode}: {error}") from error
