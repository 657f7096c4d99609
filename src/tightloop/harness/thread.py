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
from tightloop.agent.approval.gate import Gate
from tightloop.agent.approval.interface import Approver
from tightloop.agent.loop import Agent
from tightloop.agent.nearer_rules import NearerRules
from tightloop.agent.prompt import Surroundings, resumed
from tightloop.agent.terminal.printable import printable
from tightloop.agent.tools.configuration import load_tools_configuration
from tightloop.agent.tools.images import without_images
from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.turn import TurnResult
from tightloop.client.session import Session
from tightloop.harness.audience import Audience
from tightloop.harness.backend import open_backend
from tightloop.harness.checkpoints import Checkpoints
from tightloop.harness.decisions import DecisionLog
from tightloop.harness.expiry import Limits as Expiry
from tightloop.harness.expiry import collect
from tightloop.harness.gating import choose, open_gate, turn_hooks
from tightloop.harness.holding import held
from tightloop.harness.marks import Marks
from tightloop.harness.model_facts import completed
from tightloop.harness.past import Past, load
from tightloop.harness.record import Record
from tightloop.harness.resuming import put_back
from tightloop.harness.settings import Settings
from tightloop.harness.side_notes import SideNotes
from tightloop.harness.toolbox import Toolbox, begin_toolbox
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Item
from tightloop.sandbox.policies import FULL_ACCESS, NETWORK, NamedPolicy
from tightloop.trace.log import RunLog, new_log_path

if TYPE_CHECKING:
    from tightloop.harness.checks.running import Checks
    from tightloop.harness.desk import Desk
    from tightloop.harness.workshop import Workshop
    from tightloop.sandbox.login_environment import LoginShell
    from tightloop.sandbox.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Thread:
    """What is open. ``labels`` say in words with what; ``listen`` is where its events go."""

    agent: Agent
    workspace: "Workspace"
    workshop: "Workshop"
    policy: NamedPolicy
    settings: Settings
    log: RunLog
    labels: Mapping[str, str]
    toolbox: Toolbox
    checkpoints: Checkpoints
    marks: Marks
    listen: said.Listener
    desk: "Desk"
    checks: "Checks"
    gate: Gate

    @property
    def id(self) -> str:
        """As ``thread.started`` says it."""
        return self.agent.thread_id

    @property
    def turn_id(self) -> str | None:
        """The running turn, as its events name it; None between turns."""
        return self.marks.turn_id

    async def run_turn(self, prompt: str, **more: Any) -> TurnResult:
        """A turn with everything that belongs around it; ``more`` as for ``Agent.run_turn``."""
        return await self.desk.run_turn(self.toolbox.expand(prompt), **more)

    async def apply(self, force: bool = False) -> list[str]:
        """The repository holds the work so far; see ``Desk.apply``, which has more to choose from.

        Raises WorkspaceConflict where the user has changed files too, unless ``force``.
        """
        from tightloop.sandbox.applying import WorkspaceConflict

        way = "force" if force else "refuse"
        applied = await self.desk.apply(on_conflict=way, accepts_risks=True)
        if applied.conflicts:
            raise WorkspaceConflict([conflict.path for conflict in applied.conflicts])
        return list(applied.written)

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
    approver: Approver | None = None,
    log_labels: Mapping[str, Any] | None = None,
) -> AsyncIterator[Thread]:
    """Everything that a conversation needs; ``thread.started`` is the first event.

    ``past`` goes on: its items are what the model is told first, and its work is put into the
    workspace. With ``is_fork`` it stays as it is, and a new conversation begins with the same.
    ``approver`` is asked what the approval mode wants asked; without one that is declined.
    Raises SandboxError, PolicyError or UsageError when it cannot begin; ThreadHeld, which is one,
    when another process is at it.
    """
    from tightloop.harness import undo
    from tightloop.harness.checks.beside import checks_beside
    from tightloop.harness.desk import Desk
    from tightloop.harness.overseers import Overseers
    from tightloop.harness.workshop import open_workshop
    from tightloop.sandbox.login_environment import LoginShell
    from tightloop.sandbox.way_out import way_out
    from tightloop.sandbox.workspace import open_workspace

    state_dir = settings.state_dir
    gating = choose(settings)
    policy = gating.policy
    kind = policy.kind(settings.sandbox)
    configuration = load_tools_configuration(settings.config)
    decisions, notes = DecisionLog(audience), SideNotes(audience)
    thread_id = past.id if past is not None and not is_fork else str(uuid.uuid4())
    async with AsyncExitStack() as stack:
        stack.callback(collect, state_dir, Expiry())
        stack.enter_context(held(state_dir, thread_id, settings.verb))
        if past is not None:  # as it is now that nobody else is at it
            past = load(state_dir, past.id)
        login = await LoginShell.begin(state_dir)  # it runs beside what follows
        stack.push_async_callback(login.close)
        workspace = await open_workspace(settings.repo, state_dir=state_dir)
        stack.push_async_callback(workspace.discard)
        restored = None if past is None else await put_back(workspace, past)
        toolbox = begin_toolbox(
            configuration, settings.repo, workspace=workspace.path, state_dir=state_dir, note=notes
        )
        stack.push_async_callback(toolbox.close)
        # Before the engine: the sandbox warms its tests while a model is loaded.
        socket = await stack.enter_async_context(way_out(policy, decisions))
        workshop = await open_workshop(
            stack,
            workspace,
            workspace.completed(toolbox.made_readable(policy.policy(workspace.path, socket))),
            kind=kind,
            source=await login.environment(),
            state_dir=state_dir,
            speculates=settings.speculates,
            note=notes,
        )
        checks = await stack.enter_async_context(
            checks_beside(settings, workspace, workshop, notes)
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
            "approval": gating.mode(workshop.sandbox.kind).value,
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
        checks.attach(lambda run: log.write("check", run=run))
        stack.callback(checks.attach, None)
        decisions.attach(log)
        stack.callback(decisions.detach)
        for line in _remarks(labels, policy, login, workshop, workspace):
            audience.note(line)
        gate = open_gate(
            stack,
            gating,
            audience,
            log,
            isolation=workshop.sandbox.kind,
            workspace=workspace.path,
            approver=approver,
            base={
                "thread_id": thread_id,
                "repository": str(workspace.repository),
                "workspace": str(workspace.path),
                "log": str(log.path),
            },
        )
        hear_turns = turn_hooks(gate)
        workshop.bench.allows_ahead = gate.allows_ahead

        marks = Marks()

        def listen(event: said.Event) -> None:
            toolbox.hear(event, listen)
            event = marks(event)
            if isinstance(event, said.TurnStarted):
                record.turn()
            if not isinstance(event, said.ItemUpdated):
                log.write("event", event=event)
            hear_turns(event)
            audience.listen(event)

        record = Record(
            state_dir,
            thread_id,
            redact,
            inherited=past.inherited if past is not None and is_fork else None,
            repository=str(workspace.repository),
            choice=_choice(settings),
            **labels,
        )
        stack.callback(record.close)
        kept = past.changes if past is not None else ()
        checkpoints = Checkpoints(workspace, record, kept)
        stack.push_async_callback(checkpoints.close)
        keeper = _Keeper(record, checkpoints)
        surroundings = _surroundings(workspace, workshop, policy)
        begin: list[Item] = [toolbox.guidance.opening(surroundings)]
        if past is not None and restored is not None:
            shown = past.items if backend.reads_images is not False else without_images(past.items)
            begin = [*shown, resumed(surroundings, len(restored.lost))]
            for path in restored.clashing:
                audience.note(f"changed by you since: {printable(path)}; here it is as it was left")
        bench = workshop.bench
        for text in toolbox.guidance.texts:
            bench.read_rules(text)
        tools = await toolbox.settle(
            is_read_only=policy.is_read_only, reads_images=backend.reads_images
        )
        limits, window = completed(settings, backend)

        def changed(paths: tuple[str, ...]) -> None:
            bench.changed(paths)
            checks.changed(paths)

        def touched() -> None:
            bench.touched()
            checks.renewed()
            checkpoints.touch()

        agent = Agent(
            Session(backend.transport, model=backend.model, tools=toolbox.definitions),
            tools,
            ToolContext(
                workspace.path,
                bench,
                redact=redact,
                gate=gate,
                remark=NearerRules(settings.repo, workspace.path, toolbox.guidance.num_rules_bytes),
                on_patch=bench.follow,
                on_changed=changed,
            ),
            opening=begin,
            limits=limits,
            window=window,
            listener=listen,
            overseer=Overseers((bench, checks)),
            keeper=keeper,
            thread_id=thread_id,
        )
        gate.on_question = agent.on_question
        if past is not None and is_fork:
            undo.copy(state_dir, past.id, thread_id)
        history = undo.History(undo.place_of(state_dir, thread_id))
        desk = Desk(agent, workspace, history, touched, audience.note, checkpoints.flush)
        await desk.open()
        thread = Thread(
            agent,
            workspace,
            workshop,
            policy,
            settings,
            log,
            labels,
            toolbox,
            checkpoints,
            marks,
            listen,
            desk,
            checks,
            gate,
        )
        places = {"log": str(log.path), "patch": str(thread.patch_path)}
        origin = {} if past is None else {"forked_from" if is_fork else "resumed": past.id}
        listen(said.ThreadStarted(thread.id, labels | places | origin))
        notes.attach(log)
        stack.callback(notes.detach)
        yield thread


def _choice(settings: Settings) -> dict[str, str]:
    """How the backend was asked for, so that the conversation can go on with it."""
    named = {
        "model": settings.model,
        "server": settings.server,
        "transport": settings.transport if settings.server else None,
        "api_key_env": settings.api_key_env,
    }
    return {name: value for name, value in named.items() if value is not None}


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
