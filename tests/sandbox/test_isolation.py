"""The attack table: each row must succeed without isolation, then fail in exactly one way."""

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.interface import Command, Policy, SandboxError, SandboxTooSlow
from tightloop.sandbox.isolation import KINDS, describe, open_sandbox, probe

PYTHON = os.path.realpath(sys.executable)
IS_ROOT = os.geteuid() == 0
NEEDS_ROOT = "ok" if IS_ROOT else "EPERM"


YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")  # 1: only descendants may be traced
CAN_TRACE = "ok" if IS_ROOT or not YAMA.exists() or YAMA.read_text() == "0\n" else "EPERM"


@dataclass(frozen=True, slots=True)
class Attack:
    """Code that raises OSError when stopped, and what must come of it per kind."""

    code: str
    none: str
    bubblewrap: str
    landlock: str


ATTACKS = {
    # F: files
    "F1 write outside": Attack("open(p['outside'] + '/f1', 'w').close()", "ok", "EROFS", "EACCES"),
    "F1 write in /etc": Attack(
        "os.close(os.open('/etc/passwd', os.O_WRONLY))",
        "ok" if IS_ROOT else "EACCES",
        "EROFS" if IS_ROOT else "EACCES",
        "EACCES",
    ),
    "F2 write to the host's TMP": Attack(
        # bubblewrap: it lands in a private file system, see the test on host traces
        "open(p['tmp'] + '/f2', 'w').close()",
        "ok",
        "ok",
        "EACCES",
    ),
    "F3 write through a link": Attack(
        "os.symlink(p['outside'], 'link'); open('link/f3', 'w').close()", "ok", "EROFS", "EACCES"
    ),
    "F6 hard link to outside": Attack(
        "os.link(p['outside'] + '/secret', 'hard')", "ok", "EXDEV", "EXDEV"
    ),
    "F8 dots": Attack(
        "open('../' * 40 + p['outside'] + '/f8', 'w').close()", "ok", "EROFS", "EACCES"
    ),
    "F8 /proc/self/root": Attack(
        "open('/proc/self/root' + p['outside'] + '/f8', 'w').close()", "ok", "EROFS", "EACCES"
    ),
    "F8 root of a host process": Attack(
        "open(f\"/proc/{p['victim']}/root{p['tmp']}/plain\").read()", "ok", "ENOENT", "EACCES"
    ),
    "F17 mount": Attack(
        "os.makedirs('m', exist_ok=True); "
        "check(libc.mount(b'none', b'm', b'tmpfs', 0, None)); libc.umount2(b'm', 2)",
        NEEDS_ROOT,
        "EPERM",
        "EPERM",
    ),
    "F17 unmount": Attack(
        "check(libc.umount2(b'/run', 8))",  # UMOUNT_NOFOLLOW on what is no mount point outside
        "EINVAL" if IS_ROOT else "EPERM",
        "EPERM",
        "EPERM",
    ),
    # N: network and sockets
    "N4 loopback service": Attack(
        "socket.create_connection(('127.0.0.1', p['port'])).close()",
        "ok",
        "ECONNREFUSED",
        "EPERM",
    ),
    "N6 abstract socket": Attack(
        "s = socket.socket(socket.AF_UNIX); s.connect('\\0' + p['abstract'])",
        "ok",
        "ECONNREFUSED",
        "EPERM",
    ),
    "N7 socket in TMP": Attack(
        "s = socket.socket(socket.AF_UNIX); s.connect(p['tmp'] + '/s')", "ok", "ENOENT", "EPERM"
    ),
    "N7 socket in a readable place": Attack(
        "s = socket.socket(socket.AF_UNIX); s.connect(p['outside'] + '/s')",
        "ok",
        "ECONNREFUSED",  # the name is there, a null device lies over it
        "EPERM",
    ),
    "N8 vsock": Attack("socket.socket(40, socket.SOCK_STREAM).close()", "ok", "EPERM", "EPERM"),
    "N9 io_uring": Attack(
        "check(libc.syscall(425, 1, ctypes.create_string_buffer(120)))", "ok", "EPERM", "EPERM"
    ),
    "N11 netlink": Attack("socket.socket(16, socket.SOCK_RAW).close()", "ok", "EPERM", "EPERM"),
    # P: processes
    "P2 ptrace": Attack(
        "check(libc.ptrace(0x4206, p['victim'], None, None))", CAN_TRACE, "EPERM", "EPERM"
    ),
    "P3 see a host process": Attack(
        "os.stat(f\"/proc/{p['victim']}\")",
        "ok",
        "ENOENT",
        "ok",  # landlock: known gap
    ),
    "P4 signal a host process": Attack("os.kill(p['victim'], 0)", "ok", "ESRCH", "EPERM"),
    "P12 push into the terminal": Attack(
        "import fcntl; fcntl.ioctl(0, 0x5412, b'x')", "ENOTTY", "EPERM", "EPERM"
    ),
    "P15 new user namespace": Attack(
        "pid = os.fork() or os._exit(libc.unshare(0x10000000) and ctypes.get_errno()); "
        "code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]); check(-bool(code), code)",
        "ok",
        "EPERM",
        "EPERM",
    ),
    "P15 clone3": Attack("check(libc.syscall(435, None, 0))", "EINVAL", "ENOSYS", "ENOSYS"),
    # S: secrets
    "S2 environment of a host process": Attack(
        "open(f\"/proc/{p['victim']}/environ\").read()", "ok", "ENOENT", "EACCES"
    ),
    "S3 key in the home directory": Attack(
        "open(p['home'] + '/.ssh/id').read()", "ok", "ENOENT", "EACCES"
    ),
}

PROGRAM = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result, code=None):
    if result < 0:
        raise OSError(code or ctypes.get_errno(), "refused")
p, codes = json.loads(sys.argv[1])
said = {}
for name, code in codes.items():
    try:
        exec(code)
        said[name] = "ok"
    except OSError as error:
        said[name] = errno.errorcode[error.errno]
print(json.dumps(said))
"""


@dataclass(frozen=True, slots=True)
class Host:
    """What the attacks aim at."""

    tmp: Path
    outside: Path
    home: Path
    workspace: Path
    port: int
    abstract: str
    victim: int

    def parameters(self) -> dict[str, object]:
        """Plain values for the program inside."""
        names = ("tmp", "outside", "home", "port", "abstract", "victim")
        values = {name: getattr(self, name) for name in names}
        return {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host with services, secrets and a process, all reachable without isolation."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        tmp = Path(name)
        for place in ("outside", "home/.ssh", "workspace"):
            (tmp / place).mkdir(parents=True)
        for file in ("plain", "outside/secret", "home/.ssh/id"):
            (tmp / file).write_text("secret")
        patch.setenv("HOME", str(tmp / "home"))
        abstract = f"tightloop-test-{os.getpid()}"
        listeners = [socket.create_server(("127.0.0.1", 0))]
        for address in ("\0" + abstract, f"{tmp}/s", f"{tmp}/outside/s"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(address)
            listener.listen(16)
            listeners.append(listener)
        victim = subprocess.Popen(["sleep", "600"], env={"X_API_KEY": "hush-hush"})
        port = listeners[0].getsockname()[1]
        yield Host(
            tmp, tmp / "outside", tmp / "home", tmp / "workspace", port, abstract, victim.pid
        )
        victim.kill()
        victim.wait()
        for listener in listeners:
            listener.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(KINDS))
async def outcome(
    request: pytest.FixtureRequest, host: Host
) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """The kind, and what came of every attack in one sandbox of that kind."""
    workspace = host.workspace / request.param
    workspace.mkdir()
    policy = Policy(workspace=workspace, read_only=(host.outside,), warm_tests=False)
    sandbox = await open_sandbox(policy, kind=request.param)
    codes = {name: attack.code for name, attack in ATTACKS.items()}
    argument = json.dumps([host.parameters(), codes])
    argv = [PYTHON, "-I", "-c", PROGRAM, argument]
    try:
        result = await sandbox.run(Command(argv=argv, timeout_s=30.0))
    finally:
        await sandbox.close()
    assert result.exit_code == 0, result.output
    yield request.param, json.loads(result.output)
    for name in ("f1", "f3", "f8"):
        (host.outside / name).unlink(missing_ok=True)
    (host.tmp / "f2").unlink(missing_ok=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ATTACKS)
async def test_every_attack_ends_as_its_layer_says(
    name: str, outcome: tuple[str, dict[str, str]]
) -> None:
    """The exact errno shows which layer stopped it; without isolation it must work."""
    kind, said = outcome
    assert getattr(ATTACKS[name], kind) == said[name]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_host_shows_no_trace(outcome: tuple[str, dict[str, str]], host: Host) -> None:
    """Files exist outside after the control only."""
    kind, _ = outcome
    left = {path.name for path in (*host.outside.iterdir(), *host.tmp.iterdir())}
    made = {"f1", "f2", "f3", "f8"} & left
    assert ({"f1", "f2", "f3", "f8"} if kind == "none" else set()) == made


STATUS = "grep -E '^(CapEff|CapPrm|NoNewPrivs|Seccomp):' /proc/self/status"


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
async def test_commands_have_no_capabilities_and_cannot_gain_any(
    kind: str, opened: OpenSandbox
) -> None:
    """P1, P16: what the kernel says about a command, not about the server that started it."""
    sandbox = await opened(kind)
    result = await sandbox.run(Command(script=STATUS))
    values = {
        line.split(":\t")[0]: int(line.split(":\t")[1], 16)
        for line in result.output.split("\n")
        if line
    }
    assert values == {"CapEff": 0, "CapPrm": 0, "NoNewPrivs": 1, "Seccomp": 2}


@pytest.mark.parametrize("kind", list(KINDS))
async def test_only_the_three_standard_descriptors_are_open(kind: str, opened: OpenSandbox) -> None:
    """N10: neither our files nor the connection to the server reach a command."""
    extra = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        sandbox = await opened(kind)
        code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
        argv = [PYTHON, "-I", "-S", "-c", code]
        result = await sandbox.run(Command(argv=argv))
    finally:
        os.close(extra)
    assert result.output == "[0, 1, 2, 3]\n"  # 3 is the listing itself


@pytest.mark.parametrize("kind", list(KINDS))
async def test_secret_variables_stay_outside(
    kind: str,
    opened: OpenSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S1: an allow-list, so names nobody thought of are absent too."""
    bad = ("X_API_KEY", "Y_TOKEN", "LD_PRELOAD", "PYTHONPATH", "GIT_DIR", "BASH_ENV", "ENV")
    for name in bad[:2]:
        monkeypatch.setenv(name, "hush-hush")
    for name in bad[2:]:
        monkeypatch.setenv(name, "/nonexistent")
    sandbox = await opened(kind)
    result = await sandbox.run(
        Command(script="env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep ^X_API")
    )
    names = {line.partition("=")[0] for line in result.output.splitlines()}
    assert set() == names & (set(bad) - {"X_API_KEY"})
    assert "PATH" in names
    assert kind == "none" or "hush-hush" not in result.output


@pytest.mark.parametrize(
    ("kind", "said"),
    [("bubblewrap", "Connection refused"), ("landlock", "Operation not permitted")],
)
async def test_shell_network_tools_fail(
    kind: str, said: str, host: Host, opened: OpenSandbox
) -> None:
    """N1: bash's own network, which needs no program; the control connects."""
    script = Command(script=f"exec 3<>/dev/tcp/127.0.0.1/{host.port} && echo connected")
    control = await (await opened("none")).run(script)
    assert control.output == "connected\n"
    result = await (await opened(kind)).run(script)
    assert result.exit_code == 1
    assert said in result.output


async def test_network_works_when_the_policy_allows_it(host: Host, opened: OpenSandbox) -> None:
    """The switch is the policy's, not a side effect of something missing."""
    sandbox = await opened("bubblewrap", allow_network=True)
    script = f"exec 3<>/dev/tcp/127.0.0.1/{host.port} && echo connected"
    assert (await sandbox.run(Command(script=script))).output == "connected\n"


async def test_the_strongest_kind_is_chosen(workspace: Path) -> None:
    """Nobody has to name a kind."""
    sandbox = await open_sandbox(Policy(workspace=workspace, warm_tests=False))
    await sandbox.close()
    assert sandbox.kind == "bubblewrap"


async def test_without_bwrap_landlock_is_next_and_never_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Isolation gets weaker in steps, and says why."""
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox = await open_sandbox(Policy(workspace=workspace, warm_tests=False))
    await sandbox.close()
    assert sandbox.kind == "landlock"
    text = await describe()
    assert "isolation: landlock" in text
    assert "install the package 'bubblewrap'" in text


async def test_probe_enters_every_isolating_kind() -> None:
    """Both work here; none is not among them."""
    found = {finding.kind: finding.works for finding in await probe()}
    assert found == {"bubblewrap": True, "landlock": True}


async def test_unknown_kinds_and_missing_workspaces_are_refused(tmp_path: Path) -> None:
    """The error names what was wrong and what is possible."""
    with pytest.raises(SandboxError, match="unknown isolation 'docker': known are bubblewrap"):
        await open_sandbox(Policy(workspace=tmp_path), kind="docker")
    with pytest.raises(SandboxError, match="is not a directory"):
        await open_sandbox(Policy(workspace=tmp_path / "missing"))


async def test_protected_paths_are_read_only(workspace: Path, opened: OpenSandbox) -> None:
    """F10: version control's settings, editors' settings and what the policy names."""
    (workspace / ".git" / "hooks").mkdir(parents=True)
    (workspace / ".git" / "config").write_text("[core]\n")
    (workspace / "mine").write_text("")
    sandbox = await opened("bubblewrap", protected=(workspace / "mine",))
    script = "for f in .git/config .git/hooks/post-checkout mine; do echo x >> $f; done; echo x > .git/HEAD"
    result = await sandbox.run(Command(script=script))
    assert result.output.count(os.strerror(errno.EROFS)) == 3
    assert (workspace / ".git" / "HEAD").exists()


async def test_a_protected_path_that_is_a_link_is_refused(
    workspace: Path, opened: OpenSandbox
) -> None:
    """F4: the protection would cover a decoy."""
    (workspace / "elsewhere").mkdir()
    (workspace / ".git").symlink_to("elsewhere")
    (workspace / "elsewhere" / "config").write_text("")
    with pytest.raises(SandboxError, match=r"symbolic link .*\.git"):
        await opened("bubblewrap")


OPEN_EVERYTHING = """
import os
import sys

flags = os.O_NONBLOCK | os.O_NOCTTY | (os.O_WRONLY if sys.argv[1] == "write" else os.O_RDONLY)
for path in sys.argv[2:]:
    for place, directories, files in os.walk(path):
        if place == "/proc":  # processes are another matter
            directories[:] = [name for name in directories if name[0].isalpha()]
            directories[:] = [name for name in directories if "self" not in name]
        for name in files:
            try:
                os.close(os.open(os.path.join(place, name), flags))
            except OSError:
                continue
            print(os.path.join(place, name))
"""


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
async def test_no_setting_of_the_kernel_can_be_written(kind: str, opened: OpenSandbox) -> None:
    """uid 0 owns those files, so its lack of capabilities does not stop it: core_pattern runs
    programs as root outside."""
    sandbox = await opened(kind)
    argv = [PYTHON, "-c", OPEN_EVERYTHING, "write", "/proc", "/sys"]
    result = await sandbox.run(Command(argv=argv))
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
async def test_no_device_of_the_host_can_be_read(kind: str, opened: OpenSandbox) -> None:
    """Reading a disk is reading every file on it."""
    code = (
        "import os, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))\n"
        "    except OSError:\n"
        "        continue\n"
        "    print(os.path.basename(path))\n"
    )
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
    paths = [entry.path for entry in os.scandir("/dev") if not entry.is_dir()]
    links = {entry.name for entry in os.scandir("/dev") if entry.is_symlink()}
    sandbox = await opened(kind)
    result = await sandbox.run(Command(argv=[PYTHON, "-c", code, *paths]))
    assert result.exit_code == 0
    assert set(result.output.split()) - links <= harmless
    assert "null" in result.output.split()


async def test_a_slow_start_is_no_reason_for_a_weaker_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landlock works here, but the stronger kind was only late: that is told, and nothing opened."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "bwrap").write_text("#!/bin/sh\nexec sleep 600\n")
    (programs / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with pytest.raises(SandboxTooSlow, match=r"bubblewrap sandbox did not start within 0\.3 s"):
        await open_sandbox(Policy(workspace, warm_tests=False), start_limit_s=0.3)
