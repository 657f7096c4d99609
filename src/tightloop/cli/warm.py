"""``tightloop warm NAME``: a command of the project's ``.tightloop.toml`` by its daemon.

As with ``test``, a command line goes straight to ``testing/near.py`` (see ``main.py``).
"""

import argparse

from tightloop.cli.test import configure_place

HELP = "run a command of .tightloop.toml by its daemon, checked against the command itself"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options, for ``--help``."""
    parser.usage = "tightloop warm [options] NAME"
    parser.epilog = (
        "The exit code is the command's, and 125 where there is none. Without NAME, the names that"
        " there are. See docs/testing.md."
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="of a table [warm.NAME]")
    add("--cold", action="store_true", help="the command itself")
    add(
        "--audit",
        action="store_true",
        help="check a warm answer against the command at once; the command's exit code counts",
    )
    add("--json", action="store_true", help="print one object instead of the output")
    configure_place(parser)


def run(_arguments: argparse.Namespace) -> int:
    """Says which names there are: command lines with words go another way, see ``main.py``."""
    from tightloop.cli.testing.near import main

    return main("warm", [])
