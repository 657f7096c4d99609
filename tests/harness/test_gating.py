"""Modes, rules and hooks in a whole conversation: configured, asked, declined, logged."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.agent.approval.fakes import Answering
from tests.harness.audience import Listening
from tightloop.agent.approval.interface import Approver, Mode
from tightloop.agent.events import CommandExecution, FileChange, ItemCompleted, ThreadItem
from tightloop.agent.turn import Status
from tightloop.harness.gating import choose
from tightloop.harness.settings import Settings
from tightloop.harness.thread import open_thread
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput
from tightloop.sandbox.policies import PolicyError
from tightloop.trace.log import read_log

PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n*** End Patch"


def call(line: str) -> list[dict[str, Any]]:
    arguments = orjson.dumps({"cmd": line}).decode()
    return [{"call": {"name": "exec_command", "arguments": arguments}}]


WORK = [
    call("cat m.py"),
    call("touch made; echo done"),
    [{"call": {"name": "apply_patch", "arguments": PATCH}}],
    [{"text": "Done."}],
]


class Run:
    """One conversation of one turn; what can be looked at afterwards."""

    def __init__(self, place: Path, **more: Any) -> None:
        repo = place / "repo"
        repo.mkdir()
        (repo / "m.py").write_text("x = 1\n")
        script = place / "script.json"
        script.write_bytes(orjson.dumps({"answers": WORK}))
        self.settings = Settings(
            repo=repo,
            state_dir=place / "state",
            model=f"scripted:{script}",
            config=place / "config.toml",
            **{"sandbox": "none", **more},
        )
        self.audience = Listening()
        self.outputs: list[str] = []
        self.log: list[dict[str, Any]] = []

    def configure(self, text: str) -> None:
        assert self.settings.config is not None
        self.settings.config.write_text(text)

    async def turn(self, approver: Approver | None = None) -> "Run":
        async with open_thread(self.settings, self.audience, approver=approver) as thread:
            result = await thread.run_turn("change x")
            assert result.status is Status.COMPLETED
            self.outputs = [
                item.output
                for item in thread.agent.items
                if isinstance(item, FunctionCallOutput | CustomToolCallOutput)
            ]
            path = thread.log.path
        self.log = list(read_log(path))
        return self

    def items(self) -> list[ThreadItem]:
        return [e.item for e in self.audience.events if isinstance(e, ItemCompleted)]

    def statuses(self) -> list[str]:
        return [
            item.status for item in self.items() if isinstance(item, CommandExecution | FileChange)
        ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


async def test_nobody_to_ask(place: Path) -> None:
    """What would be asked is declined; the model is told, and so is whoever reads events."""
    run = Run(place, approval="ask")
    run.configure("")
    await run.turn()
    assert run.statuses() == ["completed", "declined", "completed"]
    declined = run.items()[1]
    assert isinstance(declined, CommandExecution)
    assert declined.aggregated_output.endswith(
        "'touch made' may do more than read; nobody is there to be asked"
    )
    assert run.outputs[1] == f"exec_command: {declined.aggregated_output}"
    decided = [line for line in run.log if line["kind"] == "approval"]
    assert [(line["outcome"], line["by"]) for line in decided] == [
        ("allowed", "reading"),
        ("declined", "nobody"),
        ("allowed", "mode"),
    ]


async def test_somebody_to_ask(place: Path) -> None:
    run = Run(place, approval="ask")
    run.configure("")
    approver = Answering("y")
    await run.turn(approver)
    assert run.statuses() == ["completed"] * 3
    assert [request.title for request in approver.asked] == ["run: touch made; echo done"]


async def test_reading_only(place: Path) -> None:
    run = Run(place, approval="read-only")
    run.configure("")
    await run.turn(Answering(""))
    assert run.statuses() == ["completed", "declined", "failed"]
    assert run.outputs[2].startswith("apply_patch: declined, nothing was run: no patches")


async def test_rules_of_the_configuration(place: Path) -> None:
    run = Run(place)
    run.configure("[[rules]]\ndeny = 'touch'\nreason = 'no new files'\n")
    await run.turn()
    assert run.statuses() == ["completed", "declined", "completed"]
    assert run.outputs[1].endswith("the rule 'touch' denies it: no new files")


async def test_hooks_of_the_configuration(place: Path) -> None:
    """Around the session, the turn and each call; what they say is in the log."""
    told = place / "told"
    run = Run(place)
    tell = f"['/bin/sh', '-c', 'cat >> {told}; echo >> {told}']"
    events = ("session_start", "turn_start", "after_tool", "after_patch", "turn_end", "session_end")
    tables = [f"[[hooks.{event}]]\ncommand = {tell}" for event in events]
    guard = "['/bin/sh', '-c', 'if grep -q touch; then echo not that >&2; exit 2; fi']"
    run.configure("\n".join([*tables, f"[[hooks.before_tool]]\ncommand = {guard}"]))
    await run.turn()
    assert run.statuses() == ["completed", "declined", "completed"]
    assert run.outputs[1] == "exec_command: declined, nothing was run: not that"
    bodies = [orjson.loads(line) for line in told.read_text().splitlines()]
    assert [body["event"] for body in bodies] == [
        "session_start",
        "turn_start",
        "after_tool",
        "after_tool",
        "after_patch",
        "turn_end",
        "session_end",
    ]
    assert {body["repository"] for body in bodies} == {str(run.settings.repo)}
    assert bodies[2]["output"].startswith("x = 1")
    assert bodies[5]["is_ok"] is True
    kept = [line for line in run.log if line["kind"] == "hook"]
    assert sum(line["event"] == "before_tool" for line in kept) == 3
    assert [line["denial"] for line in kept if line["denial"]] == ["not that"]


def chosen(place: Path, text: str, **more: Any) -> tuple[str, Mode]:
    (place / "c.toml").write_text(text)
    settings = Settings(repo=place, state_dir=place, config=place / "c.toml", **more)
    gating = choose(settings)
    isolation = "none" if gating.policy.level == "full-access" else "bubblewrap"
    return gating.policy.name, gating.mode(isolation)


def test_modes_and_policies(place: Path) -> None:
    """The option wins over the configuration; a mode never weakens a policy."""
    assert chosen(place, "") == ("workspace-write", Mode.AUTO)
    assert chosen(place, "[approval]\nmode = 'ask'") == ("workspace-write", Mode.ASK)
    assert chosen(place, "[approval]\nmode = 'ask'", approval="auto")[1] is Mode.AUTO
    assert chosen(place, "", approval="full") == ("full-access", Mode.FULL)
    assert chosen(place, "", policy="full-access") == ("full-access", Mode.FULL)
    assert chosen(place, "", policy="full-access", approval="ask") == ("full-access", Mode.ASK)
    assert chosen(place, "", policy="read-only") == ("read-only", Mode.AUTO)


@pytest.mark.parametrize(
    ("text", "more", "wrong"),
    [
        ("", {"approval": "full", "policy": "network"}, "choose --policy full-access"),
        ("[sandbox]\npolicy = 'read-only'", {"approval": "full"}, "choose --policy full-access"),
        ("[sandbox]\nisolation = 'bubblewrap'", {"approval": "full"}, "has no isolation"),
        ("", {"approval": "yolo"}, "--approval: there is no mode 'yolo'"),
    ],
)
def test_modes_that_cannot_be_had(place: Path, text: str, more: dict[str, str], wrong: str) -> None:
    if "network" in more.values():
        text = "[sandbox.policies.network]\nhosts = ['pypi.org']"
    with pytest.raises(PolicyError, match=wrong):
        chosen(place, text, **more)
