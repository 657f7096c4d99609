"""A conversation on a private view of a repository, ready for turns.

::

    settings -> workspace -> sandbox + workbench -> backend -> tools -> Agent
                                     (the model is loaded while the sandbox warms its tests)

Everything that was opened is closed with the context; the conversation stays on disk and can go on
(``record``). Nothing of the repository is changed: that is
for whoever calls ``workspace.apply``.
"""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightloop.agent import events as said
from tightloop.agent.loop import Agent
from tightloop.agent.prompt import Surroundings, opening, project_rules, resumed
from tightloop.agent.terminal.printable import printable
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import Tool, ToolContext
from tightloop.agent.tools.reading_commands import ReadingCommands
from tightloop.client.session import Session
from tightloop.harness.audience import Audience
from tightloop.harness.backend import open_backend
from tightloop.harness.checkpoints import Checkpoints
from tightloop.harness.decisions import DecisionLog
from tightloop.harness.record import Past, Record
from tightloop.harness.settings import Settings
from tightloop.harness.side_notes import SideNotes
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Item
from tightloop.sandbox.policies import FULL_ACCESS, NETWORK, NamedPolicy, load_policy
from tightloop.trace.log import RunLog, new_log_path

if TYPE_CHECKING:
    from tightloop.harness.workshop import Workshop
    from tightloop.sandbox.login_environment import LoginShell
    from tightloop.sandbox.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Thread:
    """What is open. ``labels`` say in words with what."""

    agent: Agent
    workspace: "Workspace"
    workshop: "Workshop"
    policy: NamedPolicy
    settings: Settings
    log: RunLog
    labels: Mapping[str, str]

    @property
    def id(self) -> str:
        """As ``thread.started`` says it."""
        return self.agent.thread_id

    @property
    def patch_path(self) -> Path:
        """Where a patch file of the changes belongs."""
        return self.settings.state_dir.absolute() / "patches" / f"{self.log.path.stem}.patch"

    @property
    def none_ahead(self) -> str:
        """Why nothing ran ahead of the model in the last turn; empty when something did."""
        return self.workshop.bench.none_ahead if self.settings.speculates else ""


@asynccontextmanager
async def open_thread(
    settings: Settings,
    audience: Audience,
    *,
    past: Past | None = None,
    is_fork: bool = False,
    log_labels: Mapping[str, Any] | None = None,
) -> AsyncIterator[Thread]:
    """Everything that a conversation needs; ``thread.started`` is the first event.

    ``past`` goes on: its items are what the model is told first, and its work is put into the
    workspace. With ``is_fork`` it stays as it is, and a new conversation begins with the same.
    Raises SandboxError, PolicyError or UsageError when it cannot begin.
    """
    from tightloop.harness.workshop import open_workshop
    from tightloop.sandbox.login_environment import LoginShell
    from tightloop.sandbox.way_out import way_out
    from tightloop.sandbox.workspace import open_workspace

    state_dir = settings.state_dir
    policy = load_policy(settings.policy, settings.config)
    kind = policy.kind(settings.sandbox)
    decisions, notes = DecisionLog(audience), SideNotes(audience)
    async with AsyncExitStack() as stack:
        login = await LoginShell.begin(state_dir)  # it runs beside what follows
        stack.push_async_callback(login.close)
        workspace = await open_workspace(settings.repo, state_dir=state_dir)
        stack.push_async_callback(workspace.discard)
        if past is not None and past.changes:
            await workspace.put(past.changes)
        # Before the engine: the sandbox warms its tests while a model is loaded.
        socket = await stack.enter_async_context(way_out(policy, decisions))
        workshop = await open_workshop(
            stack,
            workspace,
            workspace.completed(policy.policy(workspace.path, socket)),
            kind=kind,
            source=await login.environment(),
            state_dir=state_dir,
            speculates=settings.speculates,
            note=notes,
        )
        backend = await open_backend(
            stack,
            model=settings.model,
            server=settings.server,
            transport=settings.transport,
            api_key_env=settings.api_key_env,
        )
        labels = {
            "model": backend.model,
            "backend": backend.description,
            "isolation": workshop.sandbox.kind,
            "policy": policy.name,
            "workspace": workspace.kind,
        }
        redact = workshop.sandbox.redactor.text
        log = RunLog(
            new_log_path(state_dir, settings.verb),
            redact=redact,
            verb=settings.verb,
            repository=str(workspace.repository),
            **{**labels, **(log_labels or {})},
        )
        stack.callback(log.close)
        decisions.attach(log)
        stack.callback(decisions.detach)
        for line in _remarks(labels, policy, login, workshop, workspace):
            audience.note(line)

        def listen(event: said.Event) -> None:
            if not isinstance(event, said.ItemUpdated):
                log.write("event", event=event)
            audience.listen(event)

        thread_id = past.id if past is not None and not is_fork else str(uuid.uuid4())
        record = Record(
            state_dir, thread_id, redact, repository=str(workspace.repository), **labels
        )
        stack.callback(record.close)
        kept = past.changes if past is not None and past.id == thread_id else ()
        checkpoints = Checkpoints(workspace, record, kept)
        stack.push_async_callback(checkpoints.close)
        keeper = _Keeper(record, checkpoints)
        rules = project_rules(settings.repo)
        surroundings = _surroundings(workspace, workshop, policy)
        begin: list[Item] = [opening(surroundings, rules)]
        if past is not None:
            begin = [*past.items, resumed(surroundings, past.num_missing)]
        bench = workshop.bench
        for rule in rules:
            bench.read_rules(rule.text)
        tools: list[Tool] = (
            [ReadingCommands()] if policy.is_read_only else [ExecCommand(), ApplyPatch()]
        )
        definitions = [tool.definition() for tool in tools]
        agent = Agent(
            Session(backend.transport, model=backend.model, tools=definitions),
            tools,
            ToolContext(
                workspace.path,
                bench,
                redact=redact,
                on_patch=bench.follow,
                on_changed=bench.changed,
            ),
            opening=begin,
            limits=settings.limits,
            listener=listen,
            overseer=bench,
            keeper=keeper,
            thread_id=thread_id,
        )
        thread = Thread(agent, workspace, workshop, policy, settings, log, labels)
        places = {"log": str(log.path), "patch": str(thread.patch_path)}
        listen(said.ThreadStarted(thread.id, labels | places))
        notes.attach(log)
        stack.callback(notes.detach)
        yield thread


def _remarks(
    labels: Mapping[str, str],
    policy: NamedPolicy,
    login: "LoginShell",
    workshop: "Workshop",
    workspace: "Workspace",
) -> list[str]:
    """What a person should know before the first turn, loudest where isolation is weak."""
    sandbox = workshop.sandbox
    lines = [" | ".join(f"{name} {printable(value)}" for name, value in labels.items())]
    if policy.needs_proxy:
        lines.append(f"network: {', '.join(_hosts(policy))}; nothing else")
    if login.problem:
        lines.append(f"variables of the login shell are unknown: {printable(login.problem)}")
    if sandbox.kind == "none":
        lines.append("no isolation: commands can read and change whatever you can")
    elif sandbox.not_stronger:
        lines.append(f"weaker isolation than possible: {printable(sandbox.not_stronger)}")
    if sandbox.lacks:
        lines.append(f"one layer of isolation is missing: {sandbox.lacks}")
    if workspace.note:
        lines.append(printable(workspace.note))
    return lines


def _hosts(policy: NamedPolicy) -> Sequence[str]:
    """The hosts of a policy, as a person wrote them."""
    return tuple(str(rule) for rule in policy.hosts)


def _surroundings(
    workspace: "Workspace", workshop: "Workshop", policy: NamedPolicy
) -> Surroundings:
    has_network = policy.level in (NETWORK, FULL_ACCESS)
    return Surroundings(workspace.path, workshop.bench.kind, has_network, hosts=_hosts(policy))


@dataclass(frozen=True, slots=True)
class _Keeper:
    """Keeps the conversation, and the work after each call."""

    record: Record
    checkpoints: Checkpoints

    def settled(self, items: Sequence[Item]) -> None:
        """See ``Keeper``."""
        self.record.settled(items)

    def done(self, item: Item) -> None:
        """See ``Keeper``."""
        self.record.done(item)
        if isinstance(item, FunctionCallOutput | CustomToolCallOutput):
            self.checkpoints.touch()
