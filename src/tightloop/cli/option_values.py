"""What options of the command line take: numbers within their limits, and sizes with units."""

import argparse
import re
from typing import Final

_UNITS: Final = {"": 1, "B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_BINARY: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)")
MAX_BYTES: Final = 1 << 50
"""No machine has a pebibyte; a larger number is a slip."""


def port(text: str) -> int:
    """A port; 0 means any free one."""
    if text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {text!r}")


def positive(text: str) -> int:
    """A whole number above 0."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")


def positive_seconds(text: str) -> float:
    """A duration above 0, in seconds."""
    number = _number(text)
    if number is not None and number > 0:
        return number
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")


def early_end(text: str) -> float | None:
    """How many tokens a response must still be expected to have to be worth ending; None for never."""
    if text == "never":
        return None
    number = _number(text)
    if number is not None and number >= 0:
        return number
    raise argparse.ArgumentTypeError(f"must be a number of tokens or 'never', got {text!r}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def size_bytes(text: str) -> int:
    """A size such as ``0``, ``800MB`` or ``1.5GiB``, in bytes."""
    units = {**_UNITS, **_BINARY}
    match = _SIZE.fullmatch(text)
    is_part = (
        match is not None and not match[2] and "." in match[1]
    )  # of a byte: the unit is missing
    if match is None or is_part or match[2] not in units:
        raise argparse.ArgumentTypeError(
            f"must be a size such as 0, 800MB or 1.5GiB (with {', '.join(list(units)[1:])}), got {text!r}"
        )
    size = round(float(match[1]) * units[match[2]])
    if size > MAX_BYTES:
        raise argparse.ArgumentTypeError(f"must be at most 1024TiB, got {text!r}")
    return size
