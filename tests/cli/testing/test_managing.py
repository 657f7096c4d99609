"""``--status``, ``--stop`` and ``--warm-again``."""

import os
import socket

from tests.cli.testing.projects import Project, ended
from tightloop.cli.testing.asked import ask
from tightloop.sandbox.verdicts import Difference, ShutOff


def test_a_project_without_a_process(project: Project) -> None:
    """None is started by asking; ending none is no error."""
    shown = project.test("--status")
    assert (shown.code, shown.output) == (
        0,
        f"no background process for {project.root}: the first run starts one\n",
    )
    stopped = project.test("--stop")
    assert (stopped.code, stopped.last) == (0, f"0 background processes of {project.root} ended")
    assert not project.state.exists()


def test_all_of_a_project_are_shown_and_ended(project: Project) -> None:
    """Other variables, another process; the end is the end."""
    assert project.test("-q", "--idle", "7").code == 0
    other = project.environment | {"TZ": "Europe/Paris"}
    assert project.test("-q", env=other).code == 0
    shown = project.test("--status").output.splitlines()
    assert len(shown) == 2
    assert sum("ends after 7 idle min" in line for line in shown) == 1
    assert project.test("--stop").last == f"2 background processes of {project.root} ended"
    assert project.status()["processes"] == []


def test_a_process_of_another_version_is_not_shown(project: Project) -> None:
    """It cannot read the question, refuses it and ends."""
    asked = ask("test", [], project.environment, str(project.root))
    state = project.state / "test"
    state.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as far:
        place = os.open(state, os.O_PATH | os.O_DIRECTORY)
        far.bind(f"/proc/self/fd/{place}/{asked.name}.sock")
        os.close(place)
        far.listen()
        process = project.begin("test", "--status")
        connection, _ = far.accept()
        with connection:
            connection.recv(1 << 17)
            connection.send(b"rstarting anew: another version of tightloop asks")
        shown = ended(process)
    assert (shown.code, shown.said) == (0, "")
    assert shown.output.startswith(f"no background process for {project.root}: ")


def test_warm_runs_are_allowed_again(project: Project) -> None:
    """It is shown that they are off, and why; allowing them twice is said to be nothing."""
    found = (Difference("t.py::a", "passed", "failed"),)
    ShutOff(project.state).turn_off(project.root, found, "w", "c")
    assert "t.py::a: passed warm, failed cold" in project.test("--status").output
    assert project.status()["warm_is_off"] == "t.py::a: passed warm, failed cold"
    assert project.test("--warm-again").last == f"warm runs are allowed in {project.root}"
    assert project.test("--warm-again").last == f"warm runs were not off in {project.root}"
    project.write(".tightloop.toml", '[warm.x]\ncold = "a"\nwarm = "b"\n')
    said = project.run("warm", "--warm-again").last
    assert said == f"warm answers of x were not off in {project.root}"


def test_what_cannot_be_managed_is_said_in_a_line(project: Project) -> None:
    """A table that is none, a directory that others can open: no traceback, and no verdict."""
    project.write(".tightloop.toml", "[warm.x\n")
    said = project.run("warm", "--warm-again")
    assert (said.code, len(said.said.splitlines())) == (125, 1)
    (project.root / ".tightloop.toml").unlink()
    project.write("test_core.py", "def test_one():\n    pass\n")
    assert project.test("-q").code == 0
    (project.state / "test").chmod(0o750)
    for word in ("--status", "--stop"):
        said = project.test(word)
        assert (said.code, "must belong to you alone" in said.last) == (125, True)
    (project.state / "test").chmod(0o700)
