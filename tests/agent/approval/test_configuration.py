"""The tables of the user's configuration, and what is said of mistakes in them."""

import tomllib
from pathlib import Path

import pytest

from tightloop.agent.approval.configuration import ApprovalConfig, approval_of, read_approval
from tightloop.agent.approval.hooks import Hook, HookEvent
from tightloop.agent.approval.interface import Mode
from tightloop.sandbox.policies import PolicyError

TEXT = """
[approval]
mode = "ask"

[[rules]]
allow = "pytest *"

[[rules]]
deny = "git push"
reason = "pushing is for people"

[[rules]]
ask_tool = "mail_*"

[[hooks.before_tool]]
command = ["~/bin/guard", "-v"]
timeout_s = 2.5
tools = ["exec_*"]
on_failure = "continue"

[[hooks.turn_end]]
command = ["notify-send", "done"]
environment = ["MY_TOKEN"]
"""


def read(text: str) -> ApprovalConfig:
    return approval_of(tomllib.loads(text), "c.toml")


def test_all_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = read(TEXT)
    assert config.mode is Mode.ASK
    assert [rule.pattern.text for rule in config.rules.allow] == ["pytest *"]
    (denied,) = config.rules.deny
    assert (denied.pattern.text, denied.reason) == ("git push", "pushing is for people")
    assert [rule.name for rule in config.rules.ask_tools] == ["mail_*"]
    assert config.hooks == {
        HookEvent.BEFORE_TOOL: (
            Hook(("/home/me/bin/guard", "-v"), 2.5, ("exec_*",), denies_on_failure=False),
        ),
        HookEvent.TURN_END: (Hook(("notify-send", "done"), environment=("MY_TOKEN",)),),
    }


def test_nothing_configured() -> None:
    config = read("")
    assert (config.mode, config.rules.can_stop, config.hooks) == (None, False, {})


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (
            "[approval]\nmode = 'yolo'",
            "c.toml: [approval] mode: there is no mode 'yolo'; known are read",
        ),
        ("[approval]\nmod = 'ask'", "c.toml: [approval] unknown key 'mod'; known are mode"),
        ("approval = 1", "c.toml: [approval] must be a table"),
        ("rules = 1", "c.toml: [[rules]] must be an array"),
        (
            "[[rules]]",
            "number 1: needs exactly one of allow, ask, deny, allow_tool, ask_tool, deny_tool; has none",
        ),
        ("[[rules]]\nallow='a'\ndeny='b'", "has allow and deny"),
        (
            "[[rules]]\nallow='a'\n[[rules]]\nallow='x; y'",
            "number 2: allow: 'x; y': a rule is one command",
        ),
        ("[[rules]]\nallow='a'\nreason='b'", "reason: nobody is told"),
        ("[[rules]]\nallow=1", "number 1 allow: expected"),
        (
            "[hooks]\nbefore_lunch = []",
            "[hooks] has no event 'before_lunch'; known are session_start",
        ),
        ("[hooks.turn_end]\ncommand=['x']", "[[hooks.turn_end]] must be an array"),
        ("[[hooks.turn_end]]", "number 1 must be a table: object missing required field command"),
        ("[[hooks.turn_end]]\ncommand=[]", "command must be a list of words"),
        ("[[hooks.turn_end]]\ncommand=['x']\non_failure='deny'", "on_failure: nothing waits"),
        (
            "[[hooks.turn_end]]\ncommand=['x']\ntools=['y']",
            "tools: hooks of turn_end are for no tool",
        ),
        (
            "[[hooks.before_tool]]\ncommand=['x']\non_failure='shrug'",
            "on_failure must be deny or continue",
        ),
        ("[[hooks.before_tool]]\ncommand=['x']\ntimeout_s=0", "timeout_s"),
    ],
)
def test_mistakes_are_named(text: str, wrong: str) -> None:
    with pytest.raises(PolicyError) as error:
        read(text)
    assert wrong in str(error.value)


def test_from_a_file(tmp_path: Path) -> None:
    place = tmp_path / "c.toml"
    place.write_text("[approval]\nmode = 'read-only'\n")
    assert read_approval(place).mode is Mode.READ_ONLY
    place.write_text("[approval]\nmode = 'x'\n")
    with pytest.raises(PolicyError, match=r"c\.toml: \[approval\] mode"):
        read_approval(place)
