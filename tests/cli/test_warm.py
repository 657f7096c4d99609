"""``tightloop warm NAME`` in a project with a file of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.testing.projects import Project

TABLE = '[warm.look]\ncold = "cat answer; exit 1"\nwarm = "cat answer; exit 1"\n'


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with one warm command that needs no daemon."""
    one = Project(tmp_path)
    one.write("answer", "one\n")
    one.write(".tightloop.toml", TABLE)
    yield one
    one.test("--stop")


def test_an_answer_comes_with_the_commands_exit_code(project: Project) -> None:
    """Warm, cold, or for a program; checked when that is asked for."""
    ran = project.run("warm", "look")
    assert (ran.code, ran.output) == (1, "one\n")
    assert ran.last.startswith("warm in ")
    assert "provisional" in ran.last
    ran = project.run("warm", "look", "--cold")
    assert (ran.code, ran.output, ran.last[-9:]) == (1, "one\n", "asked for")
    ran = project.run("warm", "look", "--audit", "--json")
    [said] = ran.objects
    assert (ran.code, said["how"], said["check"]["finding"]) == (1, "warm-command-look", "agreed")


def test_a_name_that_is_none_is_answered_with_those_there_are(project: Project) -> None:
    """With our own exit code; a table that cannot be understood is named."""
    ran = project.run("warm", "nosuch")
    assert (ran.code, ran.last) == (
        125,
        "warm: there is no 'nosuch' in .tightloop.toml; there are look",
    )
    assert project.run("warm").last == "warm: give the name of one command: look"
    project.write(".tightloop.toml", "[warm.look]\n")
    ran = project.run("warm", "look")
    assert (ran.code, "known keys" in ran.said) == (125, True)
