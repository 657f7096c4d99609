"""What a reader must know of the machine to judge a result; no names and no paths."""

import os
import platform
from pathlib import Path

from msgspec import Struct

from tightloop.engine.interface import EngineError
from tightloop.engine.llama_cpp.library import find_library


class Machine(Struct, frozen=True):
    """``load_1min`` is the load average when this was made; ``num_cores`` may be used by us.

    ``llama`` is the build of llama.cpp that local engines use, by package and version; "" where the
    result is older than this field, or there is none.
    """

    num_cores: int
    cpu: str
    kernel: str
    python: str
    load_1min: float
    llama: str = ""


def this_machine() -> Machine:
    """The facts as they are now."""
    return Machine(
        num_cores=len(os.sched_getaffinity(0)),
        cpu=_cpu_model(),
        kernel=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        load_1min=round(os.getloadavg()[0], 2),
        llama=_llama(),
    )


def _llama() -> str:
    try:
        package, version, _ = find_library()
    except EngineError:
        return ""
    return f"{package} {version}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()
