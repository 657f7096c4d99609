"""Figures as a person reads them."""

from collections.abc import Sequence


def duration(seconds: float | None) -> str:
    """Such as ``0.4 ms``, ``21 ms``, ``3.2 s``, ``2m03s``; ``-`` for None."""
    if seconds is None:
        return "-"
    if seconds < 0.00995:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}s"


def percentile(values: Sequence[float], percent: float) -> float | None:
    """By the nearest rank: one of the values, None without any."""
    if not values:
        return None
    rank = max(1, -(-len(values) * percent // 100))
    return sorted(values)[int(rank) - 1]


def thousands(count: int) -> str:
    """Such as ``12k``."""
    return str(count) if count < 1000 else f"{count / 1000:.0f}k"


def counted(count: int, noun: str) -> str:
    """Such as ``1 file`` and ``2 files``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
