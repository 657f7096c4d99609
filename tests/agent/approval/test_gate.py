"""Calls at the gate: judged, asked for, declined, remembered, written down."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.agent.approval.fakes import Answering, Outside, Waiting, context
from tightloop.agent.approval.gate import ApprovalError, Gate
from tightloop.agent.approval.interface import Kind, Mode
from tightloop.agent.approval.judge import Situation
from tightloop.agent.approval.rules import Pattern, Rule, Rules, ToolRule
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.sandbox.entries import Change
from tightloop.sandbox.interface import Command
from tightloop.sandbox.risks import Risk

EXEC, PATCH, MAIL = ExecCommand(), ApplyPatch(), Outside()


class Log:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __call__(self, kind: str, **fields: Any) -> None:
        self.lines.append({"kind": kind, **fields})


def gate(
    mode: Mode, keys: str = "", *, rules: Rules | None = None, is_isolated: bool = True
) -> Gate:
    approver = Answering(keys) if keys else None
    situation = Situation(mode, is_isolated=is_isolated)
    return Gate(rules or Rules(), situation, approver, record=Log())


async def run(one: Gate, line: str | list[str], **more: Any) -> str | None:
    return await one.admit(EXEC, orjson.dumps({"cmd": line, **more}).decode(), context())


def asked(one: Gate) -> list[str]:
    assert isinstance(one.approver, Answering)
    return [request.title for request in one.approver.asked]


async def test_once_is_once() -> None:
    one = gate(Mode.ASK, "yyn")
    assert [await run(one, "make"), await run(one, "make")] == [None, None]
    assert await run(one, "make") == "declined, nothing was run: the user does not want it"
    assert asked(one) == ["run: make"] * 3


async def test_always_lasts_for_these_words() -> None:
    one = gate(Mode.ASK, "ay")
    assert await run(one, "tox -e py311") is None
    assert await run(one, "cd sub && timeout 9 tox -e py311 | tail") is None
    assert asked(one) == ["run: tox -e py311"]
    assert await run(one, "tox -e py312") is None
    assert len(asked(one)) == 2


async def test_a_prefix_lasts_for_what_follows() -> None:
    one = gate(Mode.ASK, "py")
    assert await run(one, "pytest -q a.py") is None
    assert await run(one, "pytest -x b.py") is None
    assert asked(one) == ["run: pytest -q a.py"]
    assert await run(one, "pytest > out") is None
    assert len(asked(one)) == 2


async def test_a_line_that_no_rule_can_cover_lasts_as_a_line() -> None:
    one = gate(Mode.ASK, "ay")
    assert await run(one, "make > log") is None
    assert await run(one, "make > log") is None
    assert asked(one) == ["run: make > log"]
    assert await run(one, "make > log", workdir="sub") is None
    assert len(asked(one)) == 2


async def test_words_for_the_model() -> None:
    one = gate(Mode.ASK)
    one.approver = Answering("n", word="use tox")
    assert await run(one, "make") == "declined, nothing was run: the user says: use tox"


async def test_without_anybody_to_ask_it_is_declined() -> None:
    refusal = await run(gate(Mode.ASK), "make")
    assert refusal is not None
    assert refusal.endswith("'make' may do more than read; nobody is there to be asked")
    assert await run(gate(Mode.ASK), "ls") is None


async def test_words_without_a_shell_are_shown_as_a_shell_would_need_them() -> None:
    one = gate(Mode.ASK, "y")
    await run(one, ["make", "a b; c"])
    assert asked(one) == ["run: make 'a b; c'"]


@pytest.mark.parametrize(
    ("mode", "command", "patch", "outside"),
    [
        (Mode.READ_ONLY, False, False, False),
        (Mode.ASK, False, True, False),
        (Mode.AUTO, True, True, False),
        (Mode.FULL, True, True, True),
    ],
)
async def test_modes_without_anybody_to_ask(
    mode: Mode, command: bool, patch: bool, outside: bool
) -> None:
    one = gate(mode, is_isolated=mode is not Mode.FULL)
    given = [
        await run(one, "make"),
        await one.admit(PATCH, "*** Begin Patch", context()),
        await one.admit(MAIL, "{}", context()),
    ]
    assert [command, patch, outside] == [refusal is None for refusal in given]
    is_open = [one.is_open_for(tool) for tool in (EXEC, PATCH, MAIL)]
    assert is_open == [mode in (Mode.AUTO, Mode.FULL)] * 2 + [mode is Mode.FULL]


async def test_a_patch_in_a_shells_words_is_a_patch() -> None:
    line = "apply_patch <<'E'\n*** Begin Patch\n*** End Patch\nE"
    assert await run(gate(Mode.ASK), line) is None
    refusal = await run(gate(Mode.READ_ONLY), line)
    assert refusal is not None
    assert "no patches" in refusal


async def test_auto_asks_where_nothing_isolates() -> None:
    one = gate(Mode.AUTO, "y", is_isolated=False)
    assert await run(one, "make") is None
    assert asked(one) == ["run: make"]


async def test_tools_outside_the_sandbox() -> None:
    one = gate(Mode.AUTO, "a")
    assert await one.admit(MAIL, "{}", context()) is None
    assert await one.admit(MAIL, '{"again": 1}', context()) is None
    assert asked(one) == ["use: mail send {}"]
    rules = Rules(deny_tools=(ToolRule("mail_*", "no mail"),))
    refusal = await gate(Mode.FULL, rules=rules).admit(MAIL, "{}", context())
    assert refusal is not None
    assert refusal.endswith("a rule denies the tool 'mail_send': no mail")
    allowing = Rules(allow_tools=(ToolRule("mail_send"),))
    assert await gate(Mode.AUTO, rules=allowing).admit(MAIL, "{}", context()) is None


async def test_wrong_arguments_are_the_tools_own_affair() -> None:
    assert await gate(Mode.READ_ONLY).admit(EXEC, "{", context()) is None


async def test_questions_come_one_at_a_time_and_an_answer_may_settle_the_next() -> None:
    one = gate(Mode.ASK, "a")
    assert [
        task.result()
        for task in (
            await asyncio.wait([asyncio.ensure_future(run(one, "make")) for _ in range(2)])
        )[0]
    ] == [None, None]
    assert asked(one) == ["run: make"]


async def test_cancelling_takes_the_question_back() -> None:
    """And the next one can be asked."""
    waiting, one, opened = Waiting(), gate(Mode.ASK), list[bool]()
    one.approver, one.on_question = waiting, opened.append
    call = asyncio.ensure_future(run(one, "make"))
    await waiting.opened.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (waiting.is_open, opened) == (False, [True, False])
    one.approver = Answering("y")
    assert await run(one, "make") is None


def test_switching() -> None:
    one = gate(Mode.AUTO)
    one.switch(Mode.ASK)
    assert (one.mode, one.is_open_for(EXEC)) == (Mode.ASK, False)
    with pytest.raises(ApprovalError, match="start it again with --approval full"):
        one.switch(Mode.FULL)
    assert one.mode is Mode.ASK
    apart = gate(Mode.ASK, is_isolated=False)
    apart.switch(Mode.FULL)
    assert apart.is_open_for(MAIL)


async def test_every_decision_is_written_down() -> None:
    one = gate(Mode.ASK, "yn", rules=Rules(allow=(Rule(Pattern.parse("tox *", allows=True)),)))
    for line in ("ls", "tox", "make", "make"):
        await run(one, line)
    assert isinstance(one.record, Log)
    assert [(line["outcome"], line["by"], line["title"]) for line in one.record.lines] == [
        ("allowed", "reading", "ls"),
        ("allowed", "rule", "tox"),
        ("allowed", "person", "make"),
        ("declined", "person", "make"),
    ]
    assert {line["item_id"] for line in one.record.lines} == {"item_1"}


def test_nothing_runs_ahead_that_would_be_asked_for() -> None:
    command = Command(script="pytest -q")
    assert gate(Mode.AUTO).allows_ahead(command)
    assert not gate(Mode.ASK).allows_ahead(command)
    allowing = Rules(allow=(Rule(Pattern.parse("pytest *", allows=True)),))
    assert gate(Mode.ASK, rules=allowing).allows_ahead(command)


CHANGES = [Change("a.py", None, None), Change(".envrc", None, None)]
RISKS = [Risk(".envrc", "runs commands", is_severe=True)]


async def test_applying() -> None:
    for mode, key, answer in ((Mode.ASK, "y", True), (Mode.AUTO, "n", False)):
        one = gate(mode, key)
        assert await one.approve_apply(CHANGES, RISKS) is answer
        assert isinstance(one.approver, Answering)
        (request,) = one.approver.asked
        assert (request.kind, request.title) == (Kind.APPLY, "write 2 files into your checkout")
        assert request.details == ("look at it first: .envrc (runs commands)", "a.py", ".envrc")
    assert await gate(Mode.FULL).approve_apply(CHANGES, RISKS)
    assert not await gate(Mode.READ_ONLY).approve_apply(CHANGES, RISKS)
    assert not await gate(Mode.AUTO).approve_apply(CHANGES, RISKS)
