"""Running commands: output, ends, time limits, what outlives a command, and failures."""

import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.interface import Command, Policy, SandboxError, Terminal
from tightloop.sandbox.isolation import KINDS, open_sandbox
from tightloop.sandbox.session import PersistentSandbox

ALL_KINDS = pytest.mark.parametrize("kind", list(KINDS))


def is_locked(path: Path) -> bool:
    """Whether some process still holds the lock: processes inside have no pid that we know."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@ALL_KINDS
async def test_output_and_exit_code_come_back(kind: str, opened: OpenSandbox) -> None:
    """stdout and stderr in the order they were written."""
    sandbox = await opened(kind)
    result = await sandbox.run(Command(script="echo one; echo two >&2; echo three; exit 3"))
    assert (result.exit_code, result.output) == (3, "one\ntwo\nthree\n")
    assert result.ended_ns > result.started_ns
    assert (result.how, result.is_truncated, result.timed_out) == ("spawn", False, False)


async def test_a_signal_gives_a_negative_code(opened: OpenSandbox) -> None:
    """As in the subprocess module."""
    sandbox = await opened()
    result = await sandbox.run(Command(script="kill -USR1 $$"))
    assert result.exit_code == -signal.SIGUSR1


async def test_programs_that_cannot_start_are_results_not_errors(opened: OpenSandbox) -> None:
    """The model sees what a shell would say."""
    sandbox = await opened()
    missing = await sandbox.run(Command(argv=["no-such-program"]))
    assert (missing.exit_code, missing.output) == (127, "no-such-program: command not found\n")
    forbidden = await sandbox.run(Command(argv=["/etc/passwd"]))
    assert forbidden.exit_code == 126
    elsewhere = await sandbox.run(Command(argv=["true"], cwd="missing"))
    assert (elsewhere.exit_code, "missing" in elsewhere.output) == (127, True)


@pytest.mark.parametrize("terminal", [None, Terminal()], ids=["pipe", "terminal"])
async def test_what_no_program_can_be_given_is_a_result_too(
    opened: OpenSandbox, terminal: Terminal | None
) -> None:
    """A model may write such characters; the sandbox goes on."""
    sandbox = await opened()
    for command in (
        Command(script="echo a\0b", terminal=terminal),
        Command(argv=["echo", "\ud800"], terminal=terminal),
        Command(argv=["\ud800"], terminal=terminal),
        Command(argv=["true"], environment={"A=B": "x"}, terminal=terminal),
        Command(argv=["true"], cwd="a\0b", terminal=terminal),
    ):
        result = await sandbox.run(command)
        assert (result.exit_code, result.output == "") == (126, False)
        result.output.encode()
    assert (await sandbox.run(Command(argv=["true"]))).exit_code == 0


async def test_cwd_and_environment_are_those_of_the_command(
    opened: OpenSandbox, workspace: Path
) -> None:
    """Variables of one command are gone in the next."""
    (workspace / "sub").mkdir()
    sandbox = await opened(environment={"A": "policy", "B": "policy"})
    script = "echo $A $B $C; pwd"
    result = await sandbox.run(
        Command(script=script, cwd="sub", environment={"B": "command", "C": "command"})
    )
    assert result.output == f"policy command command\n{workspace / 'sub'}\n"
    assert (await sandbox.run(Command(script=script))).output == f"policy policy\n{workspace}\n"


async def test_output_arrives_while_the_command_runs(opened: OpenSandbox, workspace: Path) -> None:
    """The command waits for what we do after its first output."""
    sandbox = await opened()
    os.mkfifo(workspace / "go")
    first = asyncio.Event()
    pieces: list[bytes] = []

    def on_output(piece: bytes) -> None:
        pieces.append(piece)
        first.set()

    async with asyncio.TaskGroup() as group:
        script = "echo first; read -r word < go; echo $word"
        task = group.create_task(sandbox.run(Command(script=script), on_output))
        await first.wait()
        await asyncio.to_thread((workspace / "go").write_text, "second\n")
    assert b"".join(pieces) == b"first\nsecond\n"
    assert task.result().output == "first\nsecond\n"


async def test_several_commands_run_at_once(opened: OpenSandbox, workspace: Path) -> None:
    """Each waits for the other; one after the other they would never end."""
    sandbox = await opened()
    for name in ("a", "b"):
        os.mkfifo(workspace / name)
    async with asyncio.TaskGroup() as group:
        left = group.create_task(sandbox.run(Command(script="echo left > a; cat b")))
        right = group.create_task(sandbox.run(Command(script="cat a; echo right > b")))
    assert (left.result().output, right.result().output) == ("right\n", "left\n")


async def test_stdin_is_empty(opened: OpenSandbox) -> None:
    """P14: nothing can be read from the agent's terminal."""
    sandbox = await opened()
    assert (await sandbox.run(Command(argv=["cat"]))).output == ""


@ALL_KINDS
async def test_a_process_that_holds_the_pipe_does_not_hold_the_result(
    kind: str, opened: OpenSandbox, workspace: Path
) -> None:
    """P11, P5: the result comes at the end of the main process; what it left behind is dead.

    Also in a session of its own, as a daemon would be.
    """
    sandbox = await opened(kind)
    script = "exec 9>held; flock 9; sleep 600 & setsid bash -c 'sleep 600 & disown' & wait -n $!; echo end"
    result = await sandbox.run(Command(script=script, timeout_s=300.0))
    assert (result.exit_code, result.output) == (0, "end\n")
    assert not is_locked(workspace / "held")


@ALL_KINDS
async def test_a_timeout_leaves_nothing_behind(
    kind: str, opened: OpenSandbox, workspace: Path
) -> None:
    """P6: the whole group goes, also what ignores signals and what left the group."""
    sandbox = await opened(kind)
    script = "exec 9>held; flock 9; trap '' TERM INT; setsid sleep 600 & echo begun; sleep 600"
    result = await sandbox.run(Command(script=script, timeout_s=0.3))
    assert (result.exit_code, result.timed_out) == (-signal.SIGKILL, True)
    assert not is_locked(workspace / "held")
    assert (await sandbox.run(Command(script="echo alive"))).output == "alive\n"


async def test_processes_of_other_commands_are_spared(opened: OpenSandbox, workspace: Path) -> None:
    """One command's end does not end the background process of another that still runs."""
    sandbox = await opened()
    os.mkfifo(workspace / "go")
    script = "(exec 9>held; flock 9; setsid bash -c 'echo up; sleep 600' & ) ; read x < go"
    up = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(sandbox.run(Command(script=script), lambda _: up.set()))
        await up.wait()
        await sandbox.run(Command(script="true"))
        was_locked = is_locked(workspace / "held")
        await asyncio.to_thread((workspace / "go").write_text, "x\n")
    assert (was_locked, is_locked(workspace / "held")) == (True, False)


async def test_a_daemon_without_its_variables_ends_with_its_command(
    opened: OpenSandbox, workspace: Path
) -> None:
    """P5: twice forked, in a session of its own, its environment cleared, while others run."""
    sandbox = await opened()
    os.mkfifo(workspace / "go")
    daemon = "env -i bash -c 'exec 9>held; flock 9; echo up >&8; sleep 600'"
    script = f'exec 8>&1; (setsid bash -c "{daemon} & disown" &); read x < up'
    os.mkfifo(workspace / "up")
    up = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(sandbox.run(Command(script="read x < go")))
        ending = group.create_task(sandbox.run(Command(script=script), lambda _: up.set()))
        await up.wait()
        assert is_locked(workspace / "held")
        await asyncio.to_thread((workspace / "up").write_text, "x\n")
        result = await ending
        was_locked = is_locked(workspace / "held")
        await asyncio.to_thread((workspace / "go").write_text, "x\n")
    assert (result.exit_code, was_locked) == (0, False)


async def test_cancelling_ends_the_processes(opened: OpenSandbox, workspace: Path) -> None:
    """The next command already finds nothing left."""
    sandbox = await opened()
    begun = asyncio.Event()
    script = "exec 9>held; flock 9; echo begun; sleep 600"
    task = asyncio.create_task(sandbox.run(Command(script=script), lambda _: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sandbox.run(Command(script="flock held echo free"))).output == "free\n"


async def test_endless_output_takes_bounded_memory(opened: OpenSandbox) -> None:
    """P10: gigabytes would do; head and tail are kept, nothing in between."""
    sandbox = await opened(max_output_bytes=1000)
    script = "printf head; head -c 20000000 /dev/zero | tr '\\0' x; printf tail"
    result = await sandbox.run(Command(script=script))
    assert result.is_truncated
    assert result.output.startswith("headx")
    assert result.output.endswith("xtail")
    assert "[... 19999008 bytes in 0 lines left out ...]" in result.output
    assert len(result.output) < 1100


async def test_a_script_that_is_too_long_is_refused(opened: OpenSandbox) -> None:
    """The error says what to do instead; the sandbox stays usable."""
    sandbox = await opened()
    with pytest.raises(SandboxError, match="write the script to a file"):
        await sandbox.run(Command(script="x" * 300_000))
    assert (await sandbox.run(Command(script="echo alive"))).output == "alive\n"


async def test_a_command_needs_argv_or_script(opened: OpenSandbox) -> None:
    """A mistake of the caller, so a ValueError."""
    sandbox = await opened()
    for command in (Command(), Command(argv=["true"], script="true"), Command(argv=[])):
        with pytest.raises(ValueError, match="argv"):
            await sandbox.run(command)


async def test_the_death_of_the_server_is_an_error_not_a_hang(opened: OpenSandbox) -> None:
    """A command may kill it, being of the same user; then this sandbox is over."""
    sandbox = await opened()
    with pytest.raises(SandboxError, match="has died"):
        await sandbox.run(Command(script="kill -9 $PPID; sleep 600"))
    with pytest.raises(SandboxError, match="has died"):
        await sandbox.run(Command(script="true"))


async def test_the_server_cannot_be_written_to(opened: OpenSandbox) -> None:
    """Otherwise a command could forge the results of others."""
    sandbox = await opened()
    code = "import os; os.open(f'/proc/{os.getppid()}/mem', os.O_RDWR)"
    result = await sandbox.run(Command(argv=[sys.executable, "-I", "-c", code]))
    assert "PermissionError: [Errno 13]" in result.output


@ALL_KINDS
async def test_closing_ends_every_process(kind: str, opened: OpenSandbox, workspace: Path) -> None:
    """Commands under way fail with a reason, and closing twice is fine."""
    sandbox = await opened(kind)
    begun = asyncio.Event()
    script = "exec 9>held; flock 9; echo begun; setsid sleep 600 & wait"
    task = asyncio.create_task(sandbox.run(Command(script=script), lambda _: begun.set()))
    await begun.wait()
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(SandboxError, match="was closed"):
        await task
    assert not is_locked(workspace / "held")


@ALL_KINDS
async def test_limits_hold_inside(kind: str, opened: OpenSandbox) -> None:
    """F18: a file past the limit ends its writer, not the agent."""
    sandbox = await opened(kind, max_file_bytes=1 << 20, max_processes=77)
    result = await sandbox.run(Command(script="ulimit -c -u; head -c 3000000 /dev/zero > big"))
    assert result.exit_code == 128 + signal.SIGXFSZ
    limits = [line.split()[-1] for line in result.output.splitlines()[:2]]
    assert limits == ["0", "77"]


async def test_a_sandbox_that_is_not_tight_is_refused(workspace: Path) -> None:
    """What the kernel says counts, not what the kind promises."""
    from dataclasses import replace

    pretending = replace(KINDS["none"], is_confined=True)
    sandbox = PersistentSandbox(pretending, Policy(workspace, warm_tests=False), {})
    with pytest.raises(SandboxError, match="none sandbox is not tight"):
        await sandbox.start()


async def test_what_the_program_said_is_in_the_error(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For instance when the kernel forbids user namespaces."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxError, match=r"No permissions to create new namespace.*AppArmor"):
        await open_sandbox(Policy(workspace, warm_tests=False), kind="bubblewrap")


class Stopped:
    """The exec server of a sandbox without isolation, which does nothing meanwhile."""

    def __init__(self, sandbox: PersistentSandbox) -> None:
        assert sandbox.pid is not None
        self._pid = sandbox.pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


LONG = "# " + 120_000 * "x" + "\n"


async def test_more_than_the_connection_holds_at_once_waits_for_room(opened: OpenSandbox) -> None:
    """Each command runs then; one that is given up meanwhile takes nothing else with it."""
    sandbox = await opened("none")
    with Stopped(sandbox):
        runs = [
            asyncio.create_task(sandbox.run(Command(script=f"{LONG}echo {number}")))
            for number in range(5)
        ]
        await asyncio.sleep(0)  # each has come as far as it can
        assert sandbox._room is not None
        runs[0].cancel()  # it is on its way: a message that it ends finds no room
        await asyncio.wait(runs[:1])
    assert [(await run).output for run in runs[1:]] == ["1\n", "2\n", "3\n", "4\n"]
    assert sandbox.is_alive


async def test_what_waits_for_room_ends_with_the_sandbox(opened: OpenSandbox) -> None:
    """All of it, not only what came last."""
    sandbox = await opened("none")
    with Stopped(sandbox):
        runs = [asyncio.create_task(sandbox.run(Command(script=LONG))) for _ in range(5)]
        await asyncio.sleep(0)  # each has come as far as it can
        assert sandbox._room is not None
        closing = asyncio.create_task(sandbox.close())
        for run in runs:
            with pytest.raises(SandboxError, match="was closed"):
                await run
    await closing


async def test_questions_to_a_sandbox_that_is_over_are_errors(opened: OpenSandbox) -> None:
    """Every time they are asked."""
    sandbox = await opened("none")
    await sandbox.close()
    for _ in range(2):
        with pytest.raises(SandboxError, match="was closed"):
            await sandbox.settled()
        with pytest.raises(SandboxError, match="was closed"):
            await sandbox.clear()


async def test_a_server_that_does_not_clear_is_not_waited_for(
    opened: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command may have stopped it; nothing is asked of this sandbox again."""
    sandbox = await opened("none")
    monkeypatch.setattr("tightloop.sandbox.session.KILL_LIMIT_S", 0.05)
    with Stopped(sandbox):
        with pytest.raises(SandboxError, match="did not clear"):
            await sandbox.clear()
        assert not sandbox.is_alive
