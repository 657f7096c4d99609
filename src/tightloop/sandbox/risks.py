"""Changes that reach further than the files they touch: a person must look before they are kept."""

import os
import tomllib
from dataclasses import dataclass

from tightloop.sandbox.entries import Change, Entry

PROTECTED_NAMES = frozenset(
    {
        ".git", ".hg", ".svn", ".jj", ".gitmodules", ".codex", ".agents", ".claude", ".vscode",
        ".idea", ".mcp.json", ".envrc", ".bashrc", ".npmrc", ".tightloop",
        ".tightloop.toml",
    }
)  # fmt: skip
"""Names that make other programs run things later, at any depth."""

_RUN_ELSEWHERE = (
    *(".github", ".gitlab-ci.yml", ".circleci", ".buildkite", "azure-pipelines.yml"),
    *("Jenkinsfile", ".pre-commit-config.yaml", ".husky", ".gitattributes", ".devcontainer"),
)


@dataclass(frozen=True, slots=True)
class Risk:
    """One change to look at. ``is_severe``: the repository should not get it without a person."""

    path: str
    reason: str
    is_severe: bool


def risk_of(change: Change) -> Risk | None:
    """What a person should know about the change; None for an ordinary one."""
    after = change.after
    if after is not None and after.is_link and _leads_out(change.path, os.fsdecode(after.content)):
        return Risk(change.path, "a link that leads out of the repository", is_severe=True)
    parts = [part.casefold() for part in change.path.split("/")]
    if PROTECTED_NAMES.intersection(parts):
        return Risk(change.path, "can make other programs run things", is_severe=True)
    if parts[0] in {name.casefold() for name in _RUN_ELSEWHERE}:
        return Risk(change.path, "runs outside this sandbox once you commit", is_severe=False)
    if parts[-1] == "pyproject.toml" and _commands(change.before) != _commands(change.after):
        return Risk(change.path, "what runs when it is built or installed", is_severe=False)
    return None


def _commands(entry: Entry | None) -> object:
    """What a ``pyproject.toml`` makes other programs run; its text if it cannot be read."""
    if entry is None:
        return []
    try:
        said = tomllib.loads(entry.content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return entry.content
    project = said.get("project")
    tables = project if isinstance(project, dict) else {}
    names = ("scripts", "gui-scripts", "entry-points")
    found = [tables[name] for name in names if name in tables]
    return found + [said[name] for name in ("build-system",) if name in said]


def _leads_out(path: str, target: str) -> bool:
    """By its text: what lies on the way may be a link too, but that one is judged by itself."""
    place = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return place == ".." or place.startswith(("/", "../"))
