"""The tool ``update_plan``: the model's list of steps, shown to whoever watches."""

from typing import Any

import msgspec

from tightloop.agent.events import ItemCompleted, Listener, ThreadItem, Todo, TodoList
from tightloop.agent.tools.arguments import ArgumentsError, read_object
from tightloop.agent.tools.interface import ToolContext, ToolResult

MAX_STEPS = 50
MAX_STEP_CHARS = 300
_EXAMPLE = '{"plan": [{"step": "find the cause", "status": "in_progress"}]}'
_STATES = ("pending", "in_progress", "completed")


class UpdatePlan:
    """``{"plan": [{"step": str, "status": str}]}``. One list a turn, replaced by each call.

    ``end_turn`` completes the item of the turn's list, which ``Tool`` calls only start and update.
    """

    name = "update_plan"
    is_ordered = False

    def __init__(self) -> None:
        self._shown: TodoList | None = None

    def definition(self) -> dict[str, Any]:
        """See ``Tool.definition``."""
        step = {
            "type": "object",
            "properties": {
                "step": {"type": "string"},
                "status": {"type": "string", "enum": list(_STATES)},
            },
            "required": ["step", "status"],
            "additionalProperties": False,
        }
        return {
            "type": "function",
            "name": self.name,
            "description": "Shows the user your plan for a long task: all steps, each time. Call it "
            "together with other tools, never alone.",
            "strict": False,
            "parameters": {
                "type": "object",
                "properties": {"plan": {"type": "array", "items": step}},
                "required": ["plan"],
                "additionalProperties": False,
            },
        }

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        """See ``Tool.announce``; None for all but the turn's first list."""
        if self._shown is not None:
            return None
        try:
            self._shown = TodoList(item_id, _read(arguments))
        except ArgumentsError:
            return None
        return self._shown

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """See ``Tool.run``."""
        try:
            todos = _read(arguments)
        except ArgumentsError as error:
            return ToolResult(str(error), is_ok=False)
        shown = self._shown or TodoList(context.item_id)
        new = msgspec.structs.replace(shown, items=todos)
        changed = None if new == self._shown else new
        self._shown = new
        return ToolResult("The plan is shown.", True, item=changed, is_ongoing=True)

    def end_turn(self, listener: Listener) -> None:
        """Nothing more is added to the turn's list; ``listener`` hears of its last state."""
        if self._shown is not None:
            listener(ItemCompleted(self._shown))
        self._shown = None


def _read(arguments: str) -> tuple[Todo, ...]:
    steps = read_object(arguments, "update_plan", _EXAMPLE).get("plan")
    if not isinstance(steps, list) or not 0 < len(steps) <= MAX_STEPS:
        raise ArgumentsError(
            f"update_plan: 'plan' must be a list of 1 to {MAX_STEPS} steps. Send {_EXAMPLE}"
        )
    return tuple(map(_todo, steps))


def _todo(step: object) -> Todo:
    text = step.get("step") if isinstance(step, dict) else None
    state = step.get("status") if isinstance(step, dict) else None
    if not isinstance(text, str) or not text.strip() or state not in _STATES:
        raise ArgumentsError(
            f"update_plan: each step needs a text in 'step' and one of {', '.join(_STATES)} in "
            f"'status'. Send {_EXAMPLE}"
        )
    return Todo(text.strip()[:MAX_STEP_CHARS], state == "completed")
