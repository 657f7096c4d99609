"""S: secrets, looked for by commands."""

import os
from collections.abc import Mapping
from typing import Any

from tests.attacks.inside.calls import syscall

Values = Mapping[str, Any]

ADD_KEY, REQUEST_KEY, KEYCTL = (
    (217, 218, 219) if os.uname().machine == "aarch64" else (248, 249, 250)
)
KEYCTL_READ, USER_KEYRING = 11, -4


def environment_of_the_agent(values: Values) -> None:
    """The process that was started with the secrets."""
    with open(f"/proc/{values['owner']}/environ") as file:
        assert values["env_secret"] in file.read()


def environment_of_any_process(values: Values) -> str | None:
    """Every process that can be seen, parents and one's own among them."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        for place in ("environ", "cmdline"):
            try:
                with open(f"/proc/{name}/{place}", errors="replace") as file:
                    if values["env_secret"] in file.read():
                        return None
            except OSError:
                continue
    return "none has it"


def memory_of_the_agent(values: Values) -> None:
    """Where its keys are, too."""
    with open(f"/proc/{values['owner']}/mem", "rb") as file:
        file.seek(values["address"])
        assert file.read(9) == b"hush-hush"


def descriptors_of_the_agent(values: Values) -> None:
    """Files that it has open."""
    with open(f"/proc/{values['owner']}/fd/{values['open_fd']}") as file:
        assert file.read() == "hush-hush"


def _read(path: str) -> str | None:
    with open(path) as file:
        text = file.read()
    return None if "hush-hush" in text else f"{len(text)} characters"


def ssh_key(values: Values) -> str | None:
    """A key to other machines."""
    return _read(f"{values['home']}/.ssh/id")


def aws_key(values: Values) -> str | None:
    """A key to a cloud."""
    return _read(f"{values['home']}/.aws/credentials")


def netrc(values: Values) -> str | None:
    """Passwords of hosts."""
    return _read(f"{values['home']}/.netrc")


def keyring(values: Values) -> str | None:
    """The desktop's passwords."""
    return _read(f"{values['home']}/.local/share/keyrings/login.keyring")


def gnupg(values: Values) -> str | None:
    """A key to sign with."""
    return _read(f"{values['home']}/.gnupg/private-keys-v1.d/key")


def browser(values: Values) -> str | None:
    """Sessions of a browser."""
    return _read(f"{values['home']}/.mozilla/cookies.sqlite")


def history(values: Values) -> str | None:
    """What was typed into a shell."""
    return _read(f"{values['home']}/.bash_history")


def own_configuration(values: Values) -> str | None:
    """What decides over the policy, and may hold variables for commands."""
    return _read(f"{values['home']}/.config/tightloop/config.toml")


def by_another_path(values: Values) -> str | None:
    """Through the root of a process."""
    return _read(f"/proc/self/root{values['home']}/.ssh/id")


def hidden_by_the_policy(values: Values) -> str | None:
    """A directory that the user has named."""
    return _read(values["hidden_file"])


def shadow(values: Values) -> str | None:
    """Hashes of passwords."""
    with open("/etc/shadow") as file:
        return None if file.read() else "empty"


def kernel_key(values: Values) -> None:
    """A key that the kernel holds for the user."""
    buffer = b"\0" * 64
    syscall(KEYCTL, KEYCTL_READ, values["key_id"], buffer, len(buffer))


def kernel_key_by_name(values: Values) -> None:
    """The same, asked for."""
    syscall(REQUEST_KEY, b"user", values["key_name"].encode(), None, 0)
