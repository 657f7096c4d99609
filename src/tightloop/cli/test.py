"""``tightloop test [pytest arguments]``: what ``python -m pytest`` would say, from a warm process.

This module only explains itself: a command line goes straight to ``testing/near.py``, before
anything large is imported (see ``main.py``).
"""

import argparse

HELP = "run pytest in a sandbox, warm: the verdict of 'python -m pytest' without its start"

_EPILOG = """\
Every other word goes to pytest; after '--' all of them do. The exit code is pytest's, and 125
where there is no verdict. See docs/testing.md.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options, for ``--help``."""
    parser.usage = "tightloop test [options] [pytest arguments]"
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--cold", action="store_true", help="an interpreter of its own, nothing resident")
    add(
        "--audit",
        action="store_true",
        help="check a warm verdict against a cold run at once; the cold one's exit code counts",
    )
    add("--json", action="store_true", help="print one object per test, then one for the run")
    add("--status", action="store_true", help="show the background processes of this project")
    add("--stop", action="store_true", help="end them")
    add("--warm-again", action="store_true", help="allow warm runs again after a wrong one")
    configure_place(parser)


def configure_place(parser: argparse.ArgumentParser) -> None:
    """Options that say which project, by which rules; ``warm`` has them too."""
    add = parser.add_argument
    add("--root", metavar="DIR", help="the project (default: the nearest directory upwards that"
        " looks like one); what is outside of it cannot be written")  # fmt: skip
    add("--python", metavar="FILE", help="its interpreter (default: .venv, then the activated one,"
        " then python of the PATH)")  # fmt: skip
    add("--policy", metavar="NAME", help="what tests may do (default: the configuration's)")
    add("--config", metavar="FILE", help="configuration (default: see docs/sandbox.md)")
    add("--idle", metavar="MINUTES", help="until the background process ends (default: 30)")
    add("--state-dir", metavar="DIR", help="for the background process and its logs")


def run(_arguments: argparse.Namespace) -> int:
    """A run of everything: command lines with words go another way, see ``main.py``."""
    from tightloop.cli.testing.near import main

    return main("test", [])
