"""Budgets: counted from what servers report, told of in time, and an orderly end."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from tests.agent.cutting import is_whole
from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.budget import Budget, PriceUnknown, added
from tightloop.agent.limits import Price
from tightloop.agent.loop import Agent
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.turn import Limits, Status
from tightloop.client.scripted import Reply, ScriptedTransport, call_reply, text_reply
from tightloop.client.session import Session
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.protocol.items import FunctionCallOutput
from tightloop.trace.clock import ManualClock

PRICE = Price(Decimal(2), Decimal("0.5"), Decimal(10))


def calling(number: int, usage: Usage) -> Reply:
    call = call_reply("exec_command", {"cmd": "make"}, f"call_{number}")
    return [*call, Finished(FinishReason.TOOL_CALLS, usage)]


def agent_of(
    replies: Sequence[Reply], limits: Limits
) -> tuple[Agent, ScriptedTransport, ManualClock]:
    transport, clock, tool = ScriptedTransport(replies), ManualClock(), ExecCommand()
    session = Session(transport, model="m", tools=[tool.definition()], clock=clock)
    context = ToolContext(Path("/ws"), Recorded(), clock=clock)
    return Agent(session, [tool], context, limits=limits), transport, clock


def told(transport: ScriptedTransport) -> list[str]:
    return [
        item["content"][0]["text"]
        for request in transport.requests
        for item in request["input"]
        if item.get("role") == "user" and "budget" in str(item)
    ]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(output_tokens=250), "output tokens is used up: 300 of 250"),
        (Limits(total_tokens=3000), "tokens is used up: 3,300 of 3,000"),
        (Limits(cost_usd=Decimal("0.006"), price=PRICE), "money is used up: $0.0072 of $0.0060"),
        (
            Limits(conversation_cost_usd=Decimal("0.006"), price=PRICE),
            "money for the conversation is used up: $0.0072 of $0.0060",
        ),
    ],
)
async def test_a_budget_ends_the_turn_in_order(limits: Limits, name: str) -> None:
    """The call that was made is answered, its result kept, the budget named; the model knew."""
    usage = Usage(1000, 400, 100)
    agent, transport, _ = agent_of([calling(n, usage) for n in range(9)], limits)
    result = await agent.run_turn("go")
    assert result.status is Status.BUDGET
    assert result.message == f"the budget of {name}"
    assert is_whole(agent.items)
    assert sum(isinstance(item, FunctionCallOutput) for item in agent.items) == 3
    assert len(transport.requests) == 3
    assert len(told(transport)) <= 1


async def test_the_model_is_told_once_when_it_is_nearly_used_up() -> None:
    usage = Usage(1000, 0, 100)
    replies = [*(calling(n, usage) for n in range(9)), text_reply("done")]
    agent, transport, _ = agent_of(replies, Limits(output_tokens=1000))
    result = await agent.run_turn("go")
    assert result.status is Status.COMPLETED
    (text,) = told(transport)
    assert text.startswith("[tightloop, not the user] 800 of 1,000 are used")


async def test_a_new_turn_has_a_new_budget_and_the_conversation_one_for_all() -> None:
    usage = Usage(1000, 0, 100)
    done: Reply = [*text_reply("ok"), Finished(FinishReason.STOP, usage)]
    limits = Limits(output_tokens=150, conversation_cost_usd=Decimal("0.005"), price=PRICE)
    agent, _, _ = agent_of([done] * 9, limits)
    statuses = [(await agent.run_turn(f"turn {n}")).status for n in range(3)]
    assert statuses == [Status.COMPLETED, Status.COMPLETED, Status.BUDGET]
    assert agent.budget.cost_usd == Decimal("0.006")


def test_a_budget_of_money_needs_a_price() -> None:
    with pytest.raises(PriceUnknown, match=r"\[limits\.models"):
        Budget(Limits(cost_usd=Decimal(1)), lambda: 0)


def test_cached_input_has_its_own_price() -> None:
    assert PRICE.cost_usd(Usage(1_000_000, 400_000, 100_000)) == Decimal("2.4")


def test_time_stands_still_while_a_person_is_asked() -> None:
    clock = ManualClock()
    budget = Budget(Limits(wall_s=100, conversation_wall_s=150), clock.now_ns)
    budget.begin_turn()
    clock.advance_s(10)
    budget.hold(True)
    clock.advance_s(1000)
    assert budget.turn_s == 10
    budget.hold(False)
    clock.advance_s(5)
    assert (budget.turn_s, budget.rest_s) == (15, 85)
    budget.end_turn()
    budget.end_turn()
    clock.advance_s(1000)
    budget.begin_turn()
    clock.advance_s(90)
    assert budget.conversation_s == 105
    assert budget.rest_s == 10
    assert budget.spent() == ""
    clock.advance_s(50)
    assert budget.spent().startswith("the budget of time is used up")


def test_candidates_share_what_they_spend() -> None:
    """A turn of one does not reset what the others used; each has its own number of responses."""
    budget = Budget(Limits(output_tokens=100, max_turns=2), lambda: 0)
    budget.begin_turn()
    one, other = budget.shared(), budget.shared()
    for share in (one, other):
        share.begin_turn()
        share.add(Usage(0, 0, 50))
    assert one.num_responses == 1
    assert "output tokens" in one.spent()
    assert "output tokens" in other.spent()
    assert budget.usage.output_tokens == 100


def test_added() -> None:
    assert added(Usage(1, 2, 3, 4), Usage(10, 20, 30, 40)) == Usage(11, 22, 33, 44)
