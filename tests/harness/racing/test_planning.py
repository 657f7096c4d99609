"""A planner that reads and plans, an executor that does the work."""

from pathlib import Path

from tests.harness.racing.track import GREEN, PROMPT, RED, patch, runs_tests, track, words
from tightloop.agent import events as said
from tightloop.agent.turn import Status
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, call_answer
from tightloop.harness.racing.modes import Wanted
from tightloop.harness.racing.planning import MAX_PLANS, UNTOLD
from tightloop.harness.racing.result import RacedResult, models_line
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Message

WRONG = "echo 2 failed; exit 2\n"
_OUTPUTS = (FunctionCallOutput, CustomToolCallOutput)


def texts(request: GenerationRequest, role: str = "user") -> list[str]:
    items = request.context()
    return [item.text for item in items if isinstance(item, Message) and item.role == role]


def is_planner(request: GenerationRequest) -> bool:
    return any(
        "You plan, and another model does the work" in t for t in texts(request, "developer")
    )


def num_outputs(request: GenerationRequest) -> int:
    return sum(isinstance(item, _OUTPUTS) for item in request.context())


async def test_the_executor_works_by_the_plan(tmp_path: Path) -> None:
    """The planner has read the repository with a command that could not have written there."""
    asked: list[str] = []

    def script(request: GenerationRequest) -> Answer:
        if is_planner(request):
            if not num_outputs(request):
                return call_answer("exec_command", {"cmd": "cat m; echo x > m"}, "call_p")
            return words("Make m say that one test passed.")
        asked.append(texts(request)[0])
        answers = [patch(RED, GREEN), runs_tests(), words("Mended.")]
        return answers[min(num_outputs(request), 2)]

    async with track(tmp_path, script, Wanted(), planner="scripted", planner_server="same") as on:
        result = await on.mode.run_turn(PROMPT)
        assert (result.status, on.file()) == (Status.COMPLETED, GREEN)
        assert asked[0] == f"{PROMPT}\n\n{UNTOLD}\nMake m say that one test passed."
        (plan,) = [event for event in on.heard.events if isinstance(event, said.Planned)]
        assert (plan.number, plan.text) == (1, "Make m say that one test passed.")
        assert isinstance(result, RacedResult)
        planner, executor = result.models
        assert (planner.role, planner.num_responses) == ("planner", 2)
        assert (executor.role, executor.num_responses) == ("executor", 3)
        assert models_line(result.models).startswith("planner scripted: ")
        reading = next(
            item.output
            for request in on.engine.requests
            if is_planner(request)
            for item in request.context()
            if isinstance(item, FunctionCallOutput)
        )
        assert "echo 1 failed" in reading
        assert "Read-only file system" in reading


async def test_the_planner_is_asked_again_after_failures(tmp_path: Path) -> None:
    """With the changes so far and what the tests printed; the new plan reaches the executor."""
    evidence: list[str] = []

    def script(request: GenerationRequest) -> Answer:
        if is_planner(request):
            evidence.append(texts(request)[-1])
            return words(f"Plan {len(evidence)}.")
        if any("Plan 2." in text for text in texts(request)):
            answers = [patch(WRONG, GREEN), runs_tests(), words("Mended.")]
            return answers[min(num_outputs(request) - 2, 2)]
        return [patch(RED, WRONG), runs_tests(), words("I give up.")][min(num_outputs(request), 2)]

    async with track(tmp_path, script, Wanted(), planner="scripted", planner_server="same") as on:
        result = await on.mode.run_turn(PROMPT)
        assert (result.status, result.text, on.file()) == (Status.COMPLETED, "Mended.", GREEN)
        assert len(evidence) == 2
        assert "+echo 2 failed" in evidence[1]
        assert "2 failed\n" in evidence[1]


async def test_no_more_plans_than_are_allowed(tmp_path: Path) -> None:
    """An executor that always gives up ends the turn in the end."""
    plans: list[str] = []

    def script(request: GenerationRequest) -> Answer:
        if is_planner(request):
            plans.append(texts(request)[-1])
            return words("Try again.")
        return [patch(RED, WRONG), words("No.")][min(num_outputs(request), 1)]

    async with track(tmp_path, script, Wanted(), planner="scripted", planner_server="same") as on:
        result = await on.mode.run_turn(PROMPT)
        assert result.status is Status.FAILED
        assert len(plans) == MAX_PLANS


async def test_a_planner_that_fails_costs_the_plan_alone(tmp_path: Path) -> None:
    def script(request: GenerationRequest) -> Answer:
        if is_planner(request):
            return []
        answers = [patch(RED, GREEN), runs_tests(), words("Mended.")]
        return answers[min(num_outputs(request), 2)]

    async with track(tmp_path, script, Wanted(), planner="scripted", planner_server="same") as on:
        result = await on.mode.run_turn(PROMPT)
        assert result.status is Status.COMPLETED
        (plan,) = [event for event in on.heard.events if isinstance(event, said.Planned)]
        assert plan.text.startswith("no plan: ")
