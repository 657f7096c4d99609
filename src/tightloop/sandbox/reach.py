"""Tries, from inside a sandbox, every secret and socket of the host that can be used outside."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tightloop.sandbox import places
from tightloop.sandbox.environment import home_directory
from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.launch import server_argv

MAX_PLACES: Final = 400
_HOME_SECRETS: Final = (
    *(".ssh", ".aws", ".gnupg", ".netrc", ".config/gh", ".config/gcloud", ".azure", ".kube"),
    *(".docker/config.json", ".npmrc", ".pypirc", ".git-credentials", ".cargo/credentials.toml"),
    *(".bash_history", ".zsh_history", ".python_history", ".psql_history", ".mozilla"),
    *(".config/google-chrome", ".config/tightloop", ".local/share/keyrings", ".pki"),
)
_USUAL_SOCKETS: Final = (
    *("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"),
    *("/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"),
)
_PROGRAM: Final = """
import errno, json, os, socket, stat, sys

asked = json.loads(sys.argv[1])
found = []
for path in asked["files"]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            if os.listdir(fd) if is_directory else os.read(fd, 1):
                found.append(path)
        finally:
            os.close(fd)
    except OSError:
        pass
for name in asked["sockets"]:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect("\\0" + name[1:] if name.startswith("@") else name)
        found.append(name)
    except OSError as error:
        if error.errno in (errno.EPROTOTYPE, errno.EAGAIN):  # it is there and was found
            found.append(name)
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """How much was tried, and what could be used from inside."""

    num_files: int
    num_sockets: int
    reached: list[str]


async def check_reach(policy: Policy, kind: str | None = None) -> Reach:
    """Raises SandboxError when the sandbox, or the program inside, cannot run."""
    files = [str(path) for path in secrets_of_the_host() if _is_open_to_us(path)]
    sockets = sockets_of_the_host()
    asked = {"files": files[:MAX_PLACES], "sockets": sockets[:MAX_PLACES]}
    sandbox = await open_sandbox(policy, kind=kind)
    argv = [server_argv(0)[0], "-I", "-S", "-c", _PROGRAM, json.dumps(asked)]
    try:
        result = await sandbox.run(Command(argv=argv, timeout_s=30.0))
    finally:
        await sandbox.close()
    try:
        reached = json.loads(result.output)
    except ValueError as error:
        raise SandboxError(
            f"the probe inside ended with {result.exit_code}: {result.output[-300:]}"
        ) from error
    return Reach(len(asked["files"]), len(asked["sockets"]), reached)


def secrets_of_the_host() -> list[Path]:
    """Existing files and directories that usually hold secrets."""
    home = home_directory()
    wanted = [home / name for name in _HOME_SECRETS] if home else []
    wanted += places.secret_files()
    return [path for path in wanted if os.path.exists(path)]


def sockets_of_the_host(table: Path = Path("/proc/net/unix")) -> list[str]:
    """Listening and usual unix sockets; abstract ones begin with ``@``."""
    found = {str(path) for path in places.listening_sockets()}
    found |= {name for name in _USUAL_SOCKETS if os.path.exists(name)}
    agent = os.environ.get("SSH_AUTH_SOCK", "")
    found |= {agent} if os.path.exists(agent) else set()
    for line in table.read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("@") and fields[7].isprintable():
            found.add(fields[7])
    return sorted(found)


def _is_open_to_us(path: Path) -> bool:
    return os.access(path, os.R_OK)
