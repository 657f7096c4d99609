"""Reading the JSON arguments of a function call, with errors a model can act on."""

from typing import Any

import msgspec


class ArgumentsError(Exception):
    """The arguments are not what the tool takes; the text is meant for the model."""


def read_object(arguments: str, tool: str, example: str) -> dict[str, Any]:
    """The JSON object in ``arguments``. Raises ``ArgumentsError`` naming tool, fault, example."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ArgumentsError(
            f"{tool}: the arguments are not JSON ({error}). Send {example}"
        ) from error
    if not isinstance(value, dict):
        raise ArgumentsError(f"{tool}: the arguments must be a JSON object. Send {example}")
    return value
