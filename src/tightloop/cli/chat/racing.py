"""The next turn as a race: ``/race N`` asks for it, and the turn that begins then is one."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tightloop.harness.backend import UsageError
from tightloop.sandbox.interface import SandboxError

if TYPE_CHECKING:
    from tightloop.agent.turn import TurnResult
    from tightloop.harness.racing.modes import Mode
    from tightloop.harness.thread import Thread

ASKING = ("ask", "read-only")


class Racing:
    """How many candidates the next turn has; 1 when it is an ordinary one."""

    def __init__(self) -> None:
        self.num = 1
        self.mode: Mode | None = None
        """The race that runs."""

    def choose(self, argument: str, approval: str) -> str:
        """What there is to say about ``/race ARGUMENT``. Raises ValueError for what is no race."""
        from tightloop.harness.racing.modes import MAX_CANDIDATES

        if argument:
            if not argument.isdecimal() or not 1 <= int(argument) <= MAX_CANDIDATES:
                raise ValueError(f"give a number from 1 to {MAX_CANDIDATES}, got {argument!r}")
            if int(argument) > 1 and approval in ASKING:
                raise ValueError(
                    f"candidates cannot ask; /approvals auto allows it, the mode is {approval}"
                )
            self.num = int(argument)
        if self.num == 1:
            return "the next turn is an ordinary one; /race N makes it a race of N"
        return f"the next turn is a race of {self.num}: the first whose tests pass wins"

    async def run_turn(
        self, thread: "Thread", prompt: str, note: Callable[[str], None]
    ) -> "TurnResult":
        """One turn as it was asked for, the next ones are ordinary. Where no race can be had, ``note``
        says why, and the turn is an ordinary one: the message is not lost."""
        num, self.num = self.num, 1
        if num == 1:
            return await thread.run_turn(prompt)
        from contextlib import AsyncExitStack

        from tightloop.harness.racing.modes import RACE, Wanted, open_mode
        from tightloop.harness.racing.result import RacedResult, summary

        async with AsyncExitStack() as stack:
            try:
                mode = await stack.enter_async_context(open_mode(thread, Wanted(RACE, num)))
            except (SandboxError, UsageError, OSError) as error:
                note(f"no race, but one attempt: {error}")
                return await thread.run_turn(prompt)
            self.mode = mode
            try:
                result = await mode.run_turn(prompt)
            finally:
                self.mode = None
            if isinstance(result, RacedResult) and result.race is not None:
                note(summary(result.race))
            return result
