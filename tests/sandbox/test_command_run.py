"""Input, terminals, signals and limits of single commands."""

import asyncio
import errno
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.conftest import OpenSandbox, plain_environment
from tests.sandbox.heard import Heard
from tightloop.sandbox.command_run import CommandRun, is_terminal_master, sealed_file
from tightloop.sandbox.interface import (
    Command,
    InteractiveSandbox,
    Limits,
    RunningCommand,
    SandboxError,
    Terminal,
)
from tightloop.sandbox.isolation import KINDS

ALL_KINDS = pytest.mark.parametrize("kind", list(KINDS))
ENDLESS = float("inf")


def python(code: str, **fields: Any) -> Command:
    """A command that runs a line of Python."""
    return Command(argv=[sys.executable, "-I", "-c", code], **fields)


@ALL_KINDS
async def test_a_command_reads_what_it_was_given_then_the_end(
    kind: str, opened: OpenSandbox
) -> None:
    """Also far more than a pipe holds, and although it is read late."""
    data = os.urandom(1 << 20)
    sandbox = await opened(kind)
    result = await sandbox.run(Command(script="sha256sum", stdin=data))
    assert f"{hashlib.sha256(data).hexdigest()}  -\n" == result.output


async def test_given_input_that_nobody_reads_does_no_harm(opened: OpenSandbox) -> None:
    """The command ends as it would without."""
    sandbox = await opened()
    result = await sandbox.run(Command(argv=["true"], stdin=b"x" * 500_000))
    assert (result.exit_code, result.output) == (0, "")


async def test_given_input_cannot_be_changed_from_inside(opened: OpenSandbox) -> None:
    """It is a file in memory, which would otherwise be a place to grow in."""
    sandbox = await opened()
    code = "import os; os.write(0, b'y')"
    result = await sandbox.run(python(code, stdin=b"x"))
    assert f"[Errno {errno.EPERM}]" in result.output


@ALL_KINDS
async def test_input_can_be_written_while_a_command_runs(kind: str, opened: OpenSandbox) -> None:
    """Each line is answered before the next is sent; closing the input ends it."""
    sandbox: InteractiveSandbox = await opened(kind)
    heard = Heard()
    run = await sandbox.begin(
        Command(argv=["cat"], stdin=b"zero\n", is_stdin_open=True, timeout_s=ENDLESS), heard
    )
    await heard.until("zero\n")
    for word in ("one\n", "two\n"):
        await run.write(word.encode())
        await heard.until(word)
    assert (run.has_ended, run.output_so_far()) == (False, "zero\none\ntwo\n")
    run.close_stdin()
    run.close_stdin()
    result = await run.wait()
    assert (result.exit_code, result.output, run.has_ended) == (0, "zero\none\ntwo\n", True)
    assert result is await run.wait()


async def test_writing_waits_for_a_slow_reader(opened: OpenSandbox) -> None:
    """All of it arrives, in order, from several writers at once; then the end."""
    sandbox = await opened()
    run = await sandbox.begin(Command(script="sha256sum", is_stdin_open=True))
    pieces = [bytes([number]) * 300_000 for number in range(3)]
    async with asyncio.TaskGroup() as group:
        for piece in pieces:
            group.create_task(run.write(piece))
    run.close_stdin()
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    assert f"{digest}  -\n" == (await run.wait()).output


async def write_for_ever(command: RunningCommand) -> None:
    """The server may still hold its copy of the pipe for a moment: one write says nothing."""
    while True:
        await command.write(b"x")


async def test_writing_to_what_has_stopped_reading_is_a_broken_pipe(opened: OpenSandbox) -> None:
    """Whether it ended before, while, or only closed its input."""
    sandbox = await opened()
    heard = Heard()
    ended = await sandbox.begin(Command(argv=["true"], is_stdin_open=True))
    await ended.wait()
    with pytest.raises(BrokenPipeError, match="has ended"):
        await ended.write(b"x")
    ended.close_stdin()

    closed = await sandbox.begin(
        Command(script="exec <&-; echo up; sleep 600", is_stdin_open=True), heard
    )
    await heard.until("up")
    with pytest.raises(BrokenPipeError, match=r"ended before it read|reads no more"):
        await write_for_ever(closed)
    closed.kill()
    assert (await closed.wait()).exit_code == -signal.SIGKILL

    full = await sandbox.begin(Command(script="head -c 1 >/dev/null", is_stdin_open=True))
    with pytest.raises(BrokenPipeError):
        await full.write(b"x" * 1_000_000)
    await full.wait()


async def test_a_command_without_input_cannot_be_written_to(opened: OpenSandbox) -> None:
    """A mistake of the caller; the text says which fields would have helped."""
    sandbox = await opened()
    run = await sandbox.begin(Command(argv=["true"]))
    with pytest.raises(ValueError, match="is_stdin_open or terminal"):
        await run.write(b"x")
    with pytest.raises(ValueError, match="no terminal"):
        run.resize(Terminal())
    assert (await run.wait()).exit_code == 0


@ALL_KINDS
async def test_a_terminal_is_the_controlling_one(kind: str, opened: OpenSandbox) -> None:
    """All three streams, of the asked size, and what ``/dev/tty`` stands for."""
    sandbox = await opened(kind)
    script = (
        "for i in 0 1 2; do [ -t $i ] && printf %s $i; done; echo; stty size; echo mine >/dev/tty"
    )
    result = await sandbox.run(Command(script=script, terminal=Terminal(rows=7, columns=33)))
    assert (result.exit_code, result.output) == (0, "012\r\n7 33\r\nmine\r\n")


async def test_a_terminal_has_a_name_inside(opened: OpenSandbox) -> None:
    """It is one of the sandbox's own: the host's are not there."""
    sandbox = await opened("bubblewrap")
    result = await sandbox.run(Command(script="tty; ls /dev/pts", terminal=Terminal()))
    assert result.output == "/dev/pts/0\r\n0  ptmx\r\n"


@ALL_KINDS
async def test_a_terminal_can_be_typed_into(kind: str, opened: OpenSandbox) -> None:
    """It echoes, ^D ends the input, and what is given at the start is typed first."""
    sandbox = await opened(kind)
    heard = Heard()
    run = await sandbox.begin(
        Command(script="cat; echo end", stdin=b"a\n", terminal=Terminal()), heard
    )
    await heard.until("a\r\na\r\n")
    await run.write(b"b\n")
    await heard.until("b\r\nb\r\n")
    run.close_stdin()
    result = await run.wait()
    assert (result.exit_code, result.output) == (0, "a\r\na\r\nb\r\nb\r\nend\r\n")
    run.resize(Terminal(1, 1))  # too late, and no error
    with pytest.raises(BrokenPipeError):
        await run.write(b"x")


async def test_control_c_interrupts_what_runs_in_the_foreground(opened: OpenSandbox) -> None:
    """The terminal makes a signal of it, inside."""
    sandbox = await opened()
    heard = Heard()
    run = await sandbox.begin(
        Command(script="echo up; sleep 600", terminal=Terminal(), timeout_s=ENDLESS), heard
    )
    await heard.until("up")
    await run.write(b"\x03")
    assert (await run.wait()).exit_code == -signal.SIGINT


async def test_resizing_tells_the_program(opened: OpenSandbox) -> None:
    """By SIGWINCH; the new size is there by then."""
    sandbox = await opened()
    heard = Heard()
    code = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH]);"
        "print('up', flush=True); signal.sigwait([signal.SIGWINCH]);"
        "print(*os.get_terminal_size())"
    )
    run = await sandbox.begin(python(code, terminal=Terminal()), heard)
    await heard.until("up")
    run.resize(Terminal(rows=50, columns=132))
    assert (await run.wait()).output == "up\r\n132 50\r\n"


@ALL_KINDS
async def test_a_screen_shows_output_as_it_is(kind: str, opened: OpenSandbox) -> None:
    """Programs see a terminal of that size and no input; not a byte is changed."""
    sandbox = await opened(kind)
    code = (
        "import os, sys; print(os.get_terminal_size(1), sys.stdout.isatty(), sys.stdin.read());"
        "sys.stdout.buffer.write(bytes(range(32)))"
    )
    result = await sandbox.run(python(code, screen=Terminal(33, 111)))
    size = "os.terminal_size(columns=111, lines=33)"
    assert f"{size} True \n" + bytes(range(32)).decode() == result.output


async def test_all_that_was_shown_on_a_screen_is_there(opened: OpenSandbox) -> None:
    """Far more than a terminal holds, up to the last line before the end."""
    sandbox = await opened()
    result = await sandbox.run(Command(script="seq 30000", screen=Terminal()))
    assert result.output.splitlines() == [str(number) for number in range(1, 30001)]


async def test_a_command_waits_while_nobody_reads(opened: OpenSandbox) -> None:
    """A pause holds it back once its pipe is full; nothing is lost, and its end still comes."""
    sandbox = await opened()
    heard = Heard()
    run = await sandbox.begin(Command(script="echo begun; seq 200000; echo over"), heard)
    await heard.until("begun")
    run.pause_reading()
    so_far = run.output_so_far()
    other = await sandbox.run(Command(script="echo meanwhile"))
    assert other.output == "meanwhile\n"
    assert run.output_so_far() == so_far
    assert not run.has_ended
    run.resume_reading()
    result = await run.wait()
    assert result.output.endswith("200000\nover\n")
    run.pause_reading()
    run.resume_reading()


async def test_no_keys_can_be_put_into_a_terminal(opened: OpenSandbox) -> None:
    """P12: TIOCSTI is refused, also on the command's own terminal."""
    sandbox = await opened("bubblewrap")
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')"
    result = await sandbox.run(python(code, terminal=Terminal()))
    assert f"[Errno {errno.EPERM}]" in result.output


@ALL_KINDS
async def test_programs_that_cannot_start_in_a_terminal_are_results(
    kind: str, opened: OpenSandbox
) -> None:
    """The same text and code as without one."""
    sandbox = await opened(kind)
    missing = await sandbox.run(Command(argv=["no-such-program"], terminal=Terminal()))
    assert (missing.exit_code, missing.output) == (127, "no-such-program: command not found\n")
    forbidden = await sandbox.run(Command(argv=["/etc/passwd"], terminal=Terminal()))
    assert (forbidden.exit_code, forbidden.output) == (126, "/etc/passwd: Permission denied\n")


async def test_all_that_was_printed_before_the_end_is_there(opened: OpenSandbox) -> None:
    """Although a terminal hands it on later than a pipe."""
    sandbox = await opened()
    result = await sandbox.run(Command(script="seq 5000", terminal=Terminal()))
    assert [str(number) for number in range(1, 5001)] == result.output.split()


async def test_a_terminal_and_all_it_runs_end_together(
    opened: OpenSandbox, workspace: Path
) -> None:
    """Jobs of an interactive shell have groups of their own."""
    sandbox = await opened()
    heard = Heard()
    run = await sandbox.begin(
        Command(argv=["bash", "--norc", "-i"], terminal=Terminal(), timeout_s=ENDLESS), heard
    )
    await run.write(b"(exec 9>held; flock 9; echo u''p; sleep 600) &\n")
    await heard.until("up")
    run.kill()
    assert (await run.wait()).exit_code == -signal.SIGKILL
    assert (await sandbox.run(Command(script="flock held echo free"))).output == "free\n"


async def test_a_signal_reaches_the_group(opened: OpenSandbox) -> None:
    """And nothing else is done about it."""
    sandbox = await opened()
    heard = Heard()
    run = await sandbox.begin(
        Command(script="trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.01; done"),
        heard,
    )
    await heard.until("up")
    run.send_signal(signal.SIGUSR1)
    result = await run.wait()
    assert (result.exit_code, "caught" in result.output) == (5, True)
    run.send_signal(signal.SIGUSR1)
    run.kill()


async def test_a_wait_can_be_given_up(opened: OpenSandbox) -> None:
    """The command goes on; somebody else may wait for it."""
    sandbox = await opened()
    run = await sandbox.begin(Command(argv=["cat"], is_stdin_open=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await run.wait()
    assert not run.has_ended
    run.close_stdin()
    assert (await run.wait()).exit_code == 0


async def test_closing_the_sandbox_fails_what_runs(opened: OpenSandbox) -> None:
    """Also a writer that waits, and a terminal."""
    sandbox = await opened()
    run = await sandbox.begin(Command(argv=["sleep", "600"], is_stdin_open=True))
    terminal = await sandbox.begin(Command(argv=["sleep", "600"], terminal=Terminal()))
    writing = asyncio.create_task(run.write(b"x" * 1_000_000))
    await asyncio.sleep(0)
    await sandbox.close()
    for failed in (run, terminal):
        with pytest.raises(SandboxError, match="was closed"):
            await failed.wait()
    with pytest.raises(BrokenPipeError):
        await writing


@ALL_KINDS
async def test_limits_of_one_command(kind: str, opened: OpenSandbox) -> None:
    """Tighter than the policy's for this command only, and never looser."""
    sandbox = await opened(kind, max_file_bytes=1 << 20, max_processes=300)
    show = "ulimit -t; ulimit -f; ulimit -d; ulimit -u"
    before = await sandbox.run(Command(script=show))
    limits = Limits(
        max_cpu_s=7, max_file_bytes=1 << 40, max_memory_bytes=512 << 20, max_processes=200
    )
    limited = await sandbox.run(Command(script=show, limits=limits))
    assert ["7", "1024", str(512 << 10), "200"] == limited.output.split()
    assert before.output == (await sandbox.run(Command(script=show))).output
    raising = Command(script="ulimit -t 8 2>/dev/null || echo refused", limits=limits)
    assert (await sandbox.run(raising)).output == "refused\n"


async def test_the_output_of_one_command_can_be_kept_shorter(opened: OpenSandbox) -> None:
    """Head and tail, and what is between in bytes and lines."""
    sandbox = await opened(max_output_bytes=1000)
    limits = Limits(max_output_bytes=8)
    result = await sandbox.run(Command(script="seq 10", limits=limits))
    assert (
        result.is_truncated,
        result.output,
    ) == (True, "1\n2\n\n[... 13 bytes in 6 lines left out ...]\n\n10\n")


async def test_memory_past_the_limit_is_refused(opened: OpenSandbox) -> None:
    """The program sees it; nothing else does."""
    sandbox = await opened()
    limits = Limits(max_memory_bytes=200 << 20)
    result = await sandbox.run(python("bytearray(1 << 30)", limits=limits))
    assert "MemoryError" in result.output
    assert result.exit_code == 1


async def test_secrets_of_the_user_are_in_no_output(
    opened: OpenSandbox, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can come out of a file: in pieces, at the place where a long output is cut, in a terminal."""
    secret = "ghp-0123456789"
    monkeypatch.setenv("X_TOKEN", secret)
    (workspace / "file").write_text(secret)
    sandbox = await opened(max_output_bytes=1000)
    said: list[bytes] = []
    script = "head -c 5 file; tail -c +6 file; echo .; head -c 5 file"
    result = await sandbox.run(Command(script=script), said.append)
    assert result.output == "***.\nghp-0"
    assert b"".join(said) == b"***.\nghp-0"
    script = "printf '%490s' ' '; cat file; printf '%2000s' ' '; cat file; printf '%495s' ' '"
    result = await sandbox.run(Command(script=script))
    assert result.is_truncated
    assert not [part for part in (secret[:6], secret[-6:]) if part in result.output]
    result = await sandbox.run(Command(script="cat file; nosuch-$(cat file)", terminal=Terminal()))
    assert result.output.startswith("***")
    assert secret not in result.output


async def test_what_may_begin_a_secret_is_shown_in_a_terminal_all_the_same(
    opened: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody types, and waits for the echo."""
    monkeypatch.setenv("X_TOKEN", "ghp-0123456789")
    sandbox = await opened()
    echo = asyncio.get_running_loop().create_future()

    def hear(data: bytes) -> None:
        if b"gh" in data and not echo.done():
            echo.set_result(data)

    run = await sandbox.begin(Command(script="cat", terminal=Terminal()), hear)
    await run.write(b"gh")
    assert await echo == b"gh"
    run.kill()
    await run.wait()


async def test_an_answer_without_an_exit_code_is_an_error() -> None:
    """The inside is not trusted to keep the protocol."""
    ends: list[dict[str, Any]] = [{"op": "exit"}, {"op": "exit", "code": "x"}]
    for end in [*ends, {"op": "failed", "code": 1}]:
        run = CommandRun(1, Command(argv=["true"]), 100, None, lambda _: None, lambda: None)
        run.finish(end)
        with pytest.raises(SandboxError, match="no exit code"):
            await run.wait()


def test_only_the_near_end_of_a_terminal_is_taken_for_one() -> None:
    """Anything else could block us, or be a file that is not ours to read."""
    master, slave = os.openpty()
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        assert is_terminal_master(master)
        assert [is_terminal_master(fd) for fd in (slave, reading, null)] == [False] * 3
    finally:
        for fd in (master, slave, reading, writing, null):
            os.close(fd)


def test_a_sealed_file_is_read_from_its_start_and_never_written() -> None:
    """Not even by whoever has it open for writing."""
    fd = sealed_file(b"text")
    try:
        assert os.read(fd, 100) == b"text"
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


async def test_a_warm_run_reports_each_test_when_asked(
    opened: OpenSandbox, workspace: Path
) -> None:
    """A cold run reports nothing, and its input is as empty as ever."""
    plain_environment(workspace)
    (workspace / "test_it.py").write_text(
        "def test_a():\n    pass\n\ndef test_b():\n    assert 0\n"
    )
    sandbox = await opened(warm_tests=True)
    assert await sandbox.warm_tests_ready()
    argv = [str(workspace / ".venv" / "bin" / "python"), "-m", "pytest", "-q"]
    warm = await sandbox.run(Command(argv=argv, is_reporting=True))
    assert (warm.exit_code, warm.how.startswith("warm-pytest-")) == (1, True)
    lines = [json.loads(line) for line in warm.report.splitlines()]
    assert [line["outcome"] for line in lines] == ["passed", "failed"]
    silent = await sandbox.run(Command(argv=argv))
    assert (silent.report, silent.how.startswith("warm-pytest-")) == (b"", True)
    code = "import sys; print(repr(sys.stdin.read()))"
    (workspace / "conftest.py").write_text(code)
    cold = await sandbox.run(
        Command(argv=[*argv, "-s", "-p", "no:x", "-c/dev/null"], is_reporting=True)
    )
    assert (cold.report, cold.how, "''" in cold.output) == (b"", "spawn", True)
