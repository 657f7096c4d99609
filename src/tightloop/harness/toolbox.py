"""The tools of a conversation, and what its opening message says of them.

``begin`` starts servers in the background; ``settle`` fixes the list once, because a tool that came
later would throw away the prefix that servers have cached. To offer another tool, add it to
``_built_in``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tightloop.agent import events as said
from tightloop.agent.confined_text import read_inside
from tightloop.agent.prompt import MAX_RULES_BYTES, Rules, Surroundings, opening, project_rules
from tightloop.agent.skills import Skills, find_skills
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.configuration import ToolsConfiguration
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import Tool
from tightloop.agent.tools.mcp.servers import McpServers, ServerState
from tightloop.agent.tools.reading_commands import ReadingCommands
from tightloop.agent.tools.update_plan import UpdatePlan
from tightloop.agent.tools.view_image import ViewImage
from tightloop.protocol.items import Message
from tightloop.sandbox.interface import Policy


@dataclass(frozen=True, slots=True)
class Guidance:
    """What the user and the project have written for agents, read once."""

    users_rules: str
    rules: list[Rules]
    skills: Skills

    @property
    def num_rules_bytes(self) -> int:
        """Of all rules in the opening message."""
        return sum(len(text.encode()) for text in (self.users_rules, *self.texts))

    @property
    def texts(self) -> list[str]:
        """The project's rules, outermost first."""
        return [rule.text for rule in self.rules]

    def opening(self, surroundings: Surroundings) -> Message:
        """The message that opens a conversation."""
        return opening(
            surroundings, self.rules, skills=self.skills.section(), users_rules=self.users_rules
        )


def read_guidance(configuration: ToolsConfiguration, directory: Path) -> Guidance:
    """For work in ``directory``. The user's own rules come out of the same budget as the project's."""
    own = read_inside(configuration.users_rules, None, MAX_RULES_BYTES)
    rules = project_rules(directory, MAX_RULES_BYTES - len(own.encode()))
    repository = directory if configuration.skills.repository else None
    return Guidance(own, rules, find_skills(configuration.skill_directories, repository))


class Toolbox:
    """One conversation's. ``reads_images`` says whether its model can see; None when unknown."""

    def __init__(
        self,
        configuration: ToolsConfiguration,
        guidance: Guidance,
        servers: McpServers,
        note: Callable[[str], None],
    ) -> None:
        self.guidance = guidance
        self.reads_images: bool | None = None
        self.tools: tuple[Tool, ...] = ()
        self._configuration = configuration
        self._servers = servers
        self._note = note
        self._plan: UpdatePlan | None = None

    @property
    def skills(self) -> Skills:
        """Those that the user can mention as ``$name``."""
        return self.guidance.skills

    @property
    def servers(self) -> list[ServerState]:
        """What became of each MCP server."""
        return self._servers.states

    def made_readable(self, policy: Policy) -> Policy:
        """The policy with which commands can read the user's own skills, and what lies beside them."""
        own = (skill.directory.resolve() for skill in self.skills.found if skill.is_users_own)
        return replace(policy, read_only=(*policy.read_only, *dict.fromkeys(own)))

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """For a session: the same for the whole conversation."""
        return [tool.definition() for tool in self.tools]

    async def settle(self, *, is_read_only: bool, reads_images: bool | None) -> Sequence[Tool]:
        """Fix the list of tools. Called once, when the model is known."""
        wanted = self._configuration.tools.view_image
        self.reads_images = reads_images if wanted is None else wanted
        sees = bool(self.reads_images)
        foreign = await self._servers.tools(self._configuration.tools.mcp_wait_s, sees=sees)
        self.tools = (*self._built_in(is_read_only=is_read_only, sees=sees), *foreign)
        for problem in self.skills.problems:
            self._note(problem)
        if left_out := self.skills.left_out:
            self._note(f"skills beyond the list's limit, left out: {', '.join(left_out)}")
        return self.tools

    def expand(self, prompt: str) -> str:
        """The prompt with the skills behind it that it mentions as ``$name``."""
        return self.skills.expanded(prompt)

    def hear(self, event: said.Event, listener: said.Listener) -> None:
        """Before each event is told: a plan ends with its turn."""
        if self._plan is not None and isinstance(event, said.TurnCompleted | said.TurnFailed):
            self._plan.end_turn(listener)

    async def close(self) -> None:
        """End what was started."""
        await self._servers.close()

    def _built_in(self, *, is_read_only: bool, sees: bool) -> list[Tool]:
        tools: list[Tool] = [ReadingCommands()] if is_read_only else [ExecCommand(), ApplyPatch()]
        if sees:
            tools.append(ViewImage())
        if self._configuration.tools.update_plan:
            self._plan = UpdatePlan()
            tools.append(self._plan)
        return tools


def begin_toolbox(
    configuration: ToolsConfiguration,
    directory: Path,
    *,
    workspace: Path,
    state_dir: Path,
    note: Callable[[str], None],
) -> Toolbox:
    """Read what is written for agents in ``directory``, and start the servers beside what follows."""
    guidance = read_guidance(configuration, directory)
    servers = McpServers(configuration.servers, workspace, state_dir, note)
    servers.begin()
    return Toolbox(configuration, guidance, servers, note)
