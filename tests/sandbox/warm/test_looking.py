"""What importing asked of files without reading them decides about verdicts, too."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.warm.started import Started
from tightloop.sandbox.warm.looking import kind_of
from tightloop.sandbox.warm.recording import project_objects

CORE = """\
import os
import shutil

HOME = os.environ["HOME"]
FLAG = os.path.exists(f"{HOME}/flag")
TOOL = shutil.which("tool", path=f"{HOME}/bin")


def told():
    return (FLAG, bool(TOOL))
"""
TEST = "import core\n\n\ndef test_told():\n    assert core.told() == (False, False)\n"


def write(place: Path, name: str, text: str) -> None:
    """A file, and the directories that it is in."""
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A module that looks at files beside the project, and a directory behind a link."""
    place = tmp_path / "project"
    for name, text in {"pytest.ini": "[pytest]\n", "core.py": CORE, "test_core.py": TEST}.items():
        write(place, name, text)
    write(tmp_path, "elsewhere/test_linked.py", "def test_linked():\n    pass\n")
    (place / "linked").symlink_to(tmp_path / "elsewhere")
    return place


@pytest.fixture
def started(project: Path) -> Iterator[Started]:
    """See there."""
    one = Started(project)
    yield one
    one.end()


def see_a_difference(started: Started) -> None:
    """The next run says what a fresh process says, and is not from before."""
    ran = started.run()
    assert (ran.said, ran.code) == (started.cold().said, 1)
    assert ran.level in ("l0", "l1"), ran.colder


def test_a_file_that_was_only_looked_for(started: Started) -> None:
    """It comes to be there, or may be executed now: a module may be another one."""
    home = started.workspace.parent
    write(home, "bin/tool", "#!/bin/sh\n")
    assert started.resident().said == started.cold().said
    (home / "bin/tool").chmod(0o755)
    see_a_difference(started)
    (home / "bin/tool").chmod(0o644)
    assert started.resident().code == 0
    (home / "flag").touch()
    see_a_difference(started)


def test_a_directory_behind_a_link(started: Started) -> None:
    """A new file there is collected by a cold run."""
    assert started.resident().said == started.cold().said
    write(started.workspace.parent, "elsewhere/test_new.py", "def test_new():\n    assert 0\n")
    see_a_difference(started)


@pytest.mark.parametrize(
    "line",
    [
        "import sys; seen = sys.getprofile(); sys.setprofile(None); X = told(); sys.setprofile(seen)",
        "import time; X = time.strftime('%S')",
        "X = os.stat('/').st_mode",
        "import uuid; X = uuid.uuid4()",
        "import random; X = random.randint(1, 9)",
        "os.register_at_fork(after_in_child=told)",
    ],
)
def test_what_cannot_be_followed_keeps_the_process_from_being(project: Path, line: str) -> None:
    """A profiler that is put aside hides who ran; clocks, and questions about unseen files."""
    write(project, "core.py", f"{CORE}\n\n{line}\n")
    started = Started(project)
    try:
        ran = started.run()
        started.settle()
        ran = started.run()
        assert (ran.level, ran.said) == ("l0", started.cold().said), ran.colder
        assert "until the first test there is" in ran.colder or "importing does" in ran.colder
    finally:
        started.end()


def test_kinds(tmp_path: Path) -> None:
    """A file, another permission, nothing, a path that cannot be."""
    file = tmp_path / "file"
    assert kind_of(str(file)) == kind_of("\0") == 0
    file.touch(0o644)
    before = kind_of(str(file))
    file.write_text("text")
    assert kind_of(str(file)) == before
    file.chmod(0o755)
    assert kind_of(str(file)) != before


def test_lines_that_somebody_remembers() -> None:
    """A kept exception has a line of its file, a log record as well: shifting it would show."""
    names: dict[str, object] = {"logging": logging}
    text = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    kept = error\n"
    exec(compile(text, "/nowhere/raising.py", "exec"), names)
    kept = logging.LogRecord("n", 10, "/nowhere/logging.py", 3, "text", None, None)
    _, found = project_objects(lambda path: path.startswith("/nowhere"))
    assert {"/nowhere/raising.py", kept.pathname} <= found


def test_a_link_that_leads_elsewhere(project: Path) -> None:
    """A module, and a package, are other ones now although no file has changed."""
    write(project, "old.py", "def value():\n    return 1\n")
    write(project, "new.py", "def value():\n    return 2\n")
    write(project, "first/inner.py", "def value():\n    return 1\n")
    write(project, "second/inner.py", "def value():\n    return 2\n")
    (project / "module.py").symlink_to("old.py")
    (project / "package").symlink_to("first")
    text = "import module\nfrom package import inner\n\n\ndef test_values():\n"
    write(project, "test_core.py", f"{text}    assert module.value() + inner.value() == 2\n")
    started = Started(project)
    try:
        for name, target in (("module.py", "new.py"), ("package", "second")):
            assert started.resident().said == started.cold().said
            before = (project / name).readlink()
            (project / name).unlink()
            (project / name).symlink_to(target)
            see_a_difference(started)
            (project / name).unlink()
            (project / name).symlink_to(before)
    finally:
        started.end()
