"""``tightloop VERB``: finds the verb's module and runs it.

A verb is one module in this package with ``HELP`` (one line), ``configure(parser)`` and
``run(arguments) -> int``. Only the chosen verb is imported, so that ``--help`` stays quick.
"""

import sys

import tightloop

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

VERBS = {
    "bench": "measure the follow-up turns of any OpenAI-compatible endpoint",
    "connect": "point another agent (Codex, Claude Code, ...) at a running server, or run it there",
    "demo": "fix real bugs with the bundled network: classic path against tight path",
    "doctor": "try what this machine allows a sandbox to do, and name the fix for what it does not",
    "exec": "let the agent work on a repository once, without questions",
    "repo": "keep repositories ready: make their bases and environments, list them, remove old ones",
    "review": "let a model look for faults in a change, without changing anything",
    "serve": "serve models over the Responses API, HTTP and WebSocket on one port",
    "test": "run pytest in a sandbox, warm: the verdict of 'python -m pytest' without its start",
    "threads": "list the conversations that can go on, remove old ones",
    "warm": "run a command of .tightloop.toml by its daemon, checked against the command itself",
}

NEAR = frozenset({"test", "warm"})
"""Verbs that must cost next to nothing: argparse alone would be half of what they may cost."""

PASSING_ON = frozenset({"connect"})
"""Verbs that hand the words after ``--`` to another program, as ``arguments.passed_on``."""


RESPELT = frozenset({"exec"})
"""Verbs that other agents' users spell in another way, too; see ``codex_spelling``."""


def build_parser(verb: str | None = None) -> "argparse.ArgumentParser":
    """The parser of the whole command; only ``verb``'s own options are filled in."""
    import argparse
    import importlib

    parser = argparse.ArgumentParser(
        prog="tightloop",
        usage="tightloop [OPTION ...] [PROMPT]\n       tightloop VERB [OPTION ...]",
        description="A coding agent and serving stack whose edit-test rounds feel instant."
        " Without a verb: the agent, at your terminal, on the repository you are in.",
        epilog="'tightloop VERB --help' explains one verb. Start with 'tightloop demo'.",
    )
    parser.add_argument("--version", action="version", version=f"tightloop {tightloop.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog="tightloop")
    for name, summary in VERBS.items():
        child = verbs.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        if name == verb:
            importlib.import_module(f"tightloop.cli.{name}").configure(child)
    if verb is None:
        from tightloop.cli.chat.options import add_chat_options

        add_chat_options(parser.add_argument_group("the agent, without a verb"))
    return parser


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command line; the exit status. Ctrl-C ends with 130 and no traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    ours = words[: words.index("--")] if "--" in words else words
    if words and words[0] in NEAR and not {"-h", "--help"}.intersection(ours):
        try:
            from tightloop.cli.testing.near import main as near

            return near(words[0], words[1:])
        except KeyboardInterrupt:
            return _interrupted()
    if _is_chat(words):
        return _chat(words)
    import importlib

    verb = next((word for word in words if not word.startswith("-")), None)
    passed_on = None
    if verb in PASSING_ON and "--" in words:
        cut = words.index("--")
        words, passed_on = words[:cut], words[cut + 1 :]
    if verb in RESPELT:
        from tightloop.cli.codex_spelling import respelt

        cut = words.index(verb) + 1
        words = [*words[:cut], *respelt(words[cut:])]
    try:
        arguments = build_parser(verb).parse_args(words)
        arguments.passed_on = passed_on
        status: int = importlib.import_module(f"tightloop.cli.{arguments.verb}").run(arguments)
    except KeyboardInterrupt:  # imports take long enough to be interrupted, too
        return _interrupted()
    return status


def _is_chat(words: "Sequence[str]") -> bool:
    """Whether no verb is meant: no word at all, options first, or a sentence in quotes.

    A single word is always a verb, so that a slip of the finger begins no conversation.
    """
    if not words:
        return True
    first = words[0]
    return first not in ("-h", "--help", "--version") and (first.startswith("-") or " " in first)


def _chat(words: "list[str]") -> int:
    """``tightloop [options] [PROMPT]``; without a terminal to read from it is ``exec``."""
    if not sys.stdin.isatty():
        return main(["exec", *words])
    import argparse

    try:
        from tightloop.cli.chat import options

        parser = argparse.ArgumentParser(prog="tightloop", description=options.DESCRIPTION)
        options.configure(parser)
        arguments = parser.parse_args(words)
        if arguments.prompt in VERBS:
            parser.error(f"options stand behind the verb: tightloop {arguments.prompt} ...")
        from tightloop.cli.chat.entry import run

        return run(arguments)
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    print("tightloop: interrupted", file=sys.stderr)
    return 130
