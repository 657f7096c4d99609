"""The JSON schema of the events of ``tightloop exec --json``, made from their structs.

``python -m scripts.exec_events`` writes it; a test compares it with what is in the package.
"""

from pathlib import Path
from typing import Any, get_args

import msgspec

from tightloop.agent import events as said

PATH = Path(__file__).parents[1] / "src/tightloop/agent/exec_events.schema.json"

_TIME = {"type": "number", "description": "Seconds since the run began."}


def schema() -> dict[str, Any]:
    """Of one line. Readers must ignore keys that they do not know: there will be more."""
    made = msgspec.json.schema(said.Event)
    definitions = made["$defs"]
    for event in get_args(said.Event):
        definitions[event.__name__]["properties"]["t"] = _TIME
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of tightloop exec --json",
        "description": "One line of standard output. The names and fields are those of codex exec"
        " --json; further keys may be added.",
        **made,
    }


def text() -> str:
    """As it stands in the file."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=1).decode() + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
