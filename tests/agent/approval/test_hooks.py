"""Hooks: real programs that are told what happens, and may stop it."""

import asyncio
import os
import select
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.agent.approval.fakes import context
from tightloop.agent.approval.gate import Gate
from tightloop.agent.approval.hooks import (
    MAX_OUTPUT_BYTES,
    Hook,
    HookEvent,
    HookResult,
    Hooks,
    hook_environment,
)
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolResult

BEFORE, AFTER = HookEvent.BEFORE_TOOL, HookEvent.AFTER_TOOL


def shell(script: str, **more: Any) -> Hook:
    return Hook(("/bin/sh", "-c", script), **more)


def hooks(event: HookEvent, *given: Hook, **more: Any) -> tuple[Hooks, list[HookResult]]:
    results: list[HookResult] = []
    return Hooks({event: given}, results.append, **more), results


async def before(*given: Hook) -> tuple[str | None, HookResult]:
    one, results = hooks(BEFORE, *given)
    return await one.before(BEFORE, "exec_command", {"tool": "exec_command"}), results[-1]


async def test_status_0_lets_it_go_on() -> None:
    denial, result = await before(shell("cat >&2"))
    assert (denial, result.status, result.failure) == (None, 0, "")
    assert orjson.loads(result.error) == {"event": "before_tool", "tool": "exec_command"}


async def test_status_2_denies_with_the_reason_on_standard_error() -> None:
    denial, result = await before(shell("echo not on fridays >&2; exit 2"), shell("exit 9"))
    assert (denial, result.denial) == ("not on fridays", "not on fridays")


async def test_an_answer_on_standard_output_denies() -> None:
    denial, _ = await before(shell("""echo '{"decision": "deny", "reason": "no"}'"""))
    assert denial == "no"
    assert (await before(shell("""echo '{"decision": "allow"}'""")))[0] is None
    assert (await before(shell("echo fine")))[0] is None


@pytest.mark.parametrize(
    ("hook", "failure"),
    [
        (shell("exit 3"), "status 3"),
        (shell("echo '{'"), "its answer is not understood"),
        (shell("""echo '{"decision": "perhaps"}'"""), "its decision is 'perhaps'"),
        (Hook(("/nosuch/hook",)), "cannot be started"),
        (shell("kill -9 $$"), "status -9"),
        (shell(f"head -c {MAX_OUTPUT_BYTES + 1} /dev/zero"), "bytes of output"),
        (shell("sleep 600 & sleep 600", timeout_s=0.05), "no end after 0.05 s"),
    ],
)
async def test_a_guard_that_fails_denies(hook: Hook, failure: str) -> None:
    """Unless it is configured to let things go on; either way it is written down."""
    denial, result = await before(hook)
    assert denial is not None
    assert failure in denial
    assert failure in result.failure
    lenient = Hook(hook.command, hook.timeout_s, denies_on_failure=False)
    assert (await before(lenient))[0] is None


async def test_nothing_of_a_hook_is_left(tmp_path: Path) -> None:
    """Also not what it has started beside itself."""
    place = tmp_path / "pid"
    await before(shell(f"sleep 600 >/dev/null 2>&1 & echo $! > {place}; exit 0"))
    with suppress(ProcessLookupError):
        process = os.pidfd_open(int(place.read_text()))  # readable when it has ended
        assert select.select([process], [], [], 20)[0] == [process]
        os.close(process)


async def test_a_hook_need_not_read() -> None:
    one, results = hooks(BEFORE, shell("exec 0<&-; exit 0"))
    assert await one.before(BEFORE, "x", {"arguments": "y" * 1_000_000}) is None
    assert results[0].failure == ""


async def test_tools_are_chosen_by_name() -> None:
    one, results = hooks(BEFORE, shell("exit 2", tools=("mail_*",)))
    assert await one.before(BEFORE, "exec_command", {}) is None
    assert await one.before(BEFORE, "mail_send", {}) is not None
    assert len(results) == 1


async def test_hooks_after_something_delay_nothing_and_keep_their_order(tmp_path: Path) -> None:
    fifo, written = tmp_path / "fifo", tmp_path / "written"
    os.mkfifo(fifo)
    one, results = hooks(
        AFTER, shell(f"grep -q ':1' && cat {fifo}"), shell(f"cat >> {written}; echo >> {written}")
    )
    one.after(AFTER, "x", {"number": 1})
    assert results == []  # the first one waits, and nobody waits for it
    await asyncio.to_thread(fifo.write_text, "go on")
    one.after(AFTER, "x", {"number": 2})
    await one.close()
    assert [orjson.loads(line)["number"] for line in written.read_text().splitlines()] == [1, 2]
    assert [result.failure for result in results] == ["", "", "status 1", ""]


def test_secrets_stay_out_unless_they_are_named() -> None:
    variables = {"HOME": "/h", "MY_TOKEN": "x", "A_PASSWORD": "y"}
    assert hook_environment(variables) == {"HOME": "/h"}
    assert hook_environment(variables, ["MY_TOKEN"]) == {"HOME": "/h", "MY_TOKEN": "x"}


async def test_at_the_gate() -> None:
    """A hook stands before the tool; one for patches before those only."""
    one, results = hooks(HookEvent.BEFORE_PATCH, shell("echo no >&2; exit 2"))
    gate = Gate(hooks=one)
    assert not gate.is_open_for(ExecCommand())
    assert await gate.admit(ExecCommand(), '{"cmd": "make"}', context()) is None
    refusal = await gate.admit(ApplyPatch(), "*** Begin Patch", context())
    assert refusal == "declined, nothing was run: no"
    assert [result.event for result in results] == ["before_patch"]


async def test_what_a_call_came_to_is_told(tmp_path: Path) -> None:
    one, results = hooks(AFTER, shell("cat >&2"))
    gate = Gate(hooks=one)
    assert gate.is_open_for(ExecCommand())
    gate.finished(ExecCommand(), '{"cmd": "ls"}', ToolResult("a file", True), context())
    await one.close()
    told = orjson.loads(results[0].error)
    assert (told["tool"], told["is_ok"], told["output"]) == ("exec_command", True, "a file")
