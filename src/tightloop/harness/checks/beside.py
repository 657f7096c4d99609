"""The checks of a conversation, from its settings and its workshop."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tightloop.harness.checks.running import Checks, CheckSetting, open_checks
from tightloop.harness.checks.settings import read_checks
from tightloop.harness.settings import Settings
from tightloop.harness.workshop import Workshop
from tightloop.sandbox.workspace import Workspace


@asynccontextmanager
async def checks_beside(
    settings: Settings, workspace: Workspace, workshop: Workshop, note: Callable[[str], None]
) -> AsyncIterator[Checks]:
    """Those that the repository and the user have configured, ended with the context.

    Raises UsageError or PolicyError for a configuration that cannot be read.
    """
    setting = CheckSetting(
        workspace,
        workshop.policy,
        workshop.sandbox.kind,
        workshop.open_one,
        note=note,
        ready=workshop.sandbox.warm_tests_ready,  # needed sooner than any check
    )
    checks = read_checks(workspace.repository, settings.config)
    async with open_checks(checks, setting) as running:
        yield running
