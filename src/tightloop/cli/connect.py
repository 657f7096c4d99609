"""``tightloop connect CLIENT``: how to point another agent at ``tightloop serve``, or just do it.

Without words after ``--`` it prints what to paste where (or writes it, ``--write``). With them it
runs the client, with the configuration in a directory of its own, so that the person's stays as
it is.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import (
    Client,
    ConnectError,
    Recipe,
    Setting,
    Target,
)
from tightloop.cli.connecting.registry import CLIENTS, client_named
from tightloop.cli.connecting.served import DEFAULT_URL, ServedModel, api_root, ask_models

HELP = "point another agent (Codex, Claude Code, ...) at a running server, or run it there"

BAD_USAGE = 2

DEFAULT_KEY_VARIABLE = "TIGHTLOOP_API_KEY"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.usage = "%(prog)s [options] CLIENT [-- WORD ...]"
    parser.epilog = (
        "Words after -- go to the client, which is then run with its own configuration left"
        ' alone: tightloop connect codex -- exec "make the failing test pass"'
    )
    add = parser.add_argument
    add("client", choices=CLIENTS, metavar="CLIENT", help=", ".join(CLIENTS))
    add("--url", default=DEFAULT_URL, help=f"the running server's API (default {DEFAULT_URL})")
    add(
        "--model",
        metavar="M",
        help="one of the server's models (default: its first one; it is asked only if this is"
        " missing or a client is run)",
    )
    add(
        "--api-key-env",
        default=DEFAULT_KEY_VARIABLE,
        metavar="NAME",
        help="variable with the server's key (default TIGHTLOOP_API_KEY)",
    )
    add(
        "--write", type=Path, metavar="DIR", help="write the files there instead; never over others"
    )
    add("--json", action="store_true", help="print one JSON object")
    add("--otel", metavar="URL", help="codex: export its metrics to this OTLP/HTTP collector")
    add("--client", dest="program", type=Path, metavar="PATH", help="the client, if not on PATH")
    add(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="parent of a run client's own directory (default: tightloop in the XDG state directory)",
    )
    parser.set_defaults(passed_on=None)


def run(arguments: argparse.Namespace) -> int:
    """Print or write: 0. Run: the client's own status. 2 when something is missing."""
    try:
        _check_options(arguments)
        client = client_named(arguments.client)
        if arguments.passed_on is not None:
            _check_alone(arguments)
            return _run_client(client, arguments)
        return _show(client, arguments)
    except ConnectError as error:
        print(f"tightloop connect: {error}", file=sys.stderr)
        return BAD_USAGE


def _check_options(arguments: argparse.Namespace) -> None:
    """What would be something else in a file or a shell than it was meant to be."""
    if not _VARIABLE.fullmatch(arguments.api_key_env):  # not shown: it may be the key itself
        raise ConnectError("--api-key-env: not the name of a variable; the key belongs into one")
    for name in ("model", "url", "otel"):
        given = getattr(arguments, name)
        try:
            (given or "").encode()
        except UnicodeEncodeError as error:
            raise ConnectError(f"--{name}: {given!r} is not UTF-8") from error
    if arguments.otel is not None and arguments.client != "codex":
        raise ConnectError("--otel: only codex exports metrics to a collector that it is told")


def _check_alone(arguments: argparse.Namespace) -> None:
    given = [name for name in ("write", "json") if getattr(arguments, name)]
    if given:
        raise ConnectError(f"--{given[0]} and words after '--' do not go together")


# ---------------------------------------------------------------------- printing and writing


def _show(client: Client, arguments: argparse.Namespace) -> int:
    from tightloop.cli.connecting.printing import as_json, as_text, as_written, command
    from tightloop.cli.connecting.writing import environment_file, write_new

    target = _target(arguments, is_asked=arguments.model is None)
    recipe = client.recipe(target)
    settings: Sequence[Setting] = recipe.settings
    new: list[Path] = []
    written = ""
    if arguments.write is not None:
        directory = arguments.write.absolute()
        settings = (*recipe.settings, *client.home(directory))
        files = (*recipe.files, environment_file(settings, recipe.unset))
        new = write_new(directory, files)
        then = command(client, target, recipe, directory)
        written = as_written(directory, [file.name for file in files], new, then)
    if arguments.json:
        print(as_json(client, target, recipe, settings, new))
    else:
        options = _options_of_a_run(arguments, target)
        print(written or as_text(client, target, recipe, options), end="")
    return 0


def _options_of_a_run(arguments: argparse.Namespace, target: Target) -> list[str]:
    """The options that were given and matter to a run, too."""
    options: list[str] = []
    given = (
        ("--url", target.url, DEFAULT_URL),
        ("--model", arguments.model, None),
        ("--api-key-env", arguments.api_key_env, DEFAULT_KEY_VARIABLE),
        ("--otel", arguments.otel, None),
        ("--client", arguments.program, None),
        ("--state-dir", arguments.state_dir, None),
    )
    for name, value, default in given:
        if value not in (None, default):
            options += [name, str(value)]
    return options


def _target(arguments: argparse.Namespace, *, is_asked: bool) -> Target:
    url = api_root(arguments.url)
    if not is_asked:
        return Target(url, arguments.model, arguments.api_key_env, otel_url=arguments.otel)
    key = os.environ.get(arguments.api_key_env)
    served = _chosen(ask_models(url, key, arguments.api_key_env), arguments.model, url)
    return Target(
        url, served.name, arguments.api_key_env, served.context_window, otel_url=arguments.otel
    )


def _chosen(models: list[ServedModel], name: str | None, url: str) -> ServedModel:
    if name is None:
        return models[0]
    for model in models:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in models)
    raise ConnectError(f"--model: {url} does not serve {name!r}; it serves {names}")


# ---------------------------------------------------------------------- running


def _run_client(client: Client, arguments: argparse.Namespace) -> int:
    from tightloop.cli.connecting.launching import become, environment_for, find_program
    from tightloop.cli.connecting.writing import write_own

    words: list[str] = arguments.passed_on
    if client.program is None and not words:
        raise ConnectError("name the program after '--', for instance: -- python hello.py")
    program = find_program(client, arguments.program, words)
    target = _target(arguments, is_asked=True)
    recipe: Recipe = client.recipe(target)
    directory = _own_directory(client, arguments)
    write_own(directory, recipe.files)
    settings = (*recipe.settings, *client.home(directory))
    given = client.arguments(target, words)
    become(
        program,
        given if client.program else given[1:],
        environment_for(settings, recipe, os.environ),
    )


def _own_directory(client: Client, arguments: argparse.Namespace) -> Path:
    from tightloop.trace.log import state_directory

    try:
        parent: Path = arguments.state_dir or state_directory()
    except RuntimeError as error:
        raise ConnectError(f"{error}; name a directory with --state-dir") from error
    return parent.absolute() / "clients" / client.name
