"""Ending what a dead exec server left behind."""

import os
import resource
import subprocess
from collections.abc import Iterator

import pytest

from tightloop.sandbox.exec_server import NUM_TAGS, tag_of
from tightloop.sandbox.strays import end_tagged

TAG = (1 << 61) + int.from_bytes(os.urandom(4)) * NUM_TAGS


@pytest.fixture
def tagged() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a tag, in a session of its own, its variables cleared."""
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (TAG + 7, before[1]))
    try:
        process = subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
    finally:
        resource.setrlimit(resource.RLIMIT_RTTIME, before)
    yield process
    process.kill()
    process.wait()


def test_tagged_processes_are_ended_and_others_are_not(
    tagged: subprocess.Popen[bytes],
) -> None:
    """Whatever session or variables they have; a neighbour's tag does not count."""
    assert tag_of(tagged.pid, TAG) == 7
    assert tag_of(os.getpid(), TAG) == 0
    assert end_tagged(TAG + NUM_TAGS) == 0
    assert end_tagged(TAG - NUM_TAGS) == 0
    assert tagged.poll() is None
    assert end_tagged(TAG) == 1
    assert end_tagged(TAG) == 0


def test_a_dead_process_that_nobody_reaped_is_not_waited_for() -> None:
    """It keeps its tag until its parent asks for its exit code."""
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_RTTIME, (TAG + 9, before[1]))
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert end_tagged(TAG) == 0
    finally:
        os.waitpid(pid, 0)
