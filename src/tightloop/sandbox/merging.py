"""Two versions of a text made of one, where no line was changed on both sides."""

import subprocess
import tempfile
from pathlib import Path

from tightloop.sandbox.entries import Entry


def merged(base: Entry | None, ours: Entry | None, theirs: Entry | None) -> Entry | None:
    """The text with the changes of both sides; None when a person has to decide.

    That is where lines overlap, a side has no file, or one of the three is a link or not text. The mode
    is that of the side that changed it. Made by ``git merge-file``; raises OSError without git.
    """
    if base is None or ours is None or theirs is None:
        return None
    sides = (ours, base, theirs)
    if any(side.is_link or b"\0" in side.content for side in sides):
        return None
    with tempfile.TemporaryDirectory(prefix="tightloop-merge-") as place:
        names = []
        for number, side in enumerate(sides):
            (Path(place) / str(number)).write_bytes(side.content)
            names.append(str(number))
        words = ["git", "-c", "core.hooksPath=/dev/null", "merge-file", "-p", "-q", *names]
        found = subprocess.run(
            words, cwd=place, capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
    if found.returncode != 0:
        return None
    mode = theirs if ours.is_executable == base.is_executable else ours
    return Entry(found.stdout, is_executable=mode.is_executable)
