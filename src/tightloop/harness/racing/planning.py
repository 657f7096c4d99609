"""Two models: a planner, which reads and says how, and an executor, which edits and tests.

The planner (slow, strong) gets the task, what the conversation opens with, and commands that can only
read; it writes a short plan. The executor (fast) gets task and plan. The planner is asked again, with the
changes so far and the output of the tests, when the executor

- has run the goal's test command ``REPLAN_AFTER`` times in a row on changed files, and it failed, or
- says that it is done or gives up, and the command does not pass;

at most ``MAX_PLANS`` plans a turn. In the first case the executor goes on meanwhile, and the plan is told
before its next request. A planner that cannot be reached costs the plan, not the turn.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from tightloop.agent import events as said
from tightloop.agent.loop import Agent
from tightloop.agent.prompt import Surroundings, opening, project_rules
from tightloop.agent.tools.interface import Tool, ToolContext
from tightloop.agent.tools.output import shorten_output
from tightloop.agent.tools.reading_commands import ReadingCommands
from tightloop.agent.turn import Limits, Status
from tightloop.client.session import Session
from tightloop.harness.backend import open_backend
from tightloop.harness.racing.bench import CandidateBench
from tightloop.harness.racing.goal import Goal
from tightloop.harness.thread import Thread
from tightloop.protocol.items import Message, TextPart
from tightloop.sandbox.interface import SandboxError
from tightloop.trace.clock import now_ns
from tightloop.trace.latency import RoundTrip, round_trip_s

MAX_PLANS = 3
REPLAN_AFTER = 2
LIMITS = Limits(max_turns=12, wall_s=300.0)
"""Of each plan."""
MAX_PLAN_CHARS = 6000
MAX_EVIDENCE_CHARS = 12_000
UNTOLD = "[plan of another model, not by the user]"

_RULES = """\
You plan, and another model does the work: it edits the files and runs the tests, quickly, and knows \
nothing but the task and your plan. You can read with exec_command, and change nothing.

Read only what you need: the failing test, the code that it leads to. Then answer with the plan and \
nothing else, in at most twelve lines: the cause as far as you know it; which files and functions to \
change, and how; what to leave alone; the test command that shows that it is done."""


class Planner:
    """One conversation's; an ``Adviser`` of contests."""

    def __init__(self, agent: Agent, session: Session, model: str, thread: Thread) -> None:
        self._agent = agent
        self._session = session
        self._model = model
        self._thread = thread
        self._lock = asyncio.Lock()
        self._num_plans = 0
        self._trips: list[RoundTrip] = []  # of this turn's plans
        self._goal = Goal(None, "")

    async def begin(self, prompt: str, goal: Goal) -> str:
        """What the executors are asked: the task with a first plan, if there is one."""
        self._num_plans, self._goal = 0, goal
        self._trips = []
        plan = await self._plan(f"The task:\n\n{prompt}")
        return f"{prompt}\n\n{plan}" if plan else prompt

    async def advise(self, bench: CandidateBench, *, is_last: bool) -> str:
        """A new plan for a candidate that has failed; empty when it is not time for one."""
        if not is_last and bench.num_failures < REPLAN_AFTER:
            return ""
        async with self._lock:
            if self._num_plans >= MAX_PLANS:
                return ""
            bench.num_failures = 0
            return await self._plan(await _evidence(bench))

    def figures(self, executors: Sequence[RoundTrip]) -> tuple[said.ModelFigures, ...]:
        """What both models took in this turn; the executors' round trips are given."""
        executor = self._thread.labels.get("model", "")
        return (
            _figures("planner", self._model, self._trips),
            _figures("executor", executor, executors),
        )

    async def _plan(self, text: str) -> str:
        self._num_plans += 1
        start_ns = now_ns()
        try:
            try:
                result = await self._agent.run_turn(text)
            finally:
                self._trips += self._session.trips
        except SandboxError as error:
            failure, plan = str(error), ""
        else:
            plan = result.text.strip()[:MAX_PLAN_CHARS] if result.status is Status.COMPLETED else ""
            failure = result.message or "it said nothing"
        shown = plan or f"no plan: {failure}"
        wall_s = (now_ns() - start_ns) / 1e9
        self._thread.listen(said.Planned(self._model, self._num_plans, shown, round(wall_s, 6)))
        return f"{UNTOLD}\n{plan}" if plan else ""


async def _evidence(bench: CandidateBench) -> str:
    try:
        diff = await bench.place.workspace.diff()
    except SandboxError as error:
        diff = f"(cannot be read: {error})"
    last = bench.last_goal or bench.last
    output = last.result.output if last is not None else "(no test command was run)"
    return (
        "The plan has not led there. What was changed so far:\n\n"
        f"{shorten_output(diff, MAX_EVIDENCE_CHARS) or '(nothing)'}\n\nThe last test run:\n\n"
        f"{shorten_output(output, MAX_EVIDENCE_CHARS)}\n\n"
        "Your own commands see the files as they were before. Write a new plan, from here on."
    )


def _figures(role: str, model: str, trips: Sequence[RoundTrip]) -> said.ModelFigures:
    return said.ModelFigures(
        role,
        model,
        len(trips),
        round(sum(map(round_trip_s, trips)), 6),
        sum(trip.input_tokens for trip in trips),
        sum(trip.cached_tokens for trip in trips),
        sum(trip.output_tokens for trip in trips),
    )


@asynccontextmanager
async def open_planner(thread: Thread) -> AsyncIterator[Planner]:
    """The planner that the thread's settings name, with a read-only sandbox of its own.

    Raises UsageError when it cannot be reached, SandboxError when no isolation can be had.
    """
    settings, workshop, workspace = thread.settings, thread.workshop, thread.workspace
    async with AsyncExitStack() as stack:
        backend = await open_backend(
            stack,
            model=settings.planner,
            server=settings.planner_server,
            transport=settings.transport,
            api_key_env=settings.planner_key_env,
        )
        tools: list[Tool] = []
        sandbox = workshop.sandbox
        if sandbox.kind != "none":  # where nothing isolates, nothing keeps commands from writing
            policy = replace(workshop.policy, is_read_only=True, warm_tests=False)
            sandbox = await workshop.open_one(policy)
            stack.push_async_callback(sandbox.close)
            tools.append(ReadingCommands())
        session = Session(
            backend.transport,
            model=backend.model,
            tools=[tool.definition() for tool in tools],
        )
        surroundings = Surroundings(workspace.path, sandbox.kind)
        agent = Agent(
            session,
            tools,
            ToolContext(
                workspace.path, sandbox, redact=workshop.sandbox.redactor.text, gate=thread.gate
            ),
            opening=[
                opening(surroundings, project_rules(settings.repo)),
                Message("developer", (TextPart("input_text", _RULES),)),
            ],
            limits=LIMITS,
        )
        yield Planner(agent, session, backend.model, thread)
