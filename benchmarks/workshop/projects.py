"""The small project whose tests are run, and edits of a function's body in it."""

import os
import subprocess
from pathlib import Path

NUM_MODULES = 20
PYTEST = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_subject.py")
EDITED = "subject/m0.py"
IDENTITY = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")


def make_project(place: Path) -> None:
    """A small package with tests that import all of it, committed."""
    package = place / "subject"
    package.mkdir(parents=True)
    for number in range(NUM_MODULES):
        lines = [f"def f{i}(x):\n    return x + {i}\n" for i in range(40)]
        (package / f"m{number}.py").write_text("\n".join(lines), "utf-8")
    names = ", ".join(f"m{number}" for number in range(NUM_MODULES))
    (package / "__init__.py").write_text(f"from subject import {names}\n", "utf-8")
    (place / "test_subject.py").write_text(
        "import subject, pytest\n\n@pytest.mark.parametrize('i', range(20))\n"
        "def test_sum(i):\n    assert subject.m0.f1(i) == i + 1\n",
        "utf-8",
    )
    (place / "pytest.ini").write_text("[pytest]\n", "utf-8")
    commit(place)


def commit(place: Path) -> None:
    """``place`` becomes a git repository with all its files in one commit."""
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "state")):
        git(place, *IDENTITY, *arguments)


def git(place: Path, *arguments: str) -> None:
    """Run git there, deaf to the user's configuration. Raises CalledProcessError."""
    hidden = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    hidden |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *arguments], cwd=place, check=True, env=hidden)


def edit(number: int) -> tuple[str, str]:
    """Old and new line of the edit of that round, counted from 0: another body each time."""
    return _body(number), _body(number + 1)


def _body(number: int) -> str:
    return f"    return {number} + x + 1 - {number}" if number else "    return x + 1"


def edit_patch(number: int) -> str:
    """The same edit as a patch."""
    old, new = edit(number)
    return f"*** Begin Patch\n*** Update File: {EDITED}\n@@ def f1(x):\n-{old}\n+{new}\n*** End Patch\n"


def write_edit(project: Path, number: int) -> None:
    """The same edit, written by hand."""
    old, new = edit(number)
    path = project / EDITED
    head, mark, rest = path.read_text("utf-8").partition("def f1(x):\n")
    path.write_text(head + mark + rest.replace(old, new, 1), "utf-8")
