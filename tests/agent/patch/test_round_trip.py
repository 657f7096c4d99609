"""Any edit of any file, written as a patch, gives the edited file or is refused unapplied."""

import difflib
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.patch.apply import apply_patch

LINES = st.lists(
    st.sampled_from(["a", "b", "  c", "\td", "", "e  ", "*** f", "@@ g", "+h"]), max_size=9
)


def _as_patch(old: list[str], new: list[str], num_context: int) -> str:
    """A chunk per run of changes, with context; a model that makes no mistakes writes this."""
    out = ["*** Begin Patch", "*** Update File: f"]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(num_context):
        out.append("@@")
        for tag, a, b, c, d in group:
            if tag == "equal":
                out += [" " + line for line in old[a:b]]
            else:
                out += ["-" + line for line in old[a:b]] + ["+" + line for line in new[c:d]]
    return "\n".join([*out, "*** End Patch"])


@given(LINES, LINES, st.integers(0, 3), st.sampled_from(["\n", "\r\n"]))
def test_round_trip(old: list[str], new: list[str], num_context: int, ending: str) -> None:
    """Without context an addition has no place of its own and goes to the end: left out here."""
    before = "".join(line + ending for line in old).encode()
    after = "".join(line + (ending if old else "\n") for line in new).encode()
    has_old = all(
        any(b > a for _, a, b, _, _ in group)
        for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(
            num_context
        )
    )
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "f"
        file.write_bytes(before)
        outcome = apply_patch(_as_patch(old, new, num_context), Path(directory))
        if outcome.is_ok and has_old:
            assert file.read_bytes() == after
        elif outcome.failure is not None:
            assert file.read_bytes() == before
            assert outcome.failure.error == "ambiguous" or old == new
