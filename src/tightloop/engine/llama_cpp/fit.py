"""Will it fit, and how many threads: what is decided from the machine before a model runs."""

import os
from pathlib import Path

from tightloop.engine.interface import EngineError

SMALL_MODEL_PARAMETERS = 50_000_000
"""Below this a second decode thread gains nothing and can stall for a second when the cores are
busy (OpenMP barriers spin), so one thread is used."""
_HEADROOM = 1.1


def available_bytes() -> int | None:
    """Memory that can be taken without swapping, or None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def kv_bytes_per_token(num_layers: int, num_kv_heads: int, head_dim: int) -> int:
    """Bytes of keys and values one token takes in a context, at f16."""
    return 2 * num_layers * num_kv_heads * head_dim * 2


def check_fit(what: str, num_bytes: int, remedy: str, *, available: int | None) -> None:
    """Return when ``num_bytes`` and a tenth more are available; else raise ``EngineError``."""
    needed = int(num_bytes * _HEADROOM)
    if available is not None and needed > available:
        raise EngineError(
            f"{what} needs about {_size(needed)} of memory and {_size(available)} are available; "
            + remedy,
            code="engine_unavailable",
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def physical_cores() -> int:
    """Physical cores this process may run on; hyper-threads of one core count once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed is None:
        return os.cpu_count() or 1
    cores = set()
    for cpu in allowed:
        folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            package = (folder / "physical_package_id").read_text().strip()
            cores.add((package, (folder / "core_id").read_text().strip()))
        except OSError:
            cores.add(("?", str(cpu)))
    return max(1, len(cores))


def decode_threads(num_parameters: int, num_cores: int) -> int:
    """Decode threads that are safe while tests run on the same cores: never all of them."""
    return 1 if num_parameters < SMALL_MODEL_PARAMETERS else max(1, num_cores - 1)
