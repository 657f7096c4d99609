"""What the model is told before the user's first message: how to work, where, project rules.

It goes out once, as the first input item, and not as ``instructions``: those would travel with
every request of a conversation that is continued by ``previous_response_id``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tightloop.protocol.items import Message, TextPart

MAX_RULES_BYTES = 32 << 10
"""All AGENTS.md files together; Codex's default limit."""

_BASE = """\
You are tightloop, a coding agent. You work on the files of one workspace, by calling tools, until \
the user's task is done.

- Look before you change: read the code and the failing test first, with exec_command (rg, sed -n, \
git log). Ask for several independent things in one response; the calls run without waiting for you.
- Change files with apply_patch. Keep patches small: one place, a few lines of context that are in \
the file exactly so. If a patch is refused, nothing was changed; read the answer, then send it again.
- Check your work: run the narrowest test that can fail, then the wider ones.
- Make the smallest change that does the whole task. Follow the style around it. Leave unrelated \
faults alone and mention them.
- Do not commit, push, install globally or touch files outside the workspace.
- When you are done, say in a few plain sentences what you changed and how you checked it. If you \
cannot finish, say what is missing."""

_PRECEDENCE = (
    "Rules of the project follow, from the outermost directory to the nearest; "
    "where they disagree, the later one holds."
)


@dataclass(frozen=True, slots=True)
class Rules:
    """One AGENTS.md; ``directory`` is where it holds, relative to the outermost one."""

    directory: str
    text: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Facts about where commands run, as the model should know them.

    ``hosts`` are those that a proxy lets commands reach, and no others; empty when there is none.
    """

    workspace: Path
    isolation: str
    has_network: bool = False
    hosts: Sequence[str] = ()


def opening(surroundings: Surroundings, rules: list[Rules]) -> Message:
    """The developer message that opens a conversation."""
    network = "available" if surroundings.has_network else "not available"
    if surroundings.hosts:
        network = (
            f"only {', '.join(surroundings.hosts)}, through the proxy that HTTP_PROXY and "
            "HTTPS_PROXY name; anything else is refused, so do not try others"
        )
    sections = [
        _BASE,
        f"Workspace: {surroundings.workspace}\nIsolation: {surroundings.isolation}\n"
        f"Network: {network}\nShell: bash",
    ]
    if rules:
        sections.append(_PRECEDENCE)
        sections += [f"AGENTS.md of {rule.directory}:\n{rule.text.strip()}" for rule in rules]
    return Message("developer", (TextPart("input_text", "\n\n".join(sections)),))


def resumed(surroundings: Surroundings, num_missing: int = 0) -> Message:
    """The developer message after which a conversation of before goes on.

    ``num_missing``: so many calls at its end may have had effects that are not in the workspace.
    """
    lines = [
        "The conversation goes on in a new process. Nothing that was started before still runs.",
        f"Workspace: {surroundings.workspace}\nIsolation: {surroundings.isolation}",
    ]
    if num_missing:
        lines.append(
            f"The process ended abruptly: of the last {num_missing} call(s), effects on files may "
            "be missing. Look before you rely on them."
        )
    return Message("developer", (TextPart("input_text", "\n\n".join(lines)),))


def project_rules(directory: Path) -> list[Rules]:
    """The AGENTS.md files that hold in ``directory``, outermost first.

    Looked for from the root of the git repository (else only in ``directory`` itself) downwards.
    A file that is a link out of the repository is not read: it could name any file of the user.
    """
    directory = directory.resolve()
    outermost = next((p for p in (directory, *directory.parents) if (p / ".git").exists()), None)
    root = outermost or directory
    places = [directory]
    while places[0] != root:
        places.insert(0, places[0].parent)
    rules: list[Rules] = []
    room = MAX_RULES_BYTES
    for place in places:
        content = _read_inside(place / "AGENTS.md", root, room)
        if content.strip():
            shown = place.relative_to(root).as_posix()
            rules.append(Rules("the project" if shown == "." else shown, content))
            room -= len(content.encode())
    return rules


def _read_inside(path: Path, root: Path, max_bytes: int) -> str:
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root) or not real.is_file():
            return ""
        with real.open("rb") as file:
            return file.read(max(max_bytes, 0)).decode("utf-8", "ignore")
    except OSError:
        return ""
