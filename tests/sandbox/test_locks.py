"""One holder at a time, over processes, also while the lock file comes and goes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from tightloop.sandbox.locks import acquire, is_free, locked


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """A second one is told so, and gets it once the first is gone."""
    path = tmp_path / "lock"
    first = acquire(path)
    assert first is not None
    assert acquire(path, wait=False) is None
    assert not is_free(path)
    os.close(first)
    assert is_free(path)
    second = acquire(path, wait=False)
    assert second is not None
    os.close(second)


def test_asking_makes_no_file(tmp_path: Path) -> None:
    assert is_free(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    """The kernel lets go, whatever happened to the process."""
    path = tmp_path / "lock"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tightloop.sandbox.locks import acquire\n"
        "acquire(Path(sys.argv[1])); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists()
    assert is_free(path)


def test_a_removed_lock_file_divides_nobody(tmp_path: Path) -> None:
    """Those who waited for the old file meet those who found a new one: never two inside."""
    path = tmp_path / "lock"
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            with locked(path, keep_file=False):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(most)) == (1, 200)
    assert not path.exists()
