"""Skills: directories with a ``SKILL.md`` that says how to do one kind of task.

Only text is read here, and nothing is ever run. Names and descriptions stand in the opening
message; the model reads a body with an ordinary command when it needs it, or gets it at once when
the user mentions ``$name``. The user's own come from the configuration directory; those of the
repository are marked as its word, because whoever can write to it wrote them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tightloop.agent.confined_text import read_inside

IN_REPOSITORY: Final = (".agents/skills", ".tightloop/skills")
MAX_LIST_BYTES: Final = 8 << 10
"""Of names and descriptions together, in every conversation's opening."""
MAX_DESCRIPTION_CHARS: Final = 500
MAX_BODY_BYTES: Final = 24 << 10
"""Of one mentioned skill."""
MAX_SKILLS: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MENTION: Final = re.compile(r"(?<![\w$\\])\$([A-Za-z0-9][A-Za-z0-9_-]{0,63})")
_FENCE: Final = "---"
_INTRODUCTION: Final = (
    "Skills: instructions for kinds of tasks. When the task is one of them, read the file first "
    "(exec_command, cat PATH) and follow it; paths in it are relative to its directory."
)


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill. ``path`` names its SKILL.md as commands find it: absolute for the user's own,
    relative to the workspace for the repository's. ``repository`` is None for the user's own."""

    name: str
    description: str
    path: str
    directory: Path
    repository: Path | None = None

    @property
    def is_users_own(self) -> bool:
        """Whether the user wrote or chose it."""
        return self.repository is None


@dataclass(frozen=True, slots=True)
class Skills:
    """All skills of a conversation, the user's own first; ``problems`` are texts for the user."""

    found: tuple[Skill, ...] = ()
    problems: tuple[str, ...] = ()

    def section(self) -> str:
        """For the opening message; empty without skills. Those beyond the budget are left out."""
        lines = [line for _, line in self._listed()]
        return "\n".join([_INTRODUCTION, *lines]) if lines else ""

    @property
    def left_out(self) -> list[str]:
        """Names that did not fit into ``section``."""
        listed = {skill.name for skill, _ in self._listed()}
        return [skill.name for skill in self.found if skill.name not in listed]

    def expanded(self, prompt: str) -> str:
        """The prompt with the bodies of all skills behind it that it mentions as ``$name``."""
        known = {skill.name: skill for skill in self.found}
        named = dict.fromkeys(match[1] for match in _MENTION.finditer(prompt))
        bodies = [_body(known[name]) for name in named if name in known]
        return "\n\n".join([prompt, *bodies]) if bodies else prompt

    def _listed(self) -> list[tuple[Skill, str]]:
        room, listed = MAX_LIST_BYTES, []
        for skill in self.found:
            owner = "" if skill.is_users_own else "; from the repository, not from the user"
            line = f"- {skill.name}: {skill.description} (file: {skill.path}{owner})"
            room -= len(line.encode()) + 1
            if room < 0:
                break
            listed.append((skill, line))
        return listed


def find_skills(own: Sequence[Path], repository: Path | None) -> Skills:
    """The skills in the user's directories ``own`` and in the repository, if any.

    The first of a name counts, so the repository cannot replace one of the user's. In the
    repository, links that lead out of it are not followed.
    """
    places: list[tuple[Path, Path | None]] = [(path, None) for path in own]
    if repository is not None:
        repository = repository.resolve()
        places += [(repository / name, repository) for name in IN_REPOSITORY]
    found: dict[str, Skill] = {}
    problems: list[str] = []
    for place, inside in places:
        for directory in _directories(place):
            if len(found) >= MAX_SKILLS:
                problems.append(
                    f"more than {MAX_SKILLS} skills; those from {directory} on are left out"
                )
                return Skills(tuple(found.values()), tuple(problems))
            skill = _read(directory, inside)
            if isinstance(skill, str):
                problems.append(skill)
            elif skill is not None and skill.name in found:
                problems.append(
                    f"{directory}: there is a skill {skill.name!r} already, "
                    f"in {found[skill.name].directory}"
                )
            elif skill is not None:
                found[skill.name] = skill
    return Skills(tuple(found.values()), tuple(problems))


def _directories(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if path.is_dir())
    except OSError:
        return []


def _read(directory: Path, repository: Path | None) -> Skill | str | None:
    """The skill in a directory, a problem in words, or None when there is no SKILL.md."""
    path = directory / "SKILL.md"
    text = read_inside(path, repository, MAX_BODY_BYTES)
    if not text:
        return f"{path}: empty, unreadable or outside of the repository" if path.exists() else None
    fields = front_matter(text)
    name, description = fields.get("name", directory.name), fields.get("description", "")
    if not _NAME.fullmatch(name):
        return f"{path}: the name {name[:80]!r} must be letters, digits, '-' and '_'"
    if not description:
        return f"{path}: no description between the lines '---' at its beginning"
    own = directory.resolve() / "SKILL.md"
    shown = own if repository is None else path.relative_to(repository)
    if len(description) > MAX_DESCRIPTION_CHARS:
        description = f"{description[: MAX_DESCRIPTION_CHARS - 4]} ..."
    return Skill(name, description, str(shown), directory, repository)


def front_matter(text: str) -> dict[str, str]:
    """The top-level ``key: text`` pairs between the first two lines ``---``, each on one line.

    A value may be quoted, be a block (``|``, ``>``) or go on in indented lines. Skills are written
    with colons in plain values, which strict YAML refuses, hence no YAML parser.
    """
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != _FENCE:
        return {}
    fields: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines[1:]:
        if line.rstrip() == _FENCE:
            return {key: _joined(parts) for key, parts in fields.items()}
        key, colon, value = line.partition(":")
        if line[:1].isspace() or not line.strip():
            current.append(line.strip())
        elif colon and not key.startswith("#"):
            current = fields[key.strip()] = [value.strip()]
    return {}


def _joined(parts: Iterable[str]) -> str:
    first, *others = parts
    if first.rstrip("+-") in ("|", ">"):
        first = ""
    text = " ".join(part for part in (first, *others) if part)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return "".join(char for char in text if char.isprintable())


def _body(skill: Skill) -> str:
    text = read_inside(skill.directory / "SKILL.md", skill.repository, MAX_BODY_BYTES)
    owner = "the user's own" if skill.is_users_own else "the repository's word, not the user's"
    return f"[skill {skill.name}, {skill.path}, {owner}]\n{text.strip()}"
