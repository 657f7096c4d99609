"""Codex's own patch fixtures against ours: which outcomes differ. For a developer with a clone:

    git clone --depth 1 https://github.com/openai/codex
    python -m tests.agent.patch.against_codex codex/codex-rs/apply-patch/tests/fixtures/scenarios

Nothing of them is kept here. A fixture is a directory with ``patch.txt``, the tree before
(``input``) and after (``expected``); git keeps no empty ones. Each is run whole and character by
character. The exit status is 1 when a difference is none of those on purpose.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.agent.patch.scenarios import Tree, harvest
from tightloop.agent.patch.apply import PatchStream

ON_PURPOSE = {"015": "a later failure takes the earlier file back"}


def outcome_of(fixture: Path, size: int) -> tuple[Tree, str]:
    """The tree that the fixture's patch leaves, fed in pieces of ``size``, and what was said."""
    text = (fixture / "patch.txt").read_text()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "ws"
        if (fixture / "input").is_dir():
            shutil.copytree(fixture / "input", root)
        else:
            root.mkdir()
        stream = PatchStream(root)
        for at in range(0, len(text), size):
            stream.feed(text[at : at + size])
        said = stream.commit().as_text().splitlines()[0]
        return harvest(root), said


def compare(fixtures: Path) -> int:
    """Print one line a fixture; how many differ without a reason."""
    num_wrong = 0
    for fixture in sorted(path.parent for path in fixtures.glob("*/patch.txt")):
        expected = harvest(fixture / "expected") if (fixture / "expected").is_dir() else {}
        whole, cut = outcome_of(fixture, 1 << 20), outcome_of(fixture, 1)
        reason = ON_PURPOSE.get(fixture.name[:3])
        if whole != cut:
            verdict = "CUT DIFFERS FROM WHOLE"
        elif whole[0] == expected:
            verdict = "same"
        else:
            verdict = f"on purpose: {reason}" if reason else "DIFFERS"
        num_wrong += verdict.isupper()
        print(f"{fixture.name:48} {verdict:12} {whole[1]}")
    return num_wrong


if __name__ == "__main__":
    sys.exit(1 if compare(Path(sys.argv[1])) else 0)
