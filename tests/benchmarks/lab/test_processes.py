import os
import sys

import pytest

from benchmarks.lab.processes import NotStarted, Program, apart, cpu_ns, family, free_port

ECHO = "import json, sys\nfor line in sys.stdin: print(json.dumps(line.strip()), flush=True)"
PARENT = "import subprocess, sys\nprint(1, flush=True)\nsubprocess.run([sys.executable, '-c', %r])"


def python(code: str, *, has_commands: bool = False) -> Program:
    return Program([sys.executable, "-c", code], has_commands=has_commands)


def test_commands_are_answered_and_the_end_comes_with_the_block() -> None:
    with python(ECHO, has_commands=True) as program:
        assert program.command("one") == "one"
        assert program.command("two") == "two"
        assert program.cpu_ns() > 0
        assert program.rss_bytes() > 1_000_000
        pids = program.pids
    assert family(pids[0]) == []
    assert cpu_ns(pids) == 0
    program.end()


def test_children_are_found() -> None:
    """Their CPU time and memory belong to the program."""
    with Program([sys.executable, "-c", PARENT % ECHO], has_commands=True) as program:
        assert program.read_line() == 1
        assert program.command("there") == "there"  # the child has standard input too
        program.find_family()
        assert len(program.pids) == 2


def test_what_ends_at_once_says_its_last_line_without_paths() -> None:
    code = "import sys; print('Traceback'); sys.exit('no file /tmp/some/where/file.py, see http://a/b')"
    with python(code) as program, pytest.raises(NotStarted) as caught:
        program.wait_for_http(free_port(), "/health")
    assert str(caught.value) == "ended with status 1: no file PATH, see http://a/b"


def test_a_program_that_ends_answers_no_command() -> None:
    code = "import sys; sys.exit('gone')"
    with python(code, has_commands=True) as program, pytest.raises(NotStarted, match="gone"):
        program.read_line()


def test_processes_are_kept_apart_and_set_free_again() -> None:
    """The server on one core, this process and the others on another; one core alone is refused."""
    cores = os.sched_getaffinity(0)
    with python(ECHO, has_commands=True) as server, python(ECHO, has_commands=True) as upstream:
        pids = server.pids[0], upstream.pids[0], 0
        if len(cores) > 1:
            with apart(server.pids, upstream.pids):
                placed = [os.sched_getaffinity(pid) for pid in pids]
                assert [len(each) for each in placed] == [1, 1, 1]
                assert placed[0] != placed[1] == placed[2]
            assert all(os.sched_getaffinity(pid) == cores for pid in pids)
        os.sched_setaffinity(0, sorted(cores)[:1])
        try:
            with pytest.raises(ValueError, match="two cores"), apart(server.pids, []):
                raise AssertionError("there is no second core")
        finally:
            os.sched_setaffinity(0, cores)
