"""The command line of ``tightloop`` without a verb."""

from typing import TYPE_CHECKING

from tightloop.cli.thread_options import add_thread_options

if TYPE_CHECKING:
    import argparse

DESCRIPTION = "Work with the agent on the repository you are in."


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options and the first message."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the first message")
    add_chat_options(parser)


def add_chat_options(parser: "argparse._ActionsContainer") -> None:
    """All but the message."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const="last",
        metavar="ID",
        help="go on with a past conversation: the last one about this directory, or by its id",
    )
    add_thread_options(parser)
