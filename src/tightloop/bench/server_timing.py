"""The ``Server-Timing`` header (W3C): what an endpoint, or a proxy before it, says of its own time.

Any number of metrics, each a name with parameters, e.g. ``db;dur=53.2, cache;desc="hit, warm"``. Of a
stream it holds what was known when the answer began: a proxy's own time, a queue, mostly not the
model's. Over a WebSocket there is none for a turn.
"""

import math
import re
from typing import Final

NAME: Final = "Server-Timing"
_TOKEN: Final = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*")
_VALUE: Final = re.compile(r'[ \t]*("(?:[^"\\]|\\.)*"|[!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*')


def durations_ms(field: str) -> dict[str, float]:
    """The metrics that have a duration, by name, in milliseconds; of two of one name the first.

    What does not follow the grammar ends the reading: what came before counts.
    """
    found: dict[str, float] = {}
    position = 0
    while metric := _TOKEN.match(field, position):
        name, position = metric[1], metric.end()
        duration = None
        while field.startswith(";", position):
            parameter = _TOKEN.match(field, position + 1)
            if parameter is None:
                return found
            position, value = parameter.end(), ""
            if field.startswith("=", position):
                given = _VALUE.match(field, position + 1)
                if given is None:
                    return found
                position, value = given.end(), given[1]
            if duration is None and parameter[1].lower() == "dur":
                duration = _duration(value)
        if position < len(field) and field[position] != ",":
            return found
        if duration is not None:
            found.setdefault(name, duration)
        position += 1
    return found


def _duration(text: str) -> float | None:
    """A number of milliseconds; None for anything else, and for one that is no duration."""
    try:
        number = float(text.strip('"'))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
