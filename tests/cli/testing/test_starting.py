"""Starting a background process: once, whatever lies there, with the reason when it cannot be."""

import os
from pathlib import Path

import pytest

import tightloop
from tests.cli.testing.projects import Project
from tightloop.cli.testing.asked import ask
from tightloop.cli.testing.starting import own_environment


def test_a_start_that_fails_says_why(project: Project) -> None:
    """On the command line, in a line, with our own exit code; the next one tries again."""
    config = project.root.parent / "config.toml"
    config.write_text("[sandbox]\npolicy = 3\n")
    ran = project.test("--config", str(config))
    assert (ran.code, ran.output) == (125, "")
    assert str(config) in ran.said
    assert "policy" in ran.said
    config.write_text("")
    assert project.test("-q", "--config", str(config)).code == 0
    assert project.test("--stop", "--config", str(config)).code == 0


def test_what_is_no_interpreter_is_no_verdict(project: Project) -> None:
    """Its own exit code would be taken for pytest's; no process is kept for it."""
    ran = project.test("--python", "/bin/ls", "-q")
    assert (ran.code, ran.output) == (125, "")
    assert ran.last.startswith("/bin/ls is no Python 3 ")
    assert project.status()["processes"] == []


def test_what_a_dead_process_left_is_no_obstacle(project: Project) -> None:
    """A socket that nobody listens on, or a file of that name."""
    asked = ask("test", ["-q"], project.environment, str(project.root))
    place = project.state / "test"
    place.mkdir(mode=0o700, parents=True)
    (place / f"{asked.name}.sock").write_text("not a socket")
    assert project.test("-q").code == 0
    assert project.process()["runs"] == 1


def test_modules_of_the_project_are_not_ours(project: Project) -> None:
    """A project may have a file of any name: ours must not run it outside of the sandbox."""
    for name in ("asyncio", "json", "socket", "msgspec"):
        marker = project.root.parent / f"ran-{name}"
        project.write(f"{name}.py", f"open({str(marker)!r}, 'w')\n")
    ran = project.test("-q")
    assert ran.code != 125, ran
    assert [path.name for path in project.root.parent.glob("ran-*")] == []


def test_places_of_the_project_are_not_on_our_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they got into ``PYTHONPATH``; other places stay, and so does that of this program."""
    own = str(Path(tightloop.__file__).parents[1])
    path = [".", "", "/p/src", "/p", "/pq", "/elsewhere", own]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    assert own_environment("/p")["PYTHONPATH"] == os.pathsep.join(["/pq", "/elsewhere", own])
    assert own_environment("/")["PYTHONPATH"] == own
    monkeypatch.setenv("PYTHONPATH", "src")
    assert "PYTHONPATH" not in own_environment("/p")


def test_everything_is_the_users_alone(project: Project) -> None:
    """Directory and files: nobody else can read what tests say, or connect."""
    assert project.test("-q").code == 0
    place = project.state / "test"
    assert place.stat().st_mode & 0o777 == 0o700
    modes = {path.suffix: path.stat().st_mode & 0o077 for path in Path(place).iterdir()}
    assert (modes[".lock"], modes[".log"]) == (0, 0)
