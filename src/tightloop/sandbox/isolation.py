"""Picks the strongest isolation the machine really has."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tightloop.sandbox import bubblewrap, confine, unconfined
from tightloop.sandbox.environment import snapshot
from tightloop.sandbox.interface import Command, Policy, SandboxError, SandboxTooSlow
from tightloop.sandbox.launch import Kind
from tightloop.sandbox.redaction import Redactor, secret_values
from tightloop.sandbox.session import START_LIMIT_S, PersistentSandbox, workspace_of

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (bubblewrap.KIND, confine.KIND, unconfined.KIND)
}
"""By name, strongest first. ``none`` is never chosen, only named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether one kind works here; ``detail`` says what was seen, ``remedy`` what would help.

    ``lacks`` is a layer that the kind goes without here.
    """

    kind: str
    works: bool
    detail: str
    remedy: str = ""
    lacks: str = ""


async def open_sandbox(
    policy: Policy,
    *,
    kind: str | None = None,
    source: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
    start_limit_s: float = START_LIMIT_S,
) -> PersistentSandbox:
    """A started sandbox of the named kind, or of the strongest kind that works here.

    ``source`` are the variables that commands may know the harmless ones of, by default those of
    this process. Values of secrets among them, of the policy's own and of ``secrets`` are
    unreadable in every output. Every kind is really entered and says from inside that it has no
    capabilities and cannot gain any. Raises SandboxError with every reason and remedy when none
    works, or when the kind is unknown; SandboxTooSlow when one takes more than ``start_limit_s``:
    a busy machine is no reason to be content with a weaker kind.
    """
    if kind is not None and kind not in KINDS:
        raise SandboxError(f"unknown isolation {kind!r}: known are {', '.join(KINDS)}")
    policy = _resolved(policy)
    source = os.environ if source is None else source
    redactor = redactor_for(policy, source, secrets)
    names = [kind] if kind else [name for name in KINDS if name != "none"]
    reasons = []
    for name in names:
        environment = snapshot(source, policy.workspace)
        sandbox = PersistentSandbox(
            KINDS[name], policy, environment, redactor, start_limit_s=start_limit_s
        )
        try:
            await sandbox.start()
        except SandboxTooSlow:
            raise
        except SandboxError as error:
            reasons.append(str(error))
        else:
            sandbox.not_stronger = "; ".join(reasons)
            return sandbox
    raise SandboxError("\n".join(reasons))


def redactor_for(
    policy: Policy, source: Mapping[str, str], secrets: Iterable[str] = ()
) -> Redactor:
    """For what commands print: secrets of this process, of ``source`` and of the policy, and
    those that are named, however short."""
    named = tuple(secrets)
    known = (os.environ, source, policy.environment)
    values = [one for variables in known for one in secret_values(variables)]
    return Redactor((*values, *named), short=named)


def _resolved(policy: Policy) -> Policy:
    workspace = workspace_of(policy)
    protected = tuple(
        workspace / path.relative_to(policy.workspace)
        if path.is_relative_to(policy.workspace)
        else workspace / path
        for path in policy.protected
    )
    return replace(policy, workspace=workspace, protected=protected)


async def probe() -> list[Finding]:
    """Tries every isolating kind for real, strongest first: start it and run ``true`` inside."""
    return [await _probe_one(name) for name in KINDS if name != "none"]


async def _probe_one(name: str) -> Finding:
    with tempfile.TemporaryDirectory(prefix="tightloop-probe-") as directory:
        policy = Policy(workspace=Path(directory), warm_tests=False)
        try:
            sandbox = await open_sandbox(policy, kind=name)
        except SandboxError as error:
            return Finding(name, False, str(error), KINDS[name].remedy)
        try:
            result = await sandbox.run(Command(script="true", timeout_s=10.0))
        finally:
            await sandbox.close()
    if result.exit_code != 0:
        detail = f"'true' ended with {result.exit_code} inside: {result.output.strip()}"
        return Finding(name, False, detail, KINDS[name].remedy)
    seen = "entered; no capabilities, no new privileges, seccomp filter on"
    return Finding(name, True, seen, lacks=sandbox.lacks)


async def describe() -> str:
    """One line for a person: which isolation is used, and why not a stronger one."""
    weaker: list[str] = []
    for finding in await probe():
        if finding.works:
            reason = f" ({'; '.join(weaker)})" if weaker else ""
            lacks = f"; {finding.lacks}" if finding.lacks else ""
            return f"isolation: {finding.kind}, {finding.detail}{lacks}{reason}"
        weaker.append(f"{finding.kind} does not work: {finding.detail}")
    return f"isolation: none possible ({'; '.join(weaker)})"
