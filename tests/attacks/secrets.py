"""S: secrets of the user. S4, what a command prints, is in ``test_secrets.py``."""

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.attacks import way_out
from tests.attacks.attack import Attack, Inside, Probe
from tests.attacks.ground import Ground
from tests.attacks.inside import secrets as inside
from tests.attacks.inside.calls import syscall

SECRET = "hush-hush"
VARIABLES = {
    "X_API_KEY": "hush-hush-key",
    "Y_TOKEN": "hush-hush-token",
    "AWS_SECRET_ACCESS_KEY": "hush-hush-aws",
    "NAMED_BY_NOBODY": "hush-hush-anything",
    "LD_PRELOAD": "",
    "LD_LIBRARY_PATH": "/nonexistent",
    "PYTHONPATH": "/nonexistent",
    "PYTHONSTARTUP": "/nonexistent",
    "GIT_DIR": "/nonexistent",
    "GIT_SSH_COMMAND": "/nonexistent",
    "BASH_ENV": "/nonexistent",
    "ENV": "/nonexistent",
    "BASH_FUNC_ls%%": "() { echo hush-hush; }",
    "SSH_AUTH_SOCK": "/nonexistent",
    "NODE_OPTIONS": "",
    "PERL5LIB": "/nonexistent",
    "HTTPS_PROXY": "http://me:hush-hush@127.0.0.1:9",
}
"""Secrets, and what makes programs run something else."""

_HOME_FILES = (
    *(".ssh/id", ".aws/credentials", ".netrc", ".local/share/keyrings/login.keyring"),
    *(".gnupg/private-keys-v1.d/key", ".mozilla/cookies.sqlite", ".bash_history"),
    ".config/tightloop/config.toml",
)


@contextlib.contextmanager
def secrets_of_the_user(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """Files in the home directory, variables and memory of the agent, a key in the kernel."""
    for name in _HOME_FILES:
        path = ground.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    buffer = ctypes.create_string_buffer(SECRET.encode())
    fd = os.open(ground.closed / "secret", os.O_RDONLY)
    key_name = f"tightloop-{ground.root.name}"
    arguments = (b"user", key_name.encode(), SECRET.encode(), len(SECRET), inside.USER_KEYRING)
    key = syscall(inside.ADD_KEY, *arguments)
    syscall(inside.KEYCTL, _KEYCTL_SETPERM, key, _KEY_OF_THE_USER)
    try:
        yield {
            "env_secret": VARIABLES["X_API_KEY"],
            "address": ctypes.addressof(buffer),
            "open_fd": fd,
            "key_id": key,
            "key_name": key_name,
            "hidden_file": str(ground.outside / "secrets" / "key"),
        }
    finally:
        os.close(fd)
        syscall(inside.KEYCTL, _KEYCTL_INVALIDATE, key)


_KEYCTL_SETPERM, _KEYCTL_INVALIDATE = 5, 21
_KEY_OF_THE_USER = 0x3F3F0000
_PRINT = "import os; print(*os.environ, sep='\\n')"


async def variables(ground: Ground) -> str:
    """Which of the variables come to a command of a sandbox that was opened among them."""
    with _exported():
        if ground.backend == "none":  # even this kind has a list of its own
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _PRINT), stdout=asyncio.subprocess.PIPE
            )
            names = (await child.communicate())[0].decode().split("\n")
            return "ok" if set(VARIABLES) <= set(names) else f"it has {names}"
        sandbox = await ground.open()
        ground.shared, before = sandbox, ground.shared
        try:
            result = await ground.run_python(_PRINT)
        finally:
            ground.shared = before
        found = set(VARIABLES) & set(result.output.split("\n"))
        return " ".join(sorted(found)) or "none"


@contextlib.contextmanager
def _exported() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(VARIABLES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def hidden(ground: Ground) -> str:
    """A sandbox whose policy hides a directory that is readable otherwise."""
    directory = ground.outside / "secrets"
    sandbox = await ground.open(hidden=(directory,))
    return await way_out.run_inside(sandbox, inside.hidden_by_the_policy, ground.values)


PROPS = (secrets_of_the_user,)
CLOSED = ("ENOENT", "EACCES")
"""How it ends with bubblewrap and with Landlock."""
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
MAY_LOOK = ("root", "mapped")
"""To others the kernel closes a process that has entered a namespace, as overlays need it."""
MAY_TRACE = MAY_LOOK if not _YAMA.exists() or _YAMA.read_text().strip() == "0" else ("root",)


def _looking(name: str, run: Inside, users: tuple[str, ...] = MAY_LOOK) -> Probe:
    return Probe(name, run, *CLOSED, users=users)


ATTACKS = (
    Attack(
        "S1",
        "variables of the user",
        (Probe("secrets, and what programs obey", variables, bubblewrap="none", landlock="none"),),
    ),
    Attack(
        "S2",
        "variables and memory of other processes",
        (
            _looking("variables of the agent", inside.environment_of_the_agent),
            Probe(
                "variables of the agent, of an ordinary user",
                inside.environment_of_the_agent,
                *CLOSED,
                users=("user",),
                places=("plain",),
            ),
            Probe(
                "variables and words of any process",
                inside.environment_of_any_process,
                bubblewrap="none has it",
                landlock="none has it",
                users=MAY_LOOK,
            ),
            _looking("memory of the agent", inside.memory_of_the_agent, MAY_TRACE),
            _looking("open files of the agent", inside.descriptors_of_the_agent, MAY_TRACE),
        ),
    ),
    Attack(
        "S3",
        "keys and passwords in files",
        (
            Probe("~/.ssh", inside.ssh_key, *CLOSED),
            Probe("~/.ssh, by /proc/self/root", inside.by_another_path, *CLOSED),
            Probe("~/.aws", inside.aws_key, *CLOSED),
            Probe("~/.netrc", inside.netrc, *CLOSED),
            Probe("~/.gnupg", inside.gnupg, *CLOSED),
            Probe("keyrings of the desktop", inside.keyring, *CLOSED),
            Probe("a browser's cookies", inside.browser, *CLOSED),
            Probe("the shell's history", inside.history, *CLOSED),
            Probe("tightloop's configuration", inside.own_configuration, *CLOSED),
            Probe("what the policy hides", hidden, *CLOSED),
            Probe(
                "/etc/shadow",
                inside.shadow,
                bubblewrap="EACCES",
                landlock="EACCES",
                users=("root",),
            ),
            Probe("a key in the kernel", inside.kernel_key, "EPERM", "EPERM"),
            Probe("a key in the kernel, by name", inside.kernel_key_by_name, "EPERM", "EPERM"),
        ),
    ),
)
