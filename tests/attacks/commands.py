"""What commands do with time, memory, output and children, seen by whoever started them."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.attacks.attack import CONTROL
from tests.attacks.ground import PYTHON, Ground
from tightloop.sandbox.interface import Command, CommandResult, Limits, RunningCommand, Terminal
from tightloop.sandbox.session import PersistentSandbox

_HOLD = "trap '' TERM HUP INT; exec 9>held; flock 9; echo $$ > pid; sleep 600 9>&- & wait"
_DAEMON = f'(setsid sh -c "{_HOLD.replace("$", chr(92) + "$")}" >/dev/null 2>&1 </dev/null &);'
_UNTIL_HELD = "until [ -s pid ]; do sleep 0.02; done; echo up;"
_OUTPUT_BYTES = 32 << 20
_PATIENCE_S = 0.5
"""How long the control is watched doing what it should not."""


async def _plain(ground: Ground, *argv: str, stdin: int = asyncio.subprocess.DEVNULL) -> bytes:
    """What a program says that nothing holds, which ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=ground.workspace, stdin=stdin, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return said


async def _python(ground: Ground, code: str, limits: Limits | None = None) -> str:
    """What code says; the control has no limits."""
    argv = [PYTHON, "-I", "-S", "-c", code]
    if ground.backend == CONTROL:
        return (await _plain(ground, *argv)).decode().strip()
    result = await ground.sandbox.run(Command(argv=argv, timeout_s=20.0, limits=limits))
    return result.output.strip()


# -- processes that stay


def _is_held(ground: Ground) -> bool:
    fd = os.open(ground.workspace / "held", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _outcome(ground: Ground) -> str:
    """Whether the process lives; the control's is ended."""
    is_held = _is_held(ground)
    pid_file = ground.workspace / "pid"
    if is_held and ground.backend == CONTROL:
        os.killpg(os.getpgid(int(pid_file.read_text())), signal.SIGKILL)
    for name in ("held", "pid"):
        (ground.workspace / name).unlink()
    return "alive" if is_held else "dead"


async def daemon(ground: Ground) -> str:
    """A process with a session of its own, whose parent has ended, that ignores signals."""
    script = f"{_DAEMON} {_UNTIL_HELD}"
    if ground.backend == CONTROL:
        await _plain(ground, "bash", "-c", script)
    else:
        await ground.run(script)
    return _outcome(ground)


async def daemon_at_the_end(ground: Ground) -> str:
    """The same beside a command that still runs, when the sandbox is closed."""
    script = f"{_DAEMON} {_UNTIL_HELD}"
    if ground.backend == CONTROL:
        await _plain(ground, "bash", "-c", script)
        return _outcome(ground)
    sandbox = await ground.open()
    await _begun(sandbox, Command(script=f"{script} sleep 600", timeout_s=60.0))
    await sandbox.close()
    return _outcome(ground)


async def _begun(sandbox: PersistentSandbox, command: Command) -> RunningCommand:
    """The command runs, and has said so."""
    is_up = asyncio.Event()
    run = await sandbox.begin(command, lambda piece: is_up.set() if b"up" in piece else None)
    await is_up.wait()
    return run


async def orphan_of_a_timeout(ground: Ground) -> str:
    """A command runs out of time; the control kills what it has started, as most programs do."""
    script = f"{_DAEMON} {_UNTIL_HELD} trap '' TERM; sleep 600"
    return await _orphan(ground, script, timeout_s=1.5, number=None)


async def orphan_of_a_signal(ground: Ground) -> str:
    """A command is told to end."""
    return await _orphan(ground, f"{_DAEMON} {_UNTIL_HELD} exec sleep 600", 60.0, signal.SIGTERM)


async def _orphan(ground: Ground, script: str, timeout_s: float, number: int | None) -> str:
    if ground.backend == CONTROL:
        process = await _started(ground, script)
        process.send_signal(number or signal.SIGKILL)
        await process.communicate()
        return _outcome(ground)
    run = await _begun(ground.sandbox, Command(script=script, timeout_s=timeout_s))
    if number is not None:
        run.send_signal(number)
    result = await run.wait()
    if result.timed_out is (number is not None):
        return f"timed out: {result.timed_out}"
    return _outcome(ground)


async def _started(ground: Ground, script: str) -> asyncio.subprocess.Process:
    """A shell that nothing holds, which has said its first line."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=ground.workspace, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def held_pipe(ground: Ground) -> str:
    """A child keeps the output open; the control waits for it, as most programs do."""
    script = "sleep 600 & echo $! > pid; echo done"
    if ground.backend != CONTROL:
        result = await ground.run(script, timeout_s=60.0)
        (ground.workspace / "pid").unlink()
        return "waiting" if result.timed_out else f"back with {result.output.strip()!r}"
    process = await _started(ground, script)
    waiting = asyncio.ensure_future(process.communicate())
    _, pending = await asyncio.wait([waiting], timeout=_PATIENCE_S)
    os.kill(int((ground.workspace / "pid").read_text()), signal.SIGKILL)
    await waiting
    (ground.workspace / "pid").unlink()
    return "waiting" if pending else "back"


# -- bombs, all of them small


_FORKS = """
import errno, os
reading, writing = os.pipe()
outcome = "ok"
children = []
for _ in range(150):
    try:
        pid = os.fork()
    except OSError as error:
        outcome = errno.errorcode[error.errno]
        break
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    children.append(pid)
os.close(writing)
for pid in children:
    os.waitpid(pid, 0)
print(outcome)
"""


async def forks(ground: Ground) -> str:
    """150 processes where 60 are allowed; afterwards another command runs."""
    outcome = await _python(ground, _FORKS, Limits(max_processes=60))
    return outcome if await _runs(ground) else f"{outcome}, and nothing runs any more"


_ALLOCATION = """
try:
    held = bytearray(128 << 20)
    print("ok")
except MemoryError:
    print("MemoryError")
"""


async def memory(ground: Ground) -> str:
    """128 MiB where 32 are allowed; afterwards another command runs."""
    outcome = await _python(ground, _ALLOCATION, Limits(max_memory_bytes=32 << 20))
    return outcome if await _runs(ground) else f"{outcome}, and nothing runs any more"


async def _runs(ground: Ground) -> bool:
    return (await ground.run("echo alive")).output == "alive\n"


async def spin(ground: Ground) -> str:
    """Processor time without an end."""
    script = "while :; do :; done"
    if ground.backend != CONTROL:
        return _end_of(await ground.run(script, timeout_s=_PATIENCE_S))
    process = await asyncio.create_subprocess_exec("bash", "-c", script)
    waiting = asyncio.ensure_future(process.wait())
    _, pending = await asyncio.wait([waiting], timeout=_PATIENCE_S)
    process.kill()
    await waiting
    return "spinning" if pending else "ended"


async def spin_in_little_time(ground: Ground) -> str:
    """The same under a limit of processor time; the control has none."""
    script = "while :; do :; done"
    if ground.backend != CONTROL:
        result = await ground.run(script, limits=Limits(max_cpu_s=1))
        return signal.Signals(-result.exit_code).name if result.exit_code < 0 else "ended"
    return await spin(ground)


def _end_of(result: CommandResult) -> str:
    if result.timed_out and result.exit_code == -signal.SIGKILL:
        return "killed at the deadline"
    return f"exit {result.exit_code}"


async def flood(ground: Ground) -> str:
    """32 MiB without a line end; what the agent's memory grows by at its highest."""
    script = f"printf HEAD; head -c {_OUTPUT_BYTES} /dev/zero | tr '\\0' x; printf TAIL"
    before = _peak_bytes(is_reset=True)
    if ground.backend == CONTROL:
        text = (await _plain(ground, "bash", "-c", script)).decode()
    else:
        text = (await ground.run(script, timeout_s=60.0)).output
    growth = _peak_bytes() - before
    if not (text.startswith("HEAD") and text.endswith("TAIL")):
        return f"neither head nor tail: {text[:9]}...{text[-9:]}"
    if len(text) > _OUTPUT_BYTES and growth > _OUTPUT_BYTES:
        return "all of it in memory"
    is_small = len(text) < 1 << 20 and growth < _OUTPUT_BYTES // 2
    return "head and tail" if is_small else f"{len(text)} characters, {growth} bytes more"


def _peak_bytes(*, is_reset: bool = False) -> int:
    """The most memory this process has had since the last reset."""
    if is_reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


# -- the terminal


_PUSH = """
import errno, fcntl
try:
    fcntl.ioctl(0, 0x5412, b"x")
    print("ok")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


async def push_into_terminal(ground: Ground) -> str:
    """Characters for whoever reads the terminal next, as if they had been typed."""
    argv = [PYTHON, "-I", "-S", "-c", _PUSH]
    result = await ground.sandbox.run(Command(argv=argv, terminal=Terminal(), timeout_s=20.0))
    return result.output.replace("x", "").strip()


def reads_stdin(read: str) -> Callable[[Ground], Awaitable[str]]:
    """A probe that reads what the agent would, from its own standard input."""

    async def probe(ground: Ground) -> str:
        reading, writing = os.pipe()
        os.write(writing, b"typed\n")
        os.close(writing)
        saved = os.dup(0)
        os.dup2(reading, 0)
        os.close(reading)
        try:
            if ground.backend == CONTROL:
                return (await _plain(ground, "sh", "-c", read, stdin=0)).decode().strip()
            sandbox = await ground.open()
            result = await sandbox.run(Command(script=read, timeout_s=20.0))
            await sandbox.close()
            return result.output.strip() or "end of file"
        finally:
            os.dup2(saved, 0)
            os.close(saved)

    return probe
