"""One process at a time: who comes second is told who holds the conversation."""

import os
from pathlib import Path

import pytest

from tightloop.harness.holding import ThreadHeld, held


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    with held(tmp_path, "abc", "exec"):
        told = rf"process {os.getpid()} \(tightloop exec, since "
        with pytest.raises(ThreadHeld, match=told), held(tmp_path, "abc", "exec"):
            raise AssertionError("held twice")
        with held(tmp_path, "abcd", "exec"):
            pass
    with held(tmp_path, "abc", "exec"):
        pass
    assert list((tmp_path / "threads").iterdir()) == []


@pytest.mark.parametrize("said", [b"", b"{", b"[1]", b'{"pid": 1}'])
def test_a_lock_that_says_nothing_is_one_all_the_same(tmp_path: Path, said: bytes) -> None:
    """Its holder has only just begun to write it."""
    with held(tmp_path, "abc", "exec"):
        (tmp_path / "threads/abc.lock").write_bytes(said)
        with pytest.raises(ThreadHeld, match="open in another process"), held(tmp_path, "abc", "x"):
            raise AssertionError("held twice")
