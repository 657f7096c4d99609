"""The command that runs probes: ``python -I -S program.py SOURCES``, the plan on stdin as JSON.

``[values, [[name, module, function], ...]]``. Each probe runs in a process of its own, one after the
other; the answer is one JSON object, name to outcome. SOURCES is the directory that has ``tests``.
"""

import errno
import importlib
import json
import os
import select
import signal
import sys
from typing import Any

PROBE_LIMIT_S = 10.0


def main() -> None:
    """Everything that is asked for, in order."""
    sys.path.insert(0, sys.argv[1])
    values, plan = json.load(sys.stdin)
    outcomes = {name: run(module, function, values) for name, module, function in plan}
    sys.stdout.write(json.dumps(outcomes))


def run(module: str, function: str, values: dict[str, Any]) -> str:
    """The outcome of one probe in a child; its children are in its process group."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setpgid(0, 0)
        os.write(writing, said_by(module, function, values).encode()[:4000])
        os._exit(0)
    os.close(writing)
    is_over = select.select([reading], [], [], PROBE_LIMIT_S)[0]
    text = os.read(reading, 4096).decode() if is_over else "no end"
    os.close(reading)
    if not is_over:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return text or f"exit {code}"


def said_by(module: str, function: str, values: dict[str, Any]) -> str:
    """What the probe returns, or the name of its errno."""
    try:
        probe = getattr(importlib.import_module(module), function)
        outcome = probe(values)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, f"OSError: {error}")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok" if outcome is None else str(outcome)


if __name__ == "__main__":
    main()
