"""Runs of one project in one sandbox: levels, checks, and what is said of them."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.cli.testing.projects import Project
from tightloop.cli.testing.asked import Asked, ask
from tightloop.cli.testing.channel import Channel
from tightloop.cli.testing.session import End, Session, Settings, open_session
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.policies import PolicyError
from tightloop.trace.clock import now_ns

# It passes where a warm process has set its objects aside, and fails where none has.
WARM_ONLY = "import gc\n\n\ndef test_one():\n    assert gc.get_freeze_count()\n"


class Talks:
    """Sends requests to a session as the near end would, and keeps what comes back."""

    def __init__(self, project: Project, session: Session) -> None:
        self.project = project
        self.session = session
        self.output = b""
        self.said = ""

    def asked(self, verb: str, *words: str, directory: Path | None = None) -> Asked:
        """A request, never from a terminal."""
        place = str(directory or self.project.root)
        asked = ask(verb, list(words), self.project.environment, place)
        asked.rows = asked.columns = ""
        return asked

    async def send(self, asked: Asked, num_interrupts: int = 0) -> End:
        """One request to its end, interrupted so often before its run began."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = Channel(theirs)
        channel.num_interrupts = num_interrupts
        self.output, self.said = b"", ""
        hearing = asyncio.create_task(self._hear(ours))
        try:
            run = self.session.warm if asked.verb == "warm" else self.session.test
            end = await run(asked, channel)
            await channel.end(end.code, end.line)
            await hearing
        finally:
            channel.close()
            ours.close()
        return end

    async def _hear(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        while (message := await loop.sock_recv(ours, 1 << 17))[:1] != b"x":
            if message[:1] == b"o":
                self.output += message[1:]
            else:
                self.said += message[1:].decode()

    async def test(self, *words: str, **settings: Any) -> End:
        """``tightloop test``."""
        return await self.send(self.asked("test", *words, **settings))

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.output.splitlines()]


@pytest_asyncio.fixture
async def talks(tmp_path: Path) -> AsyncIterator[Talks]:
    """With a session whose checks begin at once."""
    project = await asyncio.to_thread(Project, tmp_path)
    asked = ask("test", [], project.environment, str(project.root))
    (project.state / "test").mkdir(parents=True)
    settings = Settings.of(asked, project.state, quiet_s=0.0)
    async with asyncio.TaskGroup() as tasks, open_session(settings, tasks) as session:
        yield Talks(project, session)


async def checked(session: Session) -> str:
    """The check under way is over: what it came to."""
    task = session.checks.task
    if task is not None:
        await asyncio.wait([task])
    return session.checks.last


async def test_an_edit_is_seen_by_a_warm_run(talks: Talks) -> None:
    """The first run imports, the next does not, an edited function is swapped in; codes are pytest's."""
    first = await talks.test("-q")
    assert first.line.startswith("warm (l0) in ")
    assert first.line.endswith("; provisional, a cold run will check it")
    assert (first.code, b"1 passed" in talks.output) == (0, True)
    assert (await checked(talks.session)).startswith("the last check agreed at ")
    talks.project.write("core.py", "def value():\n    return 2\n")
    await talks.session.sandbox.settled()
    second = await talks.test("-q")
    assert second.line.startswith("warm (swap")
    assert (second.code, b"assert 2 == 1" in talks.output) == (1, True)
    assert (await checked(talks.session)).startswith("the last check agreed at ")


async def test_cold_is_cold_and_says_why(talks: Talks) -> None:
    """Because it was asked for, of an argument, or of another directory."""
    end = await talks.test("--cold", "-q")
    assert (end.code, end.line.endswith(": asked for")) == (0, True)
    end = await talks.test("-q", "--nonsense")
    assert (end.code, end.line.endswith(": argument --nonsense")) == (4, True)
    below = talks.project.root / "below"
    below.mkdir()
    end = await talks.test("-q", "..", directory=below)
    assert (end.code, end.line.endswith(f": warm runs start in {talks.project.root}")) == (0, True)


@pytest.mark.parametrize("words", [[], ["--cold"], ["--json"]])
async def test_a_run_that_was_interrupted_twice_ends_as_pytest_does(
    talks: Talks, words: list[str]
) -> None:
    """With 2 although it was killed; a run that a signal ends by itself keeps that signal's code."""
    end = await talks.send(talks.asked("test", *words), num_interrupts=2)
    assert (end.code, end.line) == (2, "interrupted")
    talks.project.write(
        "test_core.py", "import os\n\n\ndef test_one():\n    os.kill(os.getpid(), 9)\n"
    )
    assert (await talks.test("--cold")).code == 137


async def test_a_wrong_command_line_is_no_verdict(talks: Talks) -> None:
    """Nothing ran whose result could be provisional."""
    await talks.session.sandbox.warm_tests_ready()
    end = await talks.test("-q", "nosuch.py")
    assert end.code == 4
    assert end.line.startswith("warm (l0) in ")
    assert end.line.endswith("; no test ran: pytest could not use this command line (exit code 4)")


async def test_the_time_is_counted_from_the_command_line_on(talks: Talks) -> None:
    """What the user waited for before the run is part of it."""
    asked = talks.asked("test", "-q", "--cold")
    asked.began_ns = str(now_ns() - 3600 * 10**9)
    assert (await talks.send(asked)).line.startswith("cold in 360")


async def test_why_there_is_no_warm_process(talks: Talks) -> None:
    """What the interpreter itself says of pytest, also when the warm process is no matter of it."""
    session, project = talks.session, talks.project
    assert await session.sandbox.warm_tests_ready()
    session.sandbox.allows_warm = False
    packages = next((project.root / ".venv" / "lib").glob("*/site-packages"))
    (packages / "pytest").unlink()
    project.write("pytest.py", "import nowhere\n")
    program = project.root / ".venv" / "bin" / "python"
    assert await session.why_no_process() == (
        f"pytest cannot be imported by {program}: ModuleNotFoundError: No module named 'nowhere'"
    )
    (project.root / "pytest.py").unlink()
    assert await session.why_no_process() == f"pytest is not installed for {program}"


async def test_root_is_told_of_a_project_of_another_user(talks: Talks) -> None:
    """Before each run, in one line: in the sandbox root may not write there. Others see nothing new."""
    assert (await talks.test("-q")).code == 0
    assert talks.said == ""
    if os.geteuid() == 0:
        os.chown(talks.project.root, 1001, 1001)
    end = await talks.test("-q", "--cold")
    assert end.code == 0
    assert talks.said.count("\n") == talks.said.count("it belongs to user 1001")
    assert ("it belongs to user 1001" in talks.said) == (os.geteuid() == 0)


async def test_a_run_without_tests_ends_as_pytest_does(talks: Talks) -> None:
    """With 5, and nothing of ours in its output."""
    end = await talks.test("-q", "-k", "nosuch")
    assert end.code == 5
    assert b"tightloop" not in talks.output


async def test_an_audit_that_agrees(talks: Talks) -> None:
    """Waited for, and told in the line; the news is none."""
    end = await talks.test("--audit", "-q")
    assert "; checked: a cold run of " in end.line
    assert (end.code, talks.said) == (0, "")


async def test_a_wrong_verdict_is_loud_and_the_last(talks: Talks) -> None:
    """The cold run counts, both logs are there, runs are cold from then on, until warm is allowed."""
    talks.project.write("test_core.py", WARM_ONLY)
    end = await talks.test("--audit", "-q")
    assert (end.code, "WRONG" in end.line) == (1, True)
    assert "A WARM RUN WAS WRONG" in talks.said
    assert "test_core.py::test_one: passed warm, failed cold" in talks.said
    assert b"1 failed" in talks.output  # after what the warm run had printed
    logs = [line.partition("log: ")[2] for line in talks.said.splitlines() if "log: " in line]
    assert sorted(logs) == sorted(map(str, talks.session.logs.iterdir()))
    end = await talks.test("-q")
    assert end.code == 1
    assert end.line.startswith("cold in ")
    assert "a warm run was wrong here" in end.line
    talks.session.shut_off.turn_on(talks.project.root)
    assert (await talks.test("-q")).line.startswith("warm (")


async def test_a_wrong_verdict_found_behind_is_told_next_time(talks: Talks) -> None:
    """Before anything else; the run itself is cold already."""
    talks.project.write("test_core.py", WARM_ONLY)
    assert (await talks.test("-q")).code == 0
    assert (await checked(talks.session)).startswith("the last check wrong at ")
    end = await talks.test("-q")
    assert "A WARM RUN WAS WRONG" in talks.said
    assert (end.code, end.line.startswith("cold in ")) == (1, True)
    await talks.test("-q")
    assert talks.said == ""


async def test_objects_for_programs(talks: Talks) -> None:
    """A line per test, then one for the run; pytest's own words go to standard error."""
    two = "def test_a():\n    pass\n\n\ndef test_b():\n    assert 0\n"
    talks.project.write("test_core.py", two)
    for words, how in (((), "warm-l0"), (("--cold",), "cold"), (("--audit",), "warm-l")):
        await talks.session.sandbox.settled()
        end = await talks.test("--json", *words, "-q")
        *tests, run = talks.objects
        assert tests == [
            {"test": "test_core.py::test_a", "outcome": "passed"},
            {"test": "test_core.py::test_b", "outcome": "failed"},
        ], (end, run, talks.said)
        assert (end.code, run["exit_code"], run["how"].startswith(how)) == (1, 1, True)
        assert run["outcomes"] == {"passed": 1, "failed": 1}
        assert "1 failed, 1 passed" in talks.said
        assert ("check" in run) == (words == ("--audit",))
        await checked(talks.session)


async def test_the_sandbox_is_one(talks: Talks) -> None:
    """No network, the project can be written, what is beside it cannot."""
    talks.project.write(
        "test_core.py",
        "import pathlib, socket, pytest\n\n"
        "def test_one():\n"
        "    pathlib.Path('written').write_text('x')\n"
        f"    assert not list(pathlib.Path({str(talks.project.state)!r}, 'test').iterdir())\n"
        "    with pytest.raises(OSError):\n"
        "        socket.create_connection(('192.0.2.1', 80), timeout=5)\n"
        f"    pathlib.Path({str(talks.project.root.parent)!r}, 'beside').write_text('x')\n",
    )
    end = await talks.test("-q")
    assert end.code == 0, talks.output.decode()
    assert (talks.project.root / "written").exists()
    assert not (talks.project.root.parent / "beside").exists()


async def test_an_environment_that_changed_is_not_served(talks: Talks) -> None:
    """Another interpreter, another project in its place, or another configuration."""
    session, root = talks.session, talks.project.root
    assert session.why_stale() == ""
    config = root / ".venv" / "pyvenv.cfg"
    config.write_text(config.read_text() + "\n")
    assert session.why_stale() == "the project's interpreter has changed"
    await session.sandbox.close()
    assert session.why_stale() == "its sandbox has died"


async def test_what_is_no_interpreter_is_named(talks: Talks, tmp_path: Path) -> None:
    """Nothing of it stays behind."""
    project = talks.project
    asked = ask("test", ["--python", "/bin/ls"], project.environment, str(project.root))
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(SandboxError, match=r"^/bin/ls is no Python 3 "):
            async with open_session(Settings.of(asked, tmp_path / "other"), tasks):
                raise AssertionError("it was opened")


async def test_an_unknown_policy_is_named(tmp_path: Path) -> None:
    """Before a sandbox is opened."""
    asked = ask("test", ["--policy", "nosuch"], {"PATH": "/usr/bin"}, str(tmp_path))
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(PolicyError, match="nosuch"):
            async with open_session(Settings.of(asked, tmp_path), tasks):
                raise AssertionError("it was opened")
