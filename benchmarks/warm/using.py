"""Which modules of a project some tests import, and which functions of them they call."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = """
import json, os, sys
import pytest
root, into, *args = sys.argv[1:]
seen = set()
def hook(frame, event, arg):
    if event == "call":
        seen.add(frame.f_code)
sys.path.insert(0, root)
sys.setprofile(hook)
code = pytest.main(["-q", "-p", "no:cacheprovider", *args])
sys.setprofile(None)
found = {}
for module in list(sys.modules.values()):
    file = os.path.realpath(getattr(module, "__file__", None) or "")
    if file.startswith(root + os.sep) and os.sep + ".venv" + os.sep not in file:
        found[os.path.relpath(file, root)] = []
for code_object in seen:
    file = os.path.relpath(os.path.realpath(code_object.co_filename), root)
    if file in found:
        found[file].append(code_object.co_qualname)
with open(into, "w") as output:
    json.dump({path: sorted(names) for path, names in sorted(found.items())}, output)
sys.exit(code)
"""


def used_by(root: Path, tests: Sequence[str], code: str, into: Path) -> dict[str, frozenset[str]]:
    """Qualified names of called functions by module below ``code``; tests are left out.

    Raises RuntimeError when the tests do not pass as the project is.
    """
    python = root / ".venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", _PROGRAM, root.resolve(), into, *tests],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"the tests of {root} do not pass: {done.stdout[-2000:]}{done.stderr}")
    said = json.loads(into.read_text("utf-8"))
    return {
        path: frozenset(names)
        for path, names in said.items()
        if path.startswith(f"{code}/")
        and "/tests/" not in path
        and not path.endswith("conftest.py")
    }
