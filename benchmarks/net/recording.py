"""A recorded session to replay: one bug, edited and tested again for a number of rounds.

The bug is one of the demo's held-out ones. Each round is one response with two calls: a patch and
the tests. Even rounds repair the bug, odd ones bring it back (the first one writes a comment), so
every round changes the file, half of the test runs fail, and the last one passes.
"""

import difflib
import itertools
from typing import Any

from tightloop.bench.bugs import MODULE, Bug

TESTS = {"cmd": "python -m pytest -q"}


def recording(bug: Bug, num_rounds: int) -> dict[str, Any]:
    """A script file for the scripted engine. Raises ValueError for an odd number of rounds."""
    if num_rounds < 2 or num_rounds % 2:
        raise ValueError(
            f"the last round repairs the bug if their number is even, not {num_rounds}"
        )
    states = _states(bug, num_rounds)
    answers: list[list[dict[str, Any]]] = []
    for number, (before, after) in enumerate(itertools.pairwise(states), start=1):
        answers.append(
            [
                {"text": f"Round {number}: I change {bug.qualname} and run the tests."},
                {"call": {"name": "apply_patch", "arguments": patch(before, after)}},
                {"call": {"name": "exec_command", "arguments": TESTS}},
            ]
        )
        answers.append([{"text": "(between the two outputs of a round nothing is asked)"}])
    answers.append([{"text": f"The bug in {bug.qualname} is repaired; the tests pass."}])
    return {"answers": answers}


def _states(bug: Bug, num_rounds: int) -> list[str]:
    """The module's text before the first round and after each."""
    commented = f"# {bug.qualname} is under repair\n"
    states = [bug.buggy_module, commented + bug.buggy_module]
    while len(states) <= num_rounds:
        states.append(commented + (bug.buggy_module if len(states) % 2 else bug.module))
    return states


def patch(before: str, after: str) -> str:
    """The change as a patch in the envelope of ``apply_patch``, with three lines of context."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=3, lineterm="")
    body = ["@@" if line.startswith("@@") else line for line in list(lines)[2:]]
    return "\n".join(["*** Begin Patch", f"*** Update File: {MODULE}", *body, "*** End Patch"])
