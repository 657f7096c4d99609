"""Where an agent's commands run: its sandbox, and the workbench around it, from a run's options."""

import tomllib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tightloop.agent.tools.exec_command import is_test_run
from tightloop.agent.workbench import Setting, Workbench, open_workbench
from tightloop.harness.backend import UsageError
from tightloop.sandbox.aside import Open
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.set_up import CONFIG_NAME
from tightloop.sandbox.slots import open_twin
from tightloop.sandbox.verdicts import ShutOff
from tightloop.sandbox.warmed import Place, WarmedSandbox, with_warm_commands
from tightloop.sandbox.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Workshop:
    """A started sandbox and the workbench around it.

    ``policy`` and ``source`` are what the sandbox was opened with, ``open_one`` opens another of its kind
    for another policy: for work in forks of the workspace.
    """

    sandbox: PersistentSandbox
    bench: Workbench
    policy: Policy
    source: Mapping[str, str] | None
    open_one: Open


async def open_workshop(
    stack: AsyncExitStack,
    workspace: Workspace,
    policy: Policy,
    *,
    kind: str | None,
    source: Mapping[str, str] | None,
    state_dir: Path,
    speculates: bool,
    note: Callable[[str], None],
) -> Workshop:
    """Both, closed with the stack. ``policy`` is completed; ``source`` as for ``open_sandbox``.

    Raises SandboxError, or UsageError for a configuration of the repository that cannot be read.
    """
    test_command = configured_test_command(workspace.repository)
    if reason := ShutOff(state_dir).reason(workspace.repository):
        note(f"warm tests are off for this repository: {reason}")
        policy = replace(policy, warm_tests=False)
    sandbox = await open_sandbox(policy, kind=kind, source=source)
    stack.push_async_callback(sandbox.close)

    async def open_one(other: Policy) -> PersistentSandbox:
        return await open_sandbox(other, kind=sandbox.kind, source=source)

    place = Place(workspace.path, workspace.repository, state_dir)
    inner = await stack.enter_async_context(with_warm_commands(sandbox, place, note))
    setting = Setting(
        workspace,
        sandbox,
        policy,
        open_one,
        state_dir,
        sandbox=inner,
        confirm=inner.confirm if isinstance(inner, WarmedSandbox) else None,
        has_others=inner is not sandbox,
        speculates=speculates,
        test_command=test_command,
        note=note,
        open_aside=lambda: open_twin(workspace, policy, source=source),
    )
    bench = await stack.enter_async_context(open_workbench(setting))
    return Workshop(sandbox, bench, policy, source, open_one)


def configured_test_command(repository: Path) -> str | None:
    """``command`` in the table ``[test]`` of the repository's configuration, None without one.

    Raises UsageError naming what is wrong with it.
    """
    path = repository / CONFIG_NAME
    try:
        known = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    table = known.get("test", {})
    command = table.get("command") if isinstance(table, dict) else None
    if command is None:
        return None
    if not isinstance(command, str) or not is_test_run(command):
        raise UsageError(
            f"{path}: test.command must be a command line that runs tests, such as "
            f"'python -m pytest -q', got {command!r}"
        )
    return command
