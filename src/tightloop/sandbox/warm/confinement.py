# ruff: noqa: TID252 - started as a script, without the package above
"""A resident interpreter runs code of the project, so it runs in a sandbox or not at all."""

import socket
import sys

from .wire import send

_WANTED = {"CapEff": 0, "NoNewPrivs": 1, "Seccomp": 2}
"""What the kernel says of a process in a sandbox; the filter's mode is 2."""
UNCONFINED = "unconfined"
"""The word of whoever starts it where commands are not confined either."""
REFUSAL = "it is not in a sandbox"


def refuse_outside() -> None:
    """Ends this process, with a word to the exec server, where nothing keeps the project in."""
    if sys.argv[1] == UNCONFINED:
        del sys.argv[1]
    elif not is_confined():
        with socket.socket(fileno=int(sys.argv[2])) as control:
            send(control, {"state": "refused", "reason": REFUSAL})
        sys.exit(REFUSAL)


def is_confined(status: str = "/proc/self/status") -> bool:
    """Whether this process has no capabilities, cannot gain any, and is under a filter."""
    try:
        with open(status) as lines:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
        return all(int(fields[name], 16) == value for name, value in _WANTED.items())
    except (OSError, KeyError, ValueError):
        return False
