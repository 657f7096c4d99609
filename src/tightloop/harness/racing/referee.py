"""Says whether a tree passes, by a process that holds nothing of before, as a turn's end is checked."""

from dataclasses import dataclass, replace

from tightloop.harness.racing.goal import as_fresh, is_pass
from tightloop.harness.racing.tree_state import State, state_of
from tightloop.sandbox.aside import Aside
from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.sandbox.processes import cpu_s
from tightloop.sandbox.workspace import Workspace

_NOT_STARTED = (126, 127)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a check came to. ``kept`` is a fork of just the tree that passed, None for any other."""

    command: Command
    result: CommandResult
    state: State | None
    kept: Workspace | None
    cpu_s: float = 0.0

    @property
    def is_pass(self) -> bool:
        """Whether the command passes on that tree."""
        return self.kept is not None


class Referee:
    """Checks trees of forks of one workspace. ``aside`` starts a fresh isolation for each."""

    def __init__(self, aside: Aside) -> None:
        self._aside = aside

    async def confirm(
        self, workspace: Workspace, command: Command, *, passed: CommandResult | None = None
    ) -> Confirmation:
        """Run ``command`` on a fork of the workspace's present state; ``passed`` is what a run of it
        came to that was a fresh process itself.

        Discard what is kept. Raises SandboxError when the check cannot be made or does not come to
        its end.
        """
        [kept] = await workspace.fork()
        try:
            state = await state_of(kept)
            found = Confirmation(command, passed, state, kept) if passed is not None else None
            if found is None:
                found = replace(await self._run(kept, command), state=state)
            if is_pass(found.result):
                return replace(found, kept=kept)
        except BaseException:
            await kept.discard()
            raise
        await kept.discard()
        return replace(found, kept=None)

    async def _run(self, workspace: Workspace, command: Command) -> Confirmation:
        [fork] = await workspace.fork()  # tests may write where they run
        try:
            async with self._aside.on(fork) as sandbox:
                result = await sandbox.run(as_fresh(command))
                spent_s = 0.0 if sandbox.pid is None else cpu_s(sandbox.pid)
        finally:
            await fork.discard()
        if result.exit_code < 0 and not result.timed_out:
            raise SandboxError("the fresh run was ended")
        if result.exit_code in _NOT_STARTED:
            said = result.output.strip()[-200:]
            raise SandboxError(f"the fresh run did not start: {said}")
        return Confirmation(command, result, None, None, spent_s)
