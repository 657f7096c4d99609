"""Patches that a model sends as a shell command instead of a tool call."""

import re
import shlex
from dataclasses import dataclass

from tightloop.agent.patch.parser import BEGIN

_NAMES = ("apply_patch", "applypatch")
_SHELLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bash", "sh", "zsh"), ("-c", "-lc")),
    **dict.fromkeys(("powershell", "pwsh"), ("-Command", "-c")),
    "cmd": ("/c", "/C"),
}
"""The options with which a shell takes a script as its next argument."""
_SCRIPT = re.compile(
    r"""\s*(?:cd\s+(?P<cd>'[^']*'|"[^"$`\\]*"|[^\s'"$`;&|<>()\\]+)\s*&&\s*)?"""
    r"""(?:apply_patch|applypatch)\s+<<\s*(?P<quote>['"]?)(?P<tag>\w+)(?P=quote)[ \t]*\n"""
    r"""(?P<body>.*?)\n(?P=tag)\s*\Z""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ShellPatch:
    """A patch text and the directory, relative to the command's own, that it starts from."""

    text: str
    workdir: str = "."


def patch_in_script(script: str) -> ShellPatch | None:
    """The patch when the script is one here-document for ``apply_patch`` and nothing else.

    One ``cd DIR &&`` may stand before it. Anything more makes it an ordinary command: None.
    """
    match = _SCRIPT.fullmatch(script)
    if match is None:
        return None
    # A second terminator inside the text would end the here-document early in a real shell.
    if f"\n{match['tag']}\n" in match["body"]:
        return None
    return ShellPatch(match["body"], (match["cd"] or ".").strip("'\""))


def patch_in_argv(argv: list[str]) -> ShellPatch | None:
    """The same for an argument vector: ``apply_patch TEXT`` or ``bash -lc SCRIPT``."""
    if len(argv) == 2 and argv[0] in _NAMES:
        return ShellPatch(argv[1])
    if len(argv) < 3:
        return None
    shell, *options, option, script = argv
    known = _SHELLS.get(shell.rpartition("/")[2].removesuffix(".exe"), ())
    if option not in known or not set(options) <= {"-NoProfile"}:
        return None
    return patch_in_script(script)


def patch_in_command(command: str) -> ShellPatch | None:
    """The same for a command line that may itself be ``apply_patch TEXT`` or ``bash -lc ...``."""
    found = patch_in_script(command)
    if found is not None or not any(name in command for name in _NAMES):
        return found
    try:
        return patch_in_argv(shlex.split(command))
    except ValueError:
        return None


def is_bare_patch(command: str) -> bool:
    """Whether the command is a patch text without any call: a frequent slip."""
    return command.lstrip().startswith(BEGIN)
