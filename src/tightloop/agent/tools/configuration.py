"""The tables ``[tools]``, ``[skills]`` and ``[mcp.NAME]`` of the user's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tightloop.agent.tools.mcp.configuration import (
    McpConfigError,
    McpTable,
    in_words,
    read_mcp_tables,
)
from tightloop.sandbox.policies import PolicyError, config_path, read_tables

OWN_SKILLS, OWN_RULES = "skills", "AGENTS.md"
"""What is looked for beside the configuration file."""


class ToolsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[tools]``. ``view_image`` is None when the server's model list decides."""

    view_image: bool | None = None
    update_plan: bool = False
    mcp_wait_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 5.0


class SkillsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[skills]``. ``repository`` says whether those of repositories are listed."""

    directories: list[str] = []
    repository: bool = True


@dataclass(frozen=True, slots=True)
class ToolsConfiguration:
    """What the user's configuration says about tools. ``home`` is the directory of the file."""

    home: Path
    tools: ToolsTable = field(default_factory=ToolsTable)
    skills: SkillsTable = field(default_factory=SkillsTable)
    servers: Mapping[str, McpTable] = field(default_factory=dict)

    @property
    def skill_directories(self) -> list[Path]:
        """The user's own, in order of precedence."""
        own = [self.home / Path(name).expanduser() for name in self.skills.directories]
        return [self.home / OWN_SKILLS, *own]

    @property
    def users_rules(self) -> Path:
        """The user's own AGENTS.md."""
        return self.home / OWN_RULES


def load_tools_configuration(path: Path | None = None) -> ToolsConfiguration:
    """By the rules of ``policies.read_config``. Raises PolicyError naming the file and the key."""
    place = path or config_path()
    tables = read_tables(path)
    try:
        return ToolsConfiguration(
            place.parent,
            _convert(tables.get("tools", {}), ToolsTable, f"{place}: [tools]"),
            _convert(tables.get("skills", {}), SkillsTable, f"{place}: [skills]"),
            read_mcp_tables(tables, str(place)),
        )
    except McpConfigError as error:
        raise PolicyError(str(error)) from error


def _convert(value: object, kind: type[Any], place: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{place} {in_words(str(error), kind)}") from error
