"""F: files."""

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]


def write_outside(values: Values) -> None:
    """In a directory that is shown inside."""
    open(f"{values['outside']}/F1", "x").close()
