"""The command tool of a session that may only read: patches in shell form are refused too.

The sandbox keeps commands from writing; the agent's own patch code runs outside of it.
"""

from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolContext, ToolResult


class ReadingCommands(ExecCommand):
    """``ExecCommand`` without its way to apply patches."""

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """See ``Tool.run``."""
        if self.announce(arguments, context.item_id) is None:
            # Either a patch, which the command tool would apply itself, or no command at all.
            return ToolResult(
                "exec_command: this session may only read: it takes no patches, and nothing but "
                'commands such as {"cmd": "ls -la"}',
                is_ok=False,
            )
        return await super().run(arguments, context)
